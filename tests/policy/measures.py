"""What is measured of a policy, to show what each of its constants is for: the rules' part."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._policy.cost import RetryFlow, time_of
from aiohttp_adaptive_retry._policy.estimators import Callers
from aiohttp_adaptive_retry._policy.tuning import Tuning
from aiohttp_adaptive_retry.policy import SEND, Wait

from .bench import ANSWERED, TIMED_OUT, Bench, holds

Measure = Callable[[Tuning], float]

#: What is measured, and whether it rises (+1) or falls (-1) with the constant.
SHOWN: dict[str, tuple[Measure, int]] = {}


def shows(name: str, direction: int) -> Callable[[Measure], Measure]:
    """The function measures what the constant of that name is for."""

    def enter(measure: Measure) -> Measure:
        SHOWN[name] = measure, direction
        return measure

    return enter


def first(tries: Iterable[float], found: Callable[[float], bool]) -> float:
    """The first number for which something holds."""
    return next((number for number in tries if found(number)), math.inf)


# The flow of retries.


def flow(tuning: Tuning) -> RetryFlow:
    return RetryFlow(AdaptiveConfig(), 0.0, tuning)


@shows("share_step", +1)
def earned_after_a_mended_retry(tuning: Tuning) -> float:
    (tokens := flow(tuning)).raise_share()
    return tokens.share


@shows("share_cut", +1)
def earned_after_a_sign_of_overload(tuning: Tuning) -> float:
    (tokens := flow(tuning)).cut_share()
    return tokens.share


@shows("share_least", +1)
def earned_in_a_lasting_overload(tuning: Tuning) -> float:
    tokens = flow(tuning)
    for _ in range(100):
        tokens.cut_share()
    return tokens.share


@shows("share_most", +1)
def earned_where_all_retries_mend(tuning: Tuning) -> float:
    tokens = flow(tuning)
    for _ in range(100):
        tokens.raise_share()
    return tokens.share


@shows("timeout_price", +1)
def tokens_of_a_time_outs_retry(tuning: Tuning) -> float:
    bench = Bench({"budget_initial": 20}, tuning=tuning)
    bench.ok(30)
    before = bench.tokens
    bench.fail(TIMED_OUT._replace(latency=9.0))
    return before - bench.tokens


@shows("outage_tokens", +1)
def tokens_that_an_outage_leaves(tuning: Tuning) -> float:
    bench = Bench({"budget_initial": 20}, tuning=tuning)
    bench.lose(count=5)
    return bench.tokens


# Time that a call has.


@shows("untold", +1)
def time_of_a_call_without_a_deadline(tuning: Tuning) -> float:
    return time_of(0.0, None, AdaptiveConfig(), tuning)[0]


@shows("told_most", +1)
def longest_time_that_is_believed(tuning: Tuning) -> float:
    return max(time_of(0.0, seconds, AdaptiveConfig(), tuning)[0] for seconds in range(300))


@shows("untold_hold", +1)
def hold_of_a_call_without_a_deadline(tuning: Tuning) -> float:
    return time_of(0.0, None, AdaptiveConfig(), tuning)[1]


@shows("look_share", +1)
def time_for_which_a_turn_is_waited_for(tuning: Tuning) -> float:
    bench = Bench({"budget_deposit": 0}, tuning=tuning)
    bench.down()
    call = bench.view(3.0)
    action = bench.fail(call=call)
    bench.ok()
    bench.policy._flow.tokens = 0.0
    return bench.held(action, call)[0]


@shows("hold_young", +1)
def oldest_outage_in_which_calls_are_held(tuning: Tuning) -> float:
    def is_failed(age: float) -> bool:
        bench = Bench(tuning=tuning)
        bench.down(age)
        bench.lose()
        return not holds(bench.fail(call=bench.view(4.0)))

    return first((0.5 * number for number in range(1, 40)), is_failed)


# Looking.


def look(tuning: Tuning, number: int) -> float:
    """When a lone call looks for the first, second, ... time."""
    bench = Bench({"budget_initial": 0}, tuning=tuning)
    began, call = bench.clock.now, bench.view(30.0)
    action = bench.fail(call=call)
    for _ in range(number - 1):
        action = bench.fail(call=call) if bench.held(action, call)[1] is SEND else action
    bench.held(action, call)
    return bench.clock.now - began


@shows("look_least", +1)
def second_look(tuning: Tuning) -> float:
    return look(tuning, 2)


@shows("look_growth", +1)
def third_look(tuning: Tuning) -> float:
    return look(tuning, 3)


@shows("serial_share", +1)
def look_of_a_caller_who_waits(tuning: Tuning) -> float:
    bench = Bench(tuning=tuning)
    bench.serial()
    bench.lose(count=5)
    bench.clock.now += 5.0
    bench.lose()
    call = bench.view(4.0)
    return bench.held(bench.fail(call=call), call)[0]


@shows("serial_surprise", +1)
def failures_until_a_caller_who_waits_is_recognised(tuning: Tuning) -> float:
    callers, now = Callers(tuning), 0.0
    for failures in itertools.count(1):
        for _ in range(10):
            now += 0.1
            callers.called(now)
        callers.failed(now + 0.1, 0.1)
        if callers.wait:
            return failures
        now += 0.3
        callers.ended(now)
    raise AssertionError


# Asking again.


def pause(tuning: Tuning, age: float, calls: int = 1) -> float:
    """After how many seconds a held call asks again."""
    bench = Bench({"hold_share": 1}, tuning=tuning)
    bench.down(age)
    bench.lose()
    for _ in range(calls):
        action = bench.fail(call=bench.view(50.0))
    assert isinstance(action, Wait)
    return action.seconds


@shows("poll_share", +1)
def pause_in_an_outage_of_seconds(tuning: Tuning) -> float:
    return pause(tuning, 3.0)


@shows("poll_least", +1)
def pause_in_an_outage_that_began(tuning: Tuning) -> float:
    return pause(tuning, 0.3)


@shows("poll_most", +1)
def pause_in_an_old_outage(tuning: Tuning) -> float:
    return pause(tuning, 20.0)


@shows("polls", -1)
def pause_in_a_crowd(tuning: Tuning) -> float:
    return pause(tuning, 0.3, 200)


# Letting go.


def let_go(tuning: Tuning, successes: int, mended: int = 0) -> int:
    """How many held calls go after so many successes, and after so many of those let go."""
    bench = Bench({"hold_share": 1}, tuning=tuning)
    bench.ok(30)
    bench.lose(ANSWERED, 5)
    calls = [bench.view(30.0) for _ in range(50)]
    for call in calls:
        bench.fail(call=call)
    bench.ok(successes)
    bench.policy._flow.tokens = 20.0
    gone = [call for call in calls if bench.policy.wake(bench.clock.now, call) is SEND]
    for call in gone[:mended]:
        bench.ok(call=call)
    now = bench.clock.now
    left = [call for call in calls if call not in gone]
    return len(gone) + sum(bench.policy.wake(now, call) is SEND for call in left)


@shows("release", +1)
def let_go_by_two_successes(tuning: Tuning) -> float:
    return let_go(tuning, 2)


@shows("release_mended", +1)
def let_go_by_those_that_were_let_go(tuning: Tuning) -> float:
    return let_go(tuning, 1, 2)


@shows("release_most", +1)
def let_go_in_a_burst(tuning: Tuning) -> float:
    return let_go(tuning, 60)
