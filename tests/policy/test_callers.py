"""Whether callers wait for their answers, told from when calls come and end: fixed seeds."""

from __future__ import annotations

import heapq
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry._policy import estimators
from aiohttp_adaptive_retry._policy.estimators import Callers
from aiohttp_adaptive_retry._policy.tuning import TUNING


def verdicts(seed: int, rate: float, failing: float, hold: float, latency: float) -> list[bool]:
    """What is said at each failure of calls that come at random, whatever became of the others.

    Args:
        rate, failing: calls a second, and the share of them that fails.
        hold: seconds on average for which a failed call stays under way.
        latency: seconds until it is known what a call came to.
    """
    chance, callers, now, said = random.Random(seed), Callers(TUNING), 0.0, []
    ends: list[float] = []
    for _ in range(250):
        now += chance.expovariate(rate)
        while ends and ends[0] < now:
            callers.ended(heapq.heappop(ends))
        if chance.random() < failing:
            callers.failed(now, latency)
            said.append(callers.wait)
            heapq.heappush(ends, now + chance.random() * 2 * hold)
        else:
            callers.called(now)
    return said


@pytest.mark.parametrize("latency", [0.005, 0.05, 0.5, 2.0])
@pytest.mark.parametrize("failing", [0.05, 0.5, 1.0])
def test_callers_who_do_not_wait_are_hardly_ever_taken_for_such(
    failing: float, latency: float
) -> None:
    """From one call in five seconds to fifty a second, in good times and in an outage."""
    everything: list[bool] = []
    for rate in (0.2, 1.0, 5.0, 50.0):
        for hold in (0.02, 0.1, 0.5, 2.0):
            said: list[bool] = []
            for seed in range(6):
                said += verdicts(seed, rate, failing, hold, latency)
            everything += said
            assert sum(said) <= 0.05 * len(said), (rate, hold)
    assert sum(everything) <= 0.005 * len(everything)


def recognised(seed: int, think: float, latency: float, hold: float) -> tuple[int, float]:
    """At which failure a lone caller is first said to wait, and the share of 100 failures.

    One call of ten fails. The caller thinks after each answer, and calls again.
    """
    chance, callers, now, said = random.Random(seed), Callers(TUNING), 0.0, list[bool]()
    while len(said) < 100:
        now += think * chance.expovariate(1) + latency
        if chance.random() < 0.1:
            callers.failed(now, latency)
            said.append(callers.wait)
            now += hold
            callers.ended(now)
        else:
            callers.called(now)
    return said.index(True) + 1, sum(said) / len(said)


