"""What is learnt of an origin, each estimator alone: plain numbers on a fake clock."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry._policy.estimators import Callers, Latency, Mending, Outage
from aiohttp_adaptive_retry._policy.tuning import TUNING

ERROR, OTHER = "503", "502"

# Is the origin down?


def is_down(outage: Outage) -> bool:
    """Whether it is, now."""
    return outage.down_since is not None


def test_a_streak_across_calls_is_an_outage_and_one_within_a_call_is_not() -> None:
    """A second call's failure tells where six attempts of one call do not."""
    outage = Outage(TUNING)
    outage.succeeded(1.0)
    outage.failed(2.0, first=True)
    for _ in range(5):
        outage.failed(2.5, first=False)
    assert not is_down(outage)
    outage.failed(3.0, first=True)
    assert outage.down_since == 2.0, "an outage is as old as its streak"
    assert outage.failing_since == 2.0
    assert outage.succeeded(4.0), "what looked like an outage is over"
    assert (is_down(outage), outage.streak) == (False, 0.0)
    assert not outage.succeeded(5.0)


def test_the_more_usual_failures_are_the_longer_a_streak_has_to_be() -> None:
    """Half of all attempts failing is no outage, however often five fail in a row."""
    outage, luck, downs = Outage(TUNING), random.Random(1), 0
    for second in range(2000):
        if luck.random() < 0.5:
            outage.failed(float(second), first=True)
            downs += is_down(outage)
        else:
            outage.succeeded(float(second))
    assert outage.needed > 10
    assert downs < 10


def test_an_outage_does_not_teach_that_failing_is_usual() -> None:
    """After an hour of it the next one is told as soon as the first."""
    outage = Outage(TUNING)
    for second in range(3600):
        outage.failed(float(second), first=True)
    outage.succeeded(3600.0)
    assert outage.needed <= TUNING.streak_least + 1


def test_one_success_ends_it_whatever_was_before() -> None:
    """Nothing of a streak is kept, and news is news, of whatever kind."""
    outage = Outage(TUNING)
    for second in range(10):
        outage.failed(float(second), first=True)
        assert outage.last_known == second
    outage.succeeded(10.0)
    assert (outage.last_known, outage.last_success) == (10.0, 10.0)
    outage.failed(11.0, first=True)
    assert (outage.streak, outage.failing_since, is_down(outage)) == (1.0, 11.0, False)


def test_successes_that_were_not_told_count_all_the_same() -> None:
    """The usual share of failures fades by how many successes there were, told or not."""
    told, untold = Outage(TUNING), Outage(TUNING)
    for outage in (told, untold):
        for second in range(300):
            outage.failed(float(second), first=True)
            outage.succeeded(second + 0.5)
    assert told.needed == untold.needed == TUNING.streak_most
    for second in range(100):
        told.succeeded(300.0 + second)
    untold.passed(100)
    assert told.needed == pytest.approx(untold.needed)
    assert told.needed < TUNING.streak_most


# Is the origin congested?


def fed(latencies: list[float]) -> Latency:
    """An estimator that saw successes of these latencies."""
    latency = Latency(TUNING)
    for seconds in latencies:
        latency.succeeded(seconds)
    return latency


def test_slow_successes_tell_congestion_and_usual_ones_end_it() -> None:
    """Thrice the usual latency is congestion; one straggler is not."""
    assert not fed([0.05] * 100 + [5.0]).congested
    slow = [0.05] * 100 + [0.15] * 30
    assert fed(slow).congested
    assert not fed([*slow, *[0.05] * 60]).congested


def test_a_few_milliseconds_are_no_congestion() -> None:
    """Where all is fast, thrice as slow is a busy processor; the same ratio of much is a queue."""
    assert not fed([0.002] * 100 + [0.006] * 30).congested
    assert fed([0.02] * 100 + [0.06] * 30).congested


def test_congestion_that_lasts_is_not_taken_for_usual() -> None:
    """After five hundred slow successes it is still congestion, though not for ever."""
    assert fed([0.05] * 100 + [0.15] * 500).congested
    assert not fed([0.05] * 100 + [0.15] * 20_000).congested


def test_little_is_believed_of_few_latencies() -> None:
    """Before sixteen successes nothing is slow; from then on twice the usual latency is."""
    latency = Latency(TUNING)
    latency.succeeded(0.05)
    for _ in range(TUNING.known - 1):
        assert not latency.succeeded(0.3)
    assert not latency.congested
    latency = fed([0.05] * TUNING.known)
    assert latency.succeeded(0.11)
    assert not latency.succeeded(0.09)
    # A fast origin may be some milliseconds slower.
    latency = fed([0.001] * TUNING.known)
    assert not latency.succeeded(0.015)


