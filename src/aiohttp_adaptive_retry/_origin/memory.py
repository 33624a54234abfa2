"""When memory is short: the process's resident size, the container's limit, and hysteresis.

Everything that could block is prepared at import: `psutil.Process()` reads files while it is made,
and the control group has to be searched for. Later reads are of single lines of procfs and
cgroupfs, which no disk stands behind.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

import psutil

from ..config import AdaptiveConfig

_MIB: Final = 1024 * 1024
# A reading costs about 10 microseconds: nothing once a second, and too much for every attempt.
_SAMPLE_INTERVAL: Final = 1.0
_CONTAINER_PRESSURE: Final = 0.90
_CONTAINER_RELIEF: Final = 0.85
# An episode ends when a tenth of the permitted growth is given back, not at the first byte.
_RELIEF: Final = 0.90
# cgroup v1 writes "no limit" as the largest multiple of the page size.
_UNLIMITED: Final = 1 << 60

_process = psutil.Process()


def _renew_process() -> None:
    global _process
    _process = psutil.Process()


# A forked worker would otherwise go on watching its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_process)


def resident_bytes() -> int:
    """Resident size of this process in bytes. About 10 microseconds; any thread."""
    return int(_process.memory_info().rss)


class _Level(NamedTuple):
    """The files of one control group, and the key of reclaimable pages in `stat`."""

    limit: Path
    usage: Path
    stat: Path
    reclaimable: bytes


class ContainerMemory:
    """How full the container's memory is, by cgroup v2 or v1; none found means never full.

    Page cache that the kernel can reclaim at once is not counted, else a container that reads many
    files would always look full; the kubelet counts the same way ("working set").
    """

    def __init__(
        self, root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
    ) -> None:
        self._levels = tuple(_levels(root, membership))

    def fullness(self) -> float:
        """The fullest of the groups this process is in, as a share of its limit; 0 without one."""
        return max((_fullness(level) for level in self._levels), default=0.0)


def _levels(root: Path, membership: Path) -> list[_Level]:
    try:
        lines = membership.read_text().splitlines()
    except (OSError, ValueError):
        return []
    levels = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts = (root, root / "unified")
            limit, usage, reclaimable = "memory.max", "memory.current", b"inactive_file"
        elif "memory" in controllers.split(","):
            mounts = (root / "memory", root / controllers)
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
            reclaimable = b"total_inactive_file"
        else:
            continue
        for mount in mounts:
            # A limit may stand on any group above ours. Inside a container the path itself may be
            # invisible, and the mount's top is our group.
            group = mount / path.lstrip("/")
            for folder in (group, *group.parents):
                if not folder.is_relative_to(mount):
                    break
                level = _Level(folder / limit, folder / usage, folder / "memory.stat", reclaimable)
                if level not in levels and _bytes_in(level.limit) is not None:
                    levels.append(level)
    return levels


def _bytes_in(file: Path) -> int | None:
    """The number a file holds; None for "max", an unlimited one, or a file that can't be read."""
    try:
        with open(file, "rb") as lines:
            number = int(lines.readline(64))
    except (OSError, ValueError):
        return None
    return number if 0 <= number < _UNLIMITED else None


def _fullness(level: _Level) -> float:
    limit, usage = _bytes_in(level.limit), _bytes_in(level.usage)
    if not limit or usage is None:
        return 0.0
    # The statistics are the longer read; they can only lower what is near the limit.
    if usage < _CONTAINER_RELIEF * limit:
        return usage / limit
    try:
        with open(level.stat, "rb") as lines:
            for line in lines:
                key, _, value = line.partition(b" ")
                if key == level.reclaimable:
                    usage -= min(usage, int(value))
                    break
    except (OSError, ValueError):
        pass
    return usage / limit


CONTAINER: Final = ContainerMemory()


class MemoryGuard:
    """Tells when an episode of memory pressure begins and when it is over.

    Tests inject `resident`, the bytes resident, and `fullness`, the share of the container's limit
    in use. `sample` belongs to one loop; any thread may read the attributes. A reading that fails
    changes nothing.
    """

    def __init__(
        self,
        config: AdaptiveConfig,
        *,
        resident: Callable[[], int] | None = None,
        fullness: Callable[[], float] | None = None,
    ) -> None:
        self._resident = resident_bytes if resident is None else resident
        self._fullness = CONTAINER.fullness if fullness is None else fullness
        #: Resident bytes as last sampled.
        self.usage = self._read()
        self._first_usage = self.usage
        self.reconfigure(config)
        #: Whether an episode of pressure is on.
        self.pressure = False
        #: Whether it is the container that is nearly full: then the kernel's killer is near.
        self.container_pressure = False
        #: When the next look is due.
        self.due = -1.0

    def reconfigure(self, config: AdaptiveConfig) -> None:
        """Take the thresholds of a configuration. Growth is counted from where it was."""
        growth, baseline = config.memory_threshold_mb * _MIB, config.memory_baseline_mb
        baseline = self._first_usage if baseline is None else baseline * _MIB
        #: Resident bytes at which pressure begins.
        self.threshold = int(baseline + growth)
        self._relief = baseline + growth * _RELIEF

    def sample(self, now: float) -> Literal["begun", "over"] | None:
        """Look, at most once a second; say if an episode of pressure has begun or is over."""
        # A clock that was set back or gave no number does not pass for too early.
        if self.due - _SAMPLE_INTERVAL <= now < self.due:
            return None
        self.due = now + _SAMPLE_INTERVAL
        self.usage = usage = self._read()
        limit = _CONTAINER_RELIEF if self.container_pressure else _CONTAINER_PRESSURE
        self.container_pressure = self._full() >= limit
        if self.pressure:
            if usage <= self._relief and not self.container_pressure:
                self.pressure = False
                return "over"
        elif usage > self.threshold or self.container_pressure:
            self.pressure = True
            return "begun"
        return None

    def _read(self) -> int:
        try:
            return int(self._resident())
        except Exception:
            # psutil.Error, or /proc hidden from us: then there is nothing to go by.
            return getattr(self, "usage", 0)

    def _full(self) -> float:
        try:
            return float(self._fullness())
        except Exception:
            return 0.0