@pytest.mark.parametrize("think", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("latency", [0.02, 0.2])
def test_a_caller_who_waits_is_recognised_after_a_handful_of_failures(
    think: float, latency: float
) -> None:
    """As soon as failed calls took the time of some ten calls; and then it stays so."""
    cycle = think + latency
    for hold in (0.5 * cycle, 2.0 * cycle, 10.0 * cycle):
        for seed in range(10):
            failures, share = recognised(seed, think, latency, hold)
            assert failures <= 3 + 10.0 * cycle / hold
            assert share > 0.7


def test_one_time_out_of_a_caller_who_waits_tells() -> None:
    """The time before the failure counts: nobody else called while the caller waited in vain."""
    callers = Callers(TUNING)
    for number in range(20):
        callers.called(0.1 * number)
    callers.failed(2.0 + 2.0, 2.0)
    assert callers.wait
    # Were there other callers, they would have called meanwhile.
    callers = Callers(TUNING)
    for number in range(40):
        callers.called(0.1 * number)
    callers.failed(3.9, 2.0)
    assert not callers.wait


def test_nobody_is_known_at_first() -> None:
    """A cold client says nothing of its callers."""
    callers = Callers(TUNING)
    assert (callers.wait, callers.rate) == (False, 0.0)
    callers.failed(0.0, 1.0)
    callers.ended(5.0)
    callers.failed(5.0, 1.0)
    assert (callers.wait, callers.pending) == (False, 1)


@given(
    calls=st.lists(
        st.tuples(st.floats(0.01, 2.0), st.floats(0.0, 3.0), st.floats(0.0, 2.0)), max_size=20
    )
)
def test_time_in_which_a_failed_call_is_under_way_counts_once(
    calls: list[tuple[float, float, float]],
) -> None:
    """However failed calls overlap: from when each is known at least, and when it was sent at most.

    Each call has the time between it and the one before, its latency, and how long it goes on.
    """
    callers, now, ends = Callers(TUNING), 0.0, list[float]()
    known, sent = list[tuple[float, float]](), list[tuple[float, float]]()
    with pytest.MonkeyPatch.context() as patch:
        # Nothing fades.
        patch.setattr(estimators, "_MOST_CALLS", math.inf)
        callers.called(now)
        for gap, latency, hold in calls:
            now += gap
            while ends and ends[0] < now:
                callers.ended(heapq.heappop(ends))
            callers.failed(now, latency)
            heapq.heappush(ends, now + hold)
            known.append((now, now + hold))
            sent.append((max(0.0, now - latency), now + hold))
        while ends:
            callers.ended(heapq.heappop(ends))
    assert covered(known) - 1e-9 <= callers._pending_time <= covered(sent) + 1e-9
    assert callers._pending_time + callers._time == pytest.approx(max([0.0, *dict(known).values()]))


def covered(spans: list[tuple[float, float]]) -> float:
    """The seconds that lie in any of the spans."""
    total, until = 0.0, 0.0
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


def test_the_rate_is_that_of_times_without_failed_calls() -> None:
    """Ten calls a second are ten a second, however long a failed call is under way."""
    callers = Callers(TUNING)
    for number in range(100):
        callers.called(0.1 * number)
    assert callers.rate == pytest.approx(10.0, rel=0.05)
    callers.failed(10.0, 0.1)
    callers.ended(100.0)
    callers.called(100.1)
    assert callers.rate == pytest.approx(10.0, rel=0.05)


def test_calls_that_were_written_down_count_all_the_same() -> None:
    """A hundred of a quiet time, told at once, make the same rate as one by one."""
    one_by_one, at_once = Callers(TUNING), Callers(TUNING)
    for callers in (one_by_one, at_once):
        callers.called(0.0)
    for number in range(1, 101):
        one_by_one.called(0.01 * number)
    at_once.passed(99)
    at_once.called(1.0)
    assert at_once.rate == pytest.approx(one_by_one.rate, rel=0.1)


def test_the_past_fades() -> None:
    """Forty calls later it is noticed that other callers, who don't wait, have come."""
    callers, now = Callers(TUNING), 0.0
    for _ in range(50):
        now += 0.1
        callers.failed(now, 0.01)
        now += 1.0
        callers.ended(now)
        now += 0.1
        callers.called(now)
    assert callers.wait
    for number in range(400):
        now += 0.02
        if number % 10 == 0:
            callers.failed(now, 0.01)
        else:
            callers.called(now)
        if number % 10 == 5:
            callers.ended(now)
    assert not callers.wait


@pytest.mark.parametrize("leap", [1e9, -1e9, math.nan, math.inf, -math.inf])
def test_a_leap_of_the_clock_is_forgotten(leap: float) -> None:
    """One reading that can't be changes little, and after some calls nothing."""
    callers, now = Callers(TUNING), 0.0
    for number in range(1000):
        now += 0.1
        if number % 5:
            callers.called(now)
            continue
        callers.failed(now, 0.05)
        callers.ended(now + 0.5)
        now += 0.5
        if number == 20:
            callers.called(leap)
            callers.failed(leap, leap)
            callers.ended(leap)
    assert callers.pending == 0
    assert callers.wait
    assert 5.0 < callers.rate < 25.0
