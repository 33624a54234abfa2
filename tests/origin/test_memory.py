"""Pressure and its hysteresis, and the container's limit in both versions of control groups."""

from __future__ import annotations

import math
import os
from pathlib import Path

import psutil
import pytest

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._origin.memory import ContainerMemory, MemoryGuard, resident_bytes

MIB = 1024 * 1024


class Machine:
    """A process and its container whose sizes a test sets; counts how often they are looked at."""

    def __init__(self, resident: float = 200.0) -> None:
        self.resident, self.fullness, self.looks = resident, 0.0, 0

    def guard(self, **fields: float) -> MemoryGuard:
        def resident() -> int:
            self.looks += 1
            return int(self.resident * MIB)

        config = AdaptiveConfig(**fields)  # type: ignore[arg-type]
        return MemoryGuard(config, resident=resident, fullness=lambda: self.fullness)


def test_the_threshold_is_growth_over_the_size_at_construction() -> None:
    """A service that starts with 200 MiB is under pressure from 300 on."""
    machine = Machine(200)
    guard = machine.guard()
    assert guard.threshold == 300 * MIB
    machine.resident = 299
    assert guard.sample(1.0) is None
    machine.resident = 301
    assert guard.sample(2.0) == "begun"
    assert guard.usage == 301 * MIB


@pytest.mark.parametrize(("baseline", "threshold"), [(0, 100), (50, 150)])
def test_a_baseline_makes_it_absolute(baseline: float, threshold: int) -> None:
    """With a baseline of zero the threshold is the resident size itself."""
    machine = Machine(200)
    guard = machine.guard(memory_baseline_mb=baseline)
    assert guard.threshold == threshold * MIB
    assert guard.sample(0.0) == "begun"


def test_one_episode_is_one_event() -> None:
    """Around the threshold nothing flutters: over is over when a tenth of the growth is back."""
    machine = Machine(200)
    guard = machine.guard()
    events = []
    for second, size in enumerate([290, 305, 299, 305, 295, 301, 291, 289, 299, 302, 400, 200]):
        machine.resident = size
        events.append(guard.sample(float(second)))
    assert [event for event in events if event] == ["begun", "over", "begun", "over"]
    assert [second for second, event in enumerate(events) if event] == [1, 7, 9, 11]


def test_at_most_one_look_a_second() -> None:
    """However often it is asked, the process is looked at once a second."""
    machine = Machine()
    guard = machine.guard()
    machine.looks = 0
    for tick in range(10_000):
        guard.sample(tick / 1000)
    assert machine.looks == 10


def test_a_clock_set_back_does_not_stop_the_looking() -> None:
    """After a leap back the next sample is taken at once."""
    machine = Machine()
    guard = machine.guard()
    guard.sample(1e9)
    machine.resident = 1000
    assert guard.sample(5.0) == "begun"
    assert guard.sample(math.nan) is None


def test_a_nearly_full_container_is_pressure_too() -> None:
    """From 90 % on, and until it is below 85 % again."""
    machine = Machine()
    guard = machine.guard()
    events = []
    for second, fullness in enumerate([0.5, 0.89, 0.90, 0.86, 0.95, 0.84, 0.89]):
        machine.fullness = fullness
        events.append((guard.sample(float(second)), guard.container_pressure))
    assert events == [
        (None, False),
        (None, False),
        ("begun", True),
        (None, True),
        (None, True),
        ("over", False),
        (None, False),
    ]


def test_readings_that_fail_change_nothing() -> None:
    """Without /proc there is nothing to go by, and no error either."""

    def broken() -> int:
        raise psutil.AccessDenied

    guard = MemoryGuard(AdaptiveConfig(), resident=broken, fullness=broken)
    assert guard.sample(0.0) is None
    assert guard.usage == 0


def test_resident_bytes_is_this_process() -> None:
    """The reading is psutil's own for our process."""
    there = psutil.Process(os.getpid()).memory_info().rss
    assert abs(resident_bytes() - there) < 32 * MIB
    assert there > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_worker_watches_itself() -> None:
    """After a fork the child's size is read and not its parent's."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        ballast = bytearray(os.urandom(64 * MIB))
        mine = psutil.Process(os.getpid()).memory_info().rss
        close = abs(resident_bytes() - mine) < 16 * MIB and len(ballast) > 0
        os.write(write, b"y" if close else b"n")
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"y"


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)


def membership(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "cgroup"
    file.write_text(text)
    return file


def test_version_two_counts_what_cannot_be_reclaimed(tmp_path: Path) -> None:
    """Usage less inactive page cache, against the limit."""
    group(
        tmp_path / "fs/app",
        max="1000\n",
        current="950\n",
        stat="anon 700\nfile 250\ninactive_file 200\n",
    )
    container = ContainerMemory(tmp_path / "fs", membership(tmp_path, "0::/app\n"))
    assert container.fullness() == 0.75


def test_version_two_takes_the_fullest_of_the_groups_above(tmp_path: Path) -> None:
    """A limit further up counts as well; "max" is no limit."""
    group(tmp_path / "fs/a/b", max="max\n", current="10\n", stat="")
    group(tmp_path / "fs/a", max="1000\n", current="990\n", stat="inactive_file 10\n")
    container = ContainerMemory(tmp_path / "fs", membership(tmp_path, "0::/a/b\n"))
    assert container.fullness() == 0.98


def test_version_two_inside_a_container(tmp_path: Path) -> None:
    """Where the path is not visible, the mount's top is our group."""
    group(tmp_path / "fs", max="100\n", current="50\n", stat="")
    container = ContainerMemory(tmp_path / "fs", membership(tmp_path, "0::/not/visible\n"))
    assert container.fullness() == 0.5


def test_version_one(tmp_path: Path) -> None:
    """The memory controller's own hierarchy, and its own names."""
    group(
        tmp_path / "fs/memory/app",
        limit_in_bytes="1000\n",
        usage_in_bytes="960\n",
        stat="cache 100\ninactive_file 1\ntotal_inactive_file 60\n",
    )
    group(
        tmp_path / "fs/memory",
        limit_in_bytes="9223372036854771712\n",
        usage_in_bytes="960\n",
        stat="",
    )
    text = "11:cpu:/x\n4:memory:/app\n0::/app\n"
    container = ContainerMemory(tmp_path / "fs", membership(tmp_path, text))
    assert container.fullness() == 0.9


@pytest.mark.parametrize("text", ["", "garbage\n", "0::/app\n", "4:memory:/app\n"])
def test_no_limit_is_never_full(tmp_path: Path, text: str) -> None:
    """Without groups, without files, or with files that say nothing, nothing is full."""
    group(tmp_path / "fs/app", max="nonsense\n", current="5\n", stat="")
    assert ContainerMemory(tmp_path / "fs", membership(tmp_path, text)).fullness() == 0.0
    assert ContainerMemory(tmp_path / "none", tmp_path / "none").fullness() == 0.0


def test_a_group_that_goes_away_is_not_full(tmp_path: Path) -> None:
    """Files that vanish or turn unlimited after the start raise nothing."""
    folder = tmp_path / "fs/app"
    group(folder, max="100\n", current="99\n", stat="inactive_file x\n")
    container = ContainerMemory(tmp_path / "fs", membership(tmp_path, "0::/app\n"))
    assert container.fullness() == 0.99
    (folder / "memory.stat").unlink()
    assert container.fullness() == 0.99
    (folder / "memory.max").write_text("max\n")
    assert container.fullness() == 0.0
    (folder / "memory.current").unlink()
    assert container.fullness() == 0.0
