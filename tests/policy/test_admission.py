"""First attempts with `admission=True`: all but a few wait or are refused in an outage."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry._policy.adaptive import MOST_HELD
from aiohttp_adaptive_retry.policy import SEND, GiveUp, Wait

from .bench import Bench, View, holds, limited
from .crowd import Crowd, refuses


def admitting(age: float = 0.05, **fields: float) -> Bench:
    """A bench with admission, of an origin that has been down for so many seconds."""
    bench = Bench({"admission": True, **fields})
    bench.down(age)
    return bench


def test_without_admission_first_attempts_are_sent_whatever_happens() -> None:
    """An origin that is down and limiting gets every first attempt."""
    bench = Bench()
    bench.fail(limited(5.0))
    assert bench.arrive() is SEND
    bench.down()
    assert [bench.arrive() for _ in range(5)] == [SEND] * 5


def test_limits_and_congestion_keep_no_first_attempt_back() -> None:
    """Who steps back from what others share leaves it to them, and gains nothing."""
    bench = Bench({"admission": True})
    bench.fail(limited(20.0))
    assert bench.state == "limited"
    assert bench.arrive() is SEND
    bench = Bench({"admission": True})
    bench.congest()
    assert bench.arrive() is SEND
    assert bench.policy.parked_calls == 0


@pytest.mark.parametrize(("age", "spacing"), [(0.1, 0.2), (5.0, 0.5), (60.0, 1.0)])
def test_probes_are_spaced_by_the_age_of_the_outage(age: float, spacing: float) -> None:
    """A tenth of it, from a fifth of a second to one second; the others are held or refused."""
    bench = admitting(age)
    assert bench.arrive(bench.view(8.0)) is SEND
    assert bench.arrive(bench.view(8.0), after=0.9 * spacing) is not SEND
    assert bench.arrive(bench.view(8.0), after=1.2 * spacing) is SEND
    assert bench.arrive(bench.view(8.0), after=2.0 * spacing) is not SEND


def test_a_held_call_probes_when_it_is_time_to() -> None:
    """A lone caller waits for a moment at most, and finds out by itself."""
    bench = admitting()
    assert bench.arrive() is SEND
    call = bench.view(8.0)
    held, action = bench.held(bench.arrive(call), call)
    assert action is SEND
    assert held == pytest.approx(0.2, abs=0.1)
    bench.ok(call=call)
    assert call.state is None


def test_a_call_has_one_allowance_of_holding() -> None:
    """What it was held for before its first attempt is held less after it."""
    bench = admitting()
    assert bench.arrive() is SEND
    call = bench.view(8.0)
    held, _ = bench.held(bench.arrive(call), call)
    assert held > 0.0
    bench.fail(call=call)
    allowed = bench.config.hold_share * (8.0 - held)
    assert call.state.hold_until - bench.clock.now == pytest.approx(allowed - held, abs=0.02)


def test_held_calls_go_at_a_pace_when_it_is_over() -> None:
    """One for each success, and some more for each that was let go."""
    bench = admitting(hold_share=1.0)
    calls = [bench.view(30.0) for _ in range(10)]
    assert [holds(bench.arrive(call)) for call in calls] == [False] + [True] * 9
    bench.ok(call=calls[0])
    gone, waiting, rounds = 0, calls[1:], 0
    while waiting:
        rounds += 1
        bench.clock.now += 0.05
        sent = [call for call in waiting if bench.policy.wake(bench.clock.now, call) is SEND]
        assert len(sent) <= 4
        waiting = [call for call in waiting if call not in sent]
        gone += len(sent)
        bench.ok(len(sent))
    assert (gone, bench.policy.parked_calls) == (9, 0)
    assert 3 <= rounds <= 9


def test_a_call_whose_hold_is_over_goes_if_the_origin_is_back_and_else_is_refused() -> None:
    """A quarter of its time; slow successes let nobody go before."""
    for back in (True, False):
        bench = admitting()
        bench.arrive()
        call = bench.view(4.0)
        began, action = bench.clock.now, bench.arrive(call)
        if back:
            bench.ok(latency=0.5)
            bench.policy._release = 0.0
        while isinstance(action, Wait):
            bench.clock.now += action.seconds
            if not back:
                # Another call is there first, each time that a probe is due.
                bench.arrive(other := View())
                bench.policy.cancel(bench.clock.now, other)
            action = bench.policy.wake(bench.clock.now, call)
        assert action == (SEND if back else GiveUp("origin_down"))
        assert 1.0 <= bench.clock.now - began <= 1.2
        assert bench.policy.parked_calls == 0


def test_an_old_outage_is_not_waited_for() -> None:
    """Beyond four times the hold a call that is no probe is refused at once."""
    bench = admitting(5.0)
    assert bench.arrive() is SEND
    assert bench.arrive(bench.view(4.0)) == GiveUp("origin_down")
    assert holds(bench.arrive(bench.view(8.0)))


def test_a_call_out_of_time_is_refused() -> None:
    """What can't be sent before its deadline is not sent, and nothing of it stays held."""
    bench = admitting(hold_share=1.0)
    bench.arrive()
    assert bench.arrive(bench.view(0.04)) == GiveUp("deadline")
    assert bench.policy.parked_calls == 0


