"""What is measured to show what each constant is for: the estimators' part."""

from __future__ import annotations

import dataclasses

from aiohttp_adaptive_retry._policy.estimators import Latency, Mending, Outage
from aiohttp_adaptive_retry._policy.tuning import Tuning
from aiohttp_adaptive_retry.policy import GiveUp, Wait

from .bench import TIMED_OUT, Bench, limited
from .measures import first, shows

# Down.


def needed(tuning: Tuning, failing: float) -> float:
    """How many failures in a row tell an outage where that share fails anyhow."""
    return Outage(tuning, _failing=failing).needed


@shows("surprise", -1)
def streak_where_a_third_fails(tuning: Tuning) -> float:
    return needed(tuning, 0.3)


@shows("streak_least", +1)
def streak_where_nothing_fails(tuning: Tuning) -> float:
    return needed(tuning, 0.0)


@shows("streak_most", +1)
def streak_where_nearly_all_fails(tuning: Tuning) -> float:
    return needed(tuning, 0.9)


@shows("failing_least", +1)
def streak_if_two_failures_could_tell(tuning: Tuning) -> float:
    return needed(dataclasses.replace(tuning, streak_least=1.0), 0.0)


@shows("streak_retry", +1)
def streak_of_one_call_with_retries(tuning: Tuning) -> float:
    outage = Outage(tuning)
    outage.failed(0.0, first=True)
    for _ in range(4):
        outage.failed(0.0, first=False)
    return outage.streak


@shows("failing_weight", +1)
def streak_after_ten_single_failures(tuning: Tuning) -> float:
    outage = Outage(tuning)
    for second in range(10):
        outage.failed(second, first=True)
        outage.succeeded(second)
    return outage.needed


# Congested.


def until_congested(tuning: Tuning, usual: float, then: float, before: int = 300) -> float:
    """After how many successes of another latency the origin is called congested."""
    latency = Latency(tuning)
    for _ in range(before):
        latency.succeeded(usual)

    def is_congested(number: float) -> bool:
        latency.succeeded(then)
        return latency.congested

    return first(range(1, 5000), is_congested)


def until_relieved(tuning: Tuning, then: float) -> float:
    """After how many successes of that latency congestion is over."""
    latency = Latency(tuning)
    for seconds in [0.05] * 300 + [0.2] * 100:
        latency.succeeded(seconds)

    def is_relieved(number: float) -> bool:
        latency.succeeded(then)
        return not latency.congested

    return first(range(1, 20_000), is_relieved)


@shows("fast", -1)
def slow_successes_until_congestion(tuning: Tuning) -> float:
    return until_congested(tuning, 0.05, 0.2)


@shows("slow", +1)
def usual_after_a_hundred_slower_successes(tuning: Tuning) -> float:
    latency = Latency(tuning)
    for seconds in [0.05] * 600 + [0.075] * 100:
        latency.succeeded(seconds)
    return latency._slow


@shows("slow_congested", -1)
def slow_successes_until_they_are_usual(tuning: Tuning) -> float:
    return until_relieved(tuning, 0.15)


@shows("clip", -1)
def stragglers_until_congestion(tuning: Tuning) -> float:
    return until_congested(tuning, 0.05, 10.0)


@shows("slowed", +1)
def successes_until_thrice_as_slow_is_congestion(tuning: Tuning) -> float:
    return until_congested(tuning, 0.05, 0.15)


@shows("relieved", -1)
def usual_successes_until_relief(tuning: Tuning) -> float:
    return until_relieved(tuning, 0.05)


@shows("excess", +1)
def successes_until_milliseconds_are_congestion(tuning: Tuning) -> float:
    return until_congested(tuning, 0.004, 0.02)


def is_slow(tuning: Tuning, factor: float, before: int) -> bool:
    latency = Latency(tuning)
    for _ in range(before):
        latency.succeeded(0.1)
    return latency.succeeded(0.1 * factor)


@shows("known", +1)
def successes_until_one_may_be_slow(tuning: Tuning) -> float:
    return first(range(100), lambda before: is_slow(tuning, 9.0, int(before)))


@shows("slow_success", +1)
def factor_from_which_a_success_is_slow(tuning: Tuning) -> float:
    return first((0.1 * number for number in range(100)), lambda f: is_slow(tuning, f, 50))


@shows("lost", +1)
def time_from_which_a_time_out_is_retried(tuning: Tuning) -> float:
    def is_retried(seconds: float) -> bool:
        bench = Bench({"budget_initial": 20}, tuning=tuning)
        bench.ok(30, latency=0.1)
        return bench.fail(TIMED_OUT._replace(latency=seconds)) != GiveUp("congested")

    return first((0.05 * number for number in range(100)), is_retried)


# Mending.


def in_vain(tuning: Tuning, retries: int, mended: int = 0) -> Mending:
    mending = Mending(tuning)
    for number in range(retries + mended):
        mending.retried("500", number >= retries)
    return mending


def tries_until_hopeless(tuning: Tuning) -> float:
    """How many retries in vain an error gets, but for some that are chosen by chance."""
    return first(range(50), lambda n: not in_vain(tuning, int(n)).mends("500", tuning.worth, 1.0))


@shows("prior_mended", +1)
def tries_of_an_error_that_was_never_seen(tuning: Tuning) -> float:
    return tries_until_hopeless(tuning)


@shows("prior_retries", -1)
def tries_of_an_error_of_which_little_is_believed(tuning: Tuning) -> float:
    return tries_until_hopeless(tuning)


@shows("worth", -1)
def tries_if_more_must_mend(tuning: Tuning) -> float:
    return tries_until_hopeless(tuning)


@shows("mending_memory", +1)
def mended_retries_until_a_hopeless_error_has_hope(tuning: Tuning) -> float:
    return first(range(99), lambda n: in_vain(tuning, 99, int(n)).mends("500", tuning.worth, 1.0))


@shows("worth_limited", +1)
def mended_of_ten_retries_for_which_a_limiter_is_asked_again(tuning: Tuning) -> float:
    def is_retried(mended: float) -> bool:
        bench = Bench({"budget_initial": 20}, chance=0.99, tuning=tuning)
        for number in range(10):
            bench.policy.mending.retried("429", number < mended)
        return isinstance(bench.fail(limited(1.0)), Wait)

    return first(range(11), is_retried)


def explored(tuning: Tuning, retries: int) -> float:
    """The share of hopeless retries that is sent all the same, after so many in vain."""
    mending = in_vain(tuning, retries)
    return 0.001 * sum(mending.mends("500", tuning.worth, 0.001 * n) for n in range(1000))


@shows("explored", +1)
def explored_in_the_long_run(tuning: Tuning) -> float:
    return explored(tuning, 100)


@shows("explored_early", +1)
def explored_soon_after(tuning: Tuning) -> float:
    return explored(tuning, 5)
