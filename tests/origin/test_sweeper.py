"""When clean-up is due: by operations, by time, and after any leap of the clock."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._origin.memory import MemoryGuard
from aiohttp_adaptive_retry._origin.sweeper import Sweeper

from .table import MIB, Table


def test_sweeps_come_every_so_many_operations() -> None:
    """`cleanup_frequency` operations are one sweep."""
    table = Table(cleanup_frequency=10)
    for _ in range(100):
        table.use("http://a/")
    assert table.counters.cleanups["periodic"] == 10


def test_sweeps_come_with_time() -> None:
    """After `cleanup_interval` the next operation sweeps, however few there were."""
    table = Table(cleanup_frequency=10**6, cleanup_interval=timedelta(seconds=30))
    table.use("http://a/")
    for _ in range(5):
        table.clock.now += 31
        table.use("http://a/")
    assert table.counters.cleanups["periodic"] == 5


class Noting:
    """Something to clean up that notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def sweep(self, now: float) -> None:
        self.asked.append(("sweep", now))

    def on_pressure(self, now: float) -> None:
        self.asked.append(("pressure", now))

    def on_relief(self, now: float) -> None:
        self.asked.append(("relief", now))


def test_a_tick_cleans_up_what_is_due_and_says_when_to_come_again() -> None:
    """Pressure, relief and sweeps each come once, and what else goes with time at each tick."""
    swept, also, size = Noting(), list[float](), 100
    config = AdaptiveConfig(memory_baseline_mb=100, cleanup_interval=timedelta(seconds=10))
    guard = MemoryGuard(config, resident=lambda: size * MIB, fullness=lambda: 0.0)
    sweeper = Sweeper(config, guard, swept, also.append)
    for second in range(13):
        size = 300 if 3 <= second < 6 else 100
        sweeper.tick(float(second))
        assert sweeper.due == second + 1.0
    assert swept.asked == [("pressure", 3.0), ("relief", 6.0), ("sweep", 10.0)]
    assert also == [float(second) for second in range(13)]


@pytest.mark.parametrize("leap", [math.nan, -math.inf, math.inf, 0.0, -1e9, 1e18])
def test_a_clock_that_leaps_breaks_no_sweep(leap: float) -> None:
    """After any reading sweeps and samples go on, after `cleanup_frequency` operations at most."""
    table = Table(cleanup_frequency=20, cleanup_interval=timedelta(seconds=1))
    table.use("http://a/")
    table.clock.now = leap
    for _ in range(3):
        table.use("http://a/")
    table.clock.now = 5000.0
    for _ in range(20):
        table.use("http://a/")
    before = table.counters.cleanups["periodic"]
    for _ in range(5):
        table.clock.now += 2
        table.use("http://a/")
    assert table.counters.cleanups["periodic"] >= before + 4
