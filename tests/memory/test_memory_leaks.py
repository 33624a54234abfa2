"""Memory is stable at ten and at a thousand times the window, and beyond.

Three patterns bound it. `Window.append` trims at every insertion. `Window.expire` drops what is too
old. `MemoryGuard` and `Sweeper.tick` cut windows when memory is short.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveStrategy

from ..kit.clock import Clock
from ..kit.fakes import Rig
from ..kit.metrics import by
from .memory_leak_detection import MemoryProfiler

pytestmark = pytest.mark.memory


def test_the_profiler_sees_a_leak() -> None:
    """The profiler finds a leak of a known size."""
    leak: list[bytes] = []
    with MemoryProfiler() as profiler:
        assert profiler.get_current_memory_mb() < 0.01
        leak.extend(bytes(1024) for _ in range(10 * 1024))
        assert 9.5 < profiler.get_current_memory_mb() < 12


@pytest.mark.parametrize("times", [10, 1000])
async def test_adaptive_strategy_does_not_leak(times: int) -> None:
    """The window is bounded and memory stable, however long the sequence of failures."""
    strategy = AdaptiveStrategy(window_size=100)
    with MemoryProfiler() as profiler:
        for attempt in range(times * strategy.window_size):
            await strategy.should_retry(Exception(f"Test error {attempt}"))
            if attempt % (10 * times) == 0:
                assert profiler.get_current_memory_mb() < 0.1, attempt
        assert profiler.get_current_memory_mb() < 0.05
    assert len(strategy.recent_attempts) == strategy.window_size


@pytest.mark.parametrize("times", [10, 1000])
async def test_pattern_one_trims_at_every_insertion(times: int) -> None:
    """After any insertion at all the window is within its bound, texts included."""
    strategy = AdaptiveStrategy(window_size=50, record_error_messages=True)
    with MemoryProfiler() as profiler:
        for attempt in range(times * 50):
            await strategy.should_retry(ValueError("x" * 10_000 + str(attempt)))
            assert len(strategy.recent_attempts) <= 50
        assert profiler.get_current_memory_mb() < 0.1
    assert all(len(record.error_message or "") <= 200 for record in strategy.recent_attempts)


@pytest.mark.parametrize("times", [10, 1000])
async def test_pattern_two_expires_by_time(times: int) -> None:
    """Attempts older than the window's duration are gone, and so are their arrays."""
    clock = Clock()
    strategy = AdaptiveStrategy(
        clock=clock, window_size=10**6, window_duration=timedelta(seconds=100)
    )
    with MemoryProfiler() as profiler:
        for _ in range(times * 100):
            clock.now += 1
            await strategy.should_retry(OSError())
            assert len(strategy._origin.window) <= 101
        assert profiler.get_current_memory_mb() < 0.05


async def test_pattern_three_cuts_under_pressure() -> None:
    """Above the threshold a full window is cut to its newest attempts, and memory comes back."""
    rig = Rig(window_size=200_000, pressure_window_size=100)
    guard = rig.middleware._registry.guard
    resident = guard.usage
    guard._resident = lambda: resident
    guard._fullness = lambda: 0.0
    await rig.call()
    window = rig.middleware._registry.listed()[0].window
    with MemoryProfiler() as profiler:
        for _ in range(200_000):
            window.append(rig.clock.now, 0)
        full = profiler.get_current_memory_mb()
        assert full > 1.6
        resident += 101 * 1024 * 1024
        rig.clock.now += 1
        await rig.call()
        assert len(window) <= 101
        assert profiler.get_current_memory_mb() < full / 10
    assert by(rig.metrics()["adaptive_retry.cleanups"], "adaptive_retry.reason")["memory"] == 1


async def test_a_million_attempts_leave_no_growth() -> None:
    """After warm-up, a million attempts through the middleware change nothing."""
    rig = Rig([200])
    for _ in range(20_000):
        await rig.call()
    profiler = MemoryProfiler()
    profiler.start()
    try:
        for _ in range(30_000):
            await rig.call()
        assert profiler.get_current_memory_mb() < 0.02
    finally:
        profiler.stop()
    # Tracing would make the rest last minutes; the resident size is coarse and enough here.
    before = MemoryProfiler()
    before.start()
    before.stop()
    for _ in range(950_000):
        await rig.call()
    assert before.resident_growth_mb() < 4
    assert rig.middleware.snapshot().requests.first_success == 1_000_000


async def test_two_hundred_thousand_hosts_stay_flat() -> None:
    """The table, the windows and the metrics are bounded, whatever hosts there are."""
    rig = Rig([200, 503, 200] * 100_000, max_attempts=2)
    await rig.call()
    profiler = MemoryProfiler()
    profiler.start()
    profiler.stop()
    for number in range(200_000):
        await rig.call(URL.build(scheme="http", host=f"h{number}.example"))
        if number % 50_000 == 0:
            rig.metrics()
    metrics = rig.metrics()
    assert profiler.resident_growth_mb() < 30
    for name, points in metrics.items():
        addresses = {dict(attributes).get("server.address") for attributes in points}
        assert len(addresses) <= 101, name
    assert len(rig.middleware.snapshot().origins) == 1024
    assert sum(metrics["adaptive_retry.attempts"].values()) == rig.upstream.hits


async def test_a_hundred_thousand_exception_classes_stay_bounded() -> None:
    """Types that are made at run time leave 254 names, and no class behind."""
    rig = Rig(max_attempts=1)
    profiler = MemoryProfiler()
    kinds: list[weakref.ref[Any]] = []
    profiler.start()
    try:
        for number in range(100_000):
            kind = type(f"Generated{number}", (aiohttp.ClientOSError,), {})
            if number % 10_000 == 0:
                kinds.append(weakref.ref(kind))
            rig.upstream._step = kind()
            rig.upstream._script = iter(())
            with contextlib.suppress(aiohttp.ClientOSError):
                await rig.call()
        rig.upstream._step = 200
        del kind
        assert profiler.get_current_memory_mb() < 1
    finally:
        profiler.stop()
    gc.collect()
    assert [ref() for ref in kinds] == [None] * len(kinds)
    assert len(rig.middleware.snapshot().failures) == 255
    assert len(rig.metrics()["adaptive_retry.failures"]) <= 255
