"""Successes that are written in line: they count for all that any other success counts for."""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry.books import Books
from aiohttp_adaptive_retry.errors import ErrorCatalogue
from aiohttp_adaptive_retry.faults import Faults, SafeClock
from aiohttp_adaptive_retry.memory import MemoryGuard
from aiohttp_adaptive_retry.snapshot import Snapshot
from aiohttp_adaptive_retry.strategy import AdaptiveStrategy
from aiohttp_adaptive_retry.trial import Evidence, Trial
from aiohttp_adaptive_retry.window import Window

from .kit.clock import Clock
from .kit.fakes import Rig


def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a success was more than written down."""
    moments: list[float] = []
    succeeded = Books.succeeded

    def noting(self: Books, call: Any, origin: Any, started: float, now: float) -> None:
        moments.append(now)
        succeeded(self, call, origin, started, now)

    monkeypatch.setattr(Books, "succeeded", noting)
    return moments


async def test_most_successes_are_written_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2,000 calls in 20 ms one in a hundred does more, and those that do sweep on time."""
    rig, moments = Rig(cleanup_frequency=100), asked(monkeypatch)
    for _ in range(2000):
        rig.clock.now += 1e-5
        await rig.call()
    # The ring grows from 8 to 1,000 in seven steps meanwhile.
    assert 20 <= len(moments) <= 20 + 8
    snapshot = rig.middleware.snapshot()
    assert snapshot.requests.first_success == snapshot.attempts["original"] == 2000
    assert snapshot.origins[0].window_length == 1000
    assert snapshot.evicted["capacity"] == 1000
    assert snapshot.cleanups["periodic"] == 20


async def test_each_look_comes_within_20_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    """However rarely sweeps are wanted: latency is looked at 50 times a second."""
    rig, moments = Rig(cleanup_frequency=10**9, window_size=10), asked(monkeypatch)
    for _ in range(2000):
        rig.clock.now += 1e-3
        await rig.call()
    assert 95 <= len(moments) <= 105


async def test_tokens_that_were_not_booked_are_told_all_the_same() -> None:
    """The budget that a snapshot and a metric show has what every success earned."""
    rig = Rig([503, 503, *[200] * 500], max_attempts=2, budget_initial=5, budget_floor=0)
    await rig.call()
    for _ in range(40):
        await rig.call()
    rig.clock.now += 1e-6
    (origin,) = rig.middleware.snapshot().origins
    unbooked = rig.middleware._origins.listed()[0].strategy.unbooked
    assert unbooked > 5
    earned = rig.middleware.config.budget_deposit
    assert origin.budget_available == pytest.approx(4 + 40 * earned)
    (shown,) = rig.metrics()["adaptive_retry.budget.available"].values()
    assert shown == pytest.approx(4 + 40 * earned)
    strategy = rig.middleware._origins.listed()[0].strategy
    assert f"budget={4 + 40 * earned:.1f}/" in repr(strategy)


def test_what_busy_hours_teach_is_no_less() -> None:
    """At 10,000 calls a second, too, one failure in a hundred is taken for one in a hundred: three
    failures in a row are an outage, and not fourteen."""
    config, clock = AdaptiveConfig(), Clock()
    strategy = AdaptiveStrategy.shared(
        config, SafeClock(clock, Faults()), lambda: 0.5, ErrorCatalogue(), MemoryGuard(config)
    )
    for number in range(100_000):
        clock.now += 1e-4
        if number % 100 == 99:
            strategy.failed(clock.now, 1, Trial(), Evidence())
        elif not strategy.window.succeed(clock.now):
            strategy.succeeded(clock.now, 0.01)
            strategy.window.open(sys.maxsize, strategy.health.calm_until)
    assert strategy.health.needed == 3


def comparable(snapshot: Snapshot) -> dict[str, Any]:
    """What does not depend on who wrote a success down; budgets to the precision of sums."""
    (origin,) = snapshot.origins
    return {
        "requests": snapshot.requests,
        "attempts": snapshot.attempts,
        "failures": snapshot.failures,
        "suppressed": snapshot.suppressed,
        "evicted": snapshot.evicted,
        "cleanups": snapshot.cleanups,
        "length": origin.window_length,
        "errors": origin.errors,
        "state": origin.state,
        "in flight": origin.in_flight,
        "budget": pytest.approx(origin.budget_available),
    }


class Closed(Window):
    """A window that is never open: every success is booked by itself."""

    __slots__ = ()

    def open(self, upto: int, until: float) -> None:
        """Not even for one."""


CALLS = st.lists(
    st.tuples(
        st.sampled_from([200] * 12 + [404, 301, 503, 500]),
        st.sampled_from([0.0] * 4 + [1e-4] * 4 + [0.019, 0.021, 1.5, 11.0, -1e-5, -3.0]),
    ),
    min_size=1,
    max_size=250,
)


@settings(max_examples=150, deadline=None)
@given(calls=CALLS, size=st.sampled_from([1, 5, 20, 1000]), frequency=st.sampled_from([1, 7, 100]))
async def test_nothing_depends_on_who_wrote_a_success_down(
    calls: list[tuple[int, float]], size: int, frequency: int
) -> None:
    """Every count, the window, the budget and the state are those of a middleware that books each
    success at once."""
    script = [status for status, _ in calls]
    rigs = [
        Rig(
            script,
            max_attempts=1,
            window_size=size,
            window_duration=timedelta(seconds=10),
            cleanup_frequency=frequency,
        )
        for _ in range(2)
    ]
    for number, (_, seconds) in enumerate(calls):
        for rig in rigs:
            rig.clock.now += seconds
            await rig.call()
        if not number:
            (origin,) = rigs[1].middleware._origins.listed()
            origin.window.open(0, -math.inf)
            origin.window.__class__ = Closed
        free, closed = (comparable(rig.middleware.snapshot()) for rig in rigs)
        assert free == closed