def test_a_lost_request_took_many_times_as_long_as_usual() -> None:
    """Five short-run means. Where nothing ever succeeded, all that is in vain is lost."""
    latency = fed([0.1] * 20)
    assert not latency.is_lost(0.1)
    assert not latency.is_lost(0.1 * TUNING.lost * 0.99)
    assert latency.is_lost(0.1 * TUNING.lost * 1.01)
    assert latency.is_lost(math.nan), "it may have taken any time"
    assert Latency(TUNING).is_lost(0.001)
    assert latency.successes
    assert not Latency(TUNING).successes


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0])
def test_what_is_no_latency_is_left_out(seconds: float) -> None:
    """Nothing is learnt of it, early or late, and it is not slow."""
    for before in (0, 5, 100):
        latency = fed([0.05] * before)
        known = repr(latency)
        assert not latency.succeeded(seconds)
        assert repr(latency) == known


def test_a_slow_moment_before_an_outage_says_nothing_after_it() -> None:
    """The short-run mean begins again at the usual latency."""
    latency = fed([0.05] * 100 + [0.15] * 8)
    assert not latency.congested
    assert not latency.is_lost(0.3)
    latency.outage_over()
    assert latency.is_lost(0.3)


# Which errors do retries mend?


def learnt(mending: Mending, error_type: str, mended: int, failed: int) -> None:
    """Tell of so many retries."""
    for _ in range(failed):
        mending.retried(error_type, False)
    for _ in range(mended):
        mending.retried(error_type, True)


def test_what_never_mends_is_tried_now_and_then_and_learnt_anew() -> None:
    """Three retries in a hundred are sent all the same, and a few that mend are enough."""
    mending = Mending(TUNING)
    learnt(mending, ERROR, 0, 50)
    assert mending.mends(ERROR, TUNING.worth, chance=0.02)
    assert not mending.mends(ERROR, TUNING.worth, chance=0.04)
    assert mending.mends(OTHER, TUNING.worth, chance=0.99), "errors are learnt of one by one"
    learnt(mending, ERROR, 5, 0)
    assert mending.mends(ERROR, TUNING.worth, chance=0.99)


def test_the_first_that_do_not_mend_are_soon_tried_again() -> None:
    """After four in vain every tenth is tried, after twenty every thirtieth."""
    mending = Mending(TUNING)
    learnt(mending, ERROR, 0, 4)
    assert not mending.mends(ERROR, TUNING.worth, chance=0.99)
    assert mending.mends(ERROR, TUNING.worth, chance=0.07)
    learnt(mending, ERROR, 0, 20)
    assert not mending.mends(ERROR, TUNING.worth, chance=0.07)


def test_more_must_mend_where_a_retry_takes_anothers_place() -> None:
    """Half of them mending is worth it after an error, and not after a 429."""
    mending = Mending(TUNING)
    for _ in range(10):
        learnt(mending, ERROR, 1, 1)
    assert mending.mends(ERROR, TUNING.worth, chance=0.99)
    assert not mending.mends(ERROR, TUNING.worth_limited, chance=0.99)


def test_sixteen_errors_are_known_at_a_time() -> None:
    """A seventeenth makes the oldest one unknown again, which is worth retrying; fifteen stay."""
    mending = Mending(TUNING)
    for number in range(17):
        learnt(mending, str(number), 0, 50)
    known = [number for number in range(17) if not mending.mends(str(number), 0.15, chance=0.9)]
    assert known == list(range(1, 17))


# Whatever comes.

ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["ok", "first", "retry", "called", "failed", "ended", "passed", "tell"]
            ),
            ANY,
            ANY,
            st.integers(1, 255),
            st.booleans(),
        ),
        max_size=80,
    )
)
def test_no_reading_breaks_it(steps: list[tuple[str, float, float, int, bool]]) -> None:
    """Whatever clocks, latencies and chance say, nothing raises, and what is said is usable."""
    outage, latency, callers = Outage(TUNING), Latency(TUNING), Callers(TUNING)
    mending = Mending(TUNING)
    for step, now, seconds, number, mended in steps:
        if step == "ok":
            outage.succeeded(now)
            latency.succeeded(seconds)
        elif step in ("first", "retry"):
            outage.failed(now, first=step == "first")
        elif step == "called":
            callers.called(now)
        elif step == "failed":
            callers.failed(now, seconds)
        elif step == "ended" and callers.pending:
            callers.ended(now)
        elif step == "passed":
            outage.passed(number)
            callers.passed(number)
        else:
            mending.retried(str(number), mended)
        assert TUNING.streak_least <= outage.needed <= TUNING.streak_most
        assert latency.is_lost(seconds) in (True, False)
        assert latency.congested in (True, False)
        assert not math.isnan(callers.rate)
        assert callers.rate >= 0.0
        assert callers.wait in (True, False)
        assert mending.mends(str(number), 0.15, chance=seconds) in (True, False)
        assert all(0.0 <= amount < math.inf for amount in mending._retries or ())