def test_no_more_than_a_thousand_are_held() -> None:
    """The next ones are refused, and whoever is cancelled leaves a place."""
    bench = admitting()
    calls = [bench.view(8.0) for _ in range(MOST_HELD + 2)]
    actions = [bench.arrive(call) for call in calls]
    assert actions[0] is SEND
    assert all(holds(action) for action in actions[1:-1])
    assert actions[-1] == GiveUp("origin_down")
    for call in calls:
        bench.policy.cancel(bench.clock.now, call)
        bench.policy.cancel(bench.clock.now, call)
    assert bench.policy.parked_calls == 0
    assert holds(bench.arrive(bench.view(8.0)))


def test_a_clock_set_back_shuts_no_door() -> None:
    """A probe that seems to be yet to come is over."""
    bench = admitting()
    assert bench.arrive(after=5) is SEND
    assert bench.arrive(after=-86_400) is SEND


@pytest.mark.parametrize("reading", [0.0, math.nan, math.inf, -math.inf])
def test_a_clock_that_breaks_holds_nobody_for_ever(reading: float) -> None:
    """One that stands still, or gives no number, ends a hold or lets the call probe."""
    bench = admitting()
    bench.arrive()
    call = bench.view(8.0)
    action, rounds = bench.arrive(call), 0
    now = reading or bench.clock.now
    while isinstance(action, Wait):
        action = bench.policy.wake(now, call)
        rounds += 1
        assert rounds < 1000
    assert bench.policy.parked_calls == 0


def test_failed_calls_are_held_as_ever() -> None:
    """What failed waits for news, and is let go when it is over."""
    bench = admitting()
    action = bench.fail(call=(call := bench.view(8.0)))
    assert holds(action)
    bench.ok()
    assert bench.wake(action, call) is SEND
    bench.policy.cancel(bench.clock.now, View())
    bench.policy.cancel(bench.clock.now, call)
    assert bench.policy.parked_calls == bench.policy.callers.pending == 0


def test_calls_that_are_refused_count_as_calls() -> None:
    """While few are sent, those who don't wait for their answers are not taken for such.

    But for a moment at first, in which many are held that will be counted when they are refused.
    """
    for seed in range(10):
        source = random.Random(seed)
        crowd = Crowd(refuses(1010.0, 1020.0), chance=source.random, admission=True)
        when = 1000.0
        while when < 1022.0:
            crowd.call(when, 1.0)
            when += source.expovariate(30.0)
        waited = 0
        for tenth in range(100, 220):
            crowd.run(1000.0 + 0.1 * tenth)
            waited += crowd.adaptive.callers.wait
        crowd.run()
        assert waited <= 10
        assert sum(1 for sent in crowd.retries if not sent.price) <= 5


@settings(max_examples=40, deadline=None)
@given(
    rate=st.floats(1.0, 100.0),
    length=st.floats(0.1, 20.0),
    time=st.none() | st.floats(0.1, 30.0),
    chance=st.floats(0.0, 1.0),
)
def test_an_outage_meets_a_few_attempts_and_its_end_is_noticed_within_a_second(
    rate: float, length: float, time: float | None, chance: float
) -> None:
    """While it is down five attempts a second at most reach it, and nothing is left behind."""
    crowd = Crowd(refuses(2.0, 2.0 + length), chance=chance, admission=True)
    crowd.clock.now = 0.0
    tried: list[float] = []
    seen: list[float] = []
    answers = crowd._answers

    def watched(now: float) -> tuple[object, float]:
        outcome, seconds = answers(now)
        (seen if outcome.ok else tried).append(now)
        return outcome, seconds

    crowd._answers = watched  # type: ignore[assignment]
    calls = int(rate * (length + 6.0))
    for number in range(calls):
        crowd.call(number / rate, time)
    crowd.run()
    crowd.assert_nothing_left()
    assert len(crowd.ended) == calls
    # A few tell it, are retried, and look; all others are probes.
    assert len(tried) <= 20 + 5.0 * length
    after = [moment for moment in seen if moment >= 2.0 + length]
    assert after
    assert after[0] <= 2.0 + length + 1.0 + 1.0 / rate + 0.1
