"""Successes that are written in line: they count for all that any other success counts for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry import Snapshot

from ..kit.fakes import Rig, Upstream
from .rigs import Wrapped, one, rig_with


def told(rig: Rig) -> int:
    """How many successes were more than written down."""
    (origin,) = rig.middleware._registry.listed()
    return origin.window.appended


async def test_most_successes_are_written_in_line() -> None:
    """Of 2,000 calls in 20 ms one in a hundred does more, and those that do sweep on time."""
    rig = Rig(cleanup_frequency=100)
    for _ in range(2000):
        rig.clock.now += 1e-5
        await rig.call()
    # The ring grows from 8 to 1,000 in seven steps meanwhile.
    assert 20 <= told(rig) <= 20 + 8
    snapshot = rig.middleware.snapshot()
    assert snapshot.requests.first_success == snapshot.attempts["original"] == 2000
    assert snapshot.origins[0].window_length == 1000
    assert snapshot.evicted["capacity"] == 1000
    assert snapshot.cleanups["periodic"] == 20


async def test_each_look_comes_within_20_ms() -> None:
    """However rarely sweeps are wanted: latency is looked at 50 times a second."""
    rig = Rig(cleanup_frequency=10**9, window_size=10)
    for _ in range(2000):
        rig.clock.now += 1e-3
        await rig.call()
    assert 95 <= told(rig) <= 105


async def test_tokens_that_were_not_booked_are_shown_all_the_same() -> None:
    """The budget that a snapshot and a metric show has what every success earned."""
    rig = Rig([500, 500, *[200] * 500], max_attempts=2, budget_initial=5)
    await rig.call()
    for _ in range(40):
        await rig.call()
    rig.clock.now += 1e-6
    (origin,) = rig.middleware.snapshot().origins
    assert rig.middleware._registry.listed()[0].untold > 5
    earned = rig.middleware.config.budget_deposit
    assert origin.budget_available == pytest.approx(4 + 40 * earned)
    (shown,) = rig.metrics()["adaptive_retry.budget.available"].values()
    assert shown == pytest.approx(4 + 40 * earned)


async def test_what_busy_hours_teach_is_no_less() -> None:
    """At 10,000 calls a second, too, one failure in a hundred is taken for one in a hundred: four
    failures in a row are an outage, and not fourteen, as with a policy that is told everything."""
    script = ([503] + [200] * 99) * 300
    quiet = Rig(script, max_attempts=1)
    policy = Wrapped(quiet.clock, max_attempts=1)
    loud = rig_with(script, {"policy": one(policy)}, max_attempts=1)
    refused = aiohttp.ClientOSError(111, "refused")

    async def failures_until_down(rig: Rig, state: Callable[[], str]) -> int:
        for _ in script:
            rig.clock.now += 1e-4
            await rig.call()
        rig.upstream = Upstream([refused])
        while state() != "down":
            with pytest.raises(aiohttp.ClientOSError):
                await rig.call()
        return rig.upstream.hits

    try:
        found = await failures_until_down(
            quiet, lambda: quiet.middleware.snapshot().origins[0].state
        )
        told_all = await failures_until_down(loud, lambda: policy.inner.state(loud.clock.now))
        assert found == told_all == 4
    finally:
        refused.__traceback__ = None


def comparable(snapshot: Snapshot) -> dict[str, Any]:
    """What does not depend on who wrote a success down."""
    (origin,) = snapshot.origins
    return {
        "requests": snapshot.requests,
        "attempts": snapshot.attempts,
        "failures": snapshot.failures,
        "suppressed": snapshot.suppressed,
        "evicted": snapshot.evicted,
        "cleanups": snapshot.cleanups,
        "faults": snapshot.faults,
        "length": origin.window_length,
        "rate": origin.success_rate,
        "errors": origin.errors,
        "in flight": origin.in_flight,
    }


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
    """Every count, the window, the budget and the state are those of a middleware that tells its
    policy of each success at once."""
    script = [status for status, _ in calls]
    fields: dict[str, Any] = {
        "max_attempts": 1,
        "window_size": size,
        "window_duration": timedelta(seconds=10),
        "cleanup_frequency": frequency,
    }
    quiet = Rig(script, **fields)
    made: list[Wrapped] = []

    def make_policy(origin: str) -> Wrapped:
        made.append(Wrapped(loud.clock, **fields))
        return made[-1]

    loud = rig_with(script, {"policy": make_policy}, **fields)
    for _, seconds in calls:
        for rig in (quiet, loud):
            rig.clock.now += seconds
            await rig.call()
        snapshot = quiet.middleware.snapshot()
        assert comparable(snapshot) == comparable(loud.middleware.snapshot())
        (origin,), (policy,), now = snapshot.origins, made, loud.clock.now
        assert origin.state == policy.inner.state(now)
        assert origin.budget_available == pytest.approx(policy.inner.tokens_at(now, 0))
