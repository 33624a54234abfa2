"""A short soak, in a process of its own: nothing grows, and a leak would be seen.

Twenty-five seconds, or what `SOAK_SECONDS` says: CI runs two minutes.
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SECONDS = float(os.environ.get("SOAK_SECONDS", "25"))

pytestmark = [pytest.mark.memory, pytest.mark.timeout(SECONDS + 120)]


def soak(folder: Path, seconds: float, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.soak",
            f"--minutes={seconds / 60}",
            f"--folder={folder}",
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + 100,
        check=False,
    )


def test_nothing_grows(tmp_path: Path) -> None:
    """Mixed faults, many origins, a collector that starts and stops: all series are flat."""
    done = soak(tmp_path, SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "GROWS" not in done.stdout
    with (tmp_path / "soak.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 60
    assert float(rows[-1]["seconds"]) > 0.8 * SECONDS
    assert (tmp_path / "soak.png").stat().st_size > 10_000
    # There was something to grow by.
    assert int(done.stdout.split()[0]) > 20 * SECONDS
    exports = int(done.stdout.split(" exports")[0].split()[-1])
    assert exports > 5


def test_a_leak_makes_it_fail(tmp_path: Path) -> None:
    """A middleware that keeps every exception is noticed in forty seconds."""
    done = soak(tmp_path, 40.0, "--leak")
    assert done.returncode == 1, done.stdout + done.stderr[-2000:]
    grows = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("GROWS")]
    assert "allocated_blocks" in grows, done.stdout
