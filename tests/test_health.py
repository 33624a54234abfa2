"""What is learnt of an origin, from plain numbers on a fake clock."""

from __future__ import annotations

import math
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry.health import STATES, Health

ERROR, OTHER = 7, 8


def fed(health: Health, latencies: list[float], now: float = 100.0) -> float:
    """Report successes of these latencies, ten a second; give back the time after them."""
    for latency in latencies:
        health.succeeded(now, latency, fresh=True)
        now += 0.1
    return now


def fail(health: Health, now: float, *, first: bool = True, overload: bool = False) -> None:
    health.failed(now, first=first, limited=False, overload=overload)


def test_a_streak_across_calls_is_an_outage_and_one_within_a_call_is_not() -> None:
    """Three first attempts in a row tell; four attempts of one call do not."""
    health = Health()
    now = fed(health, [0.05] * 50)
    fail(health, now)
    for _ in range(3):
        fail(health, now, first=False)
    assert health.state(now) == "healthy"
    fail(health, now + 1)
    assert health.state(now + 1) == "healthy"
    fail(health, now + 2)
    assert health.state(now + 2) == "down"
    # The outage is as old as the streak.
    assert health.down_since == now
    health.succeeded(now + 3, 0.05, fresh=True)
    assert health.state(now + 3) == "healthy"


def test_the_more_usual_failures_are_the_longer_a_streak_has_to_be() -> None:
    """Half of all attempts failing is no outage, however often three fail in a row."""
    health, luck = Health(), random.Random(1)
    downs, now = 0, 0.0
    for _ in range(2000):
        now += 0.1
        if luck.random() < 0.5:
            fail(health, now)
            downs += health.down_since is not None
        else:
            health.succeeded(now, 0.05, fresh=True)
    assert health.needed > 10
    assert downs < 10


def test_slow_successes_tell_congestion_and_usual_ones_end_it() -> None:
    """Thrice the usual latency is congestion; one straggler is not."""
    health = Health()
    now = fed(health, [0.05] * 100)
    now = fed(health, [5.0], now)
    assert health.state(now) == "healthy"
    now = fed(health, [0.15] * 30, now)
    assert health.state(now) == "congested"
    now = fed(health, [0.05] * 60, now)
    assert health.state(now) == "healthy"


def test_overload_errors_lower_the_bar_but_are_none_by_themselves() -> None:
    """At 1.6 of the usual latency only errors that speak of overload make it congestion."""

    def run(latency: float, every: int) -> bool:
        health = Health()
        now = fed(health, [0.05] * 200)
        for number in range(200):
            now += 0.1
            if every and number % every == 0:
                fail(health, now, overload=True)
            else:
                health.succeeded(now, latency, fresh=True)
        return health.congested

    assert not run(0.08, 0)
    assert run(0.08, 3)
    assert not run(0.05, 3)


def test_a_few_milliseconds_are_no_congestion() -> None:
    """Where all is fast, thrice as slow is a busy processor; the same ratio of much is a queue."""
    for usual, congested in ((0.002, False), (0.02, True)):
        health = Health()
        now = fed(health, [usual] * 100)
        fed(health, [3 * usual] * 30, now)
        assert health.congested is congested


def test_congestion_ends_where_latency_is_usual_again_whatever_errors_say() -> None:
    """Errors that speak of overload do not keep alive what a few slow successes began."""
    health = Health()
    now = fed(health, [0.05] * 200)
    now = fed(health, [0.15] * 30, now)
    assert health.congested
    for number in range(60):
        now += 0.1
        if number % 3 == 0:
            fail(health, now, overload=True)
        else:
            health.succeeded(now, 0.05, fresh=True)
    assert not health.congested


def test_latency_of_long_ago_says_nothing() -> None:
    """A congested origin without any success for ten seconds is not called congested."""
    health = Health()
    now = fed(health, [0.05] * 100)
    now = fed(health, [0.2] * 40, now)
    assert health.state(now) == "congested"
    assert health.state(now + 11) == "healthy"


def test_an_outage_teaches_nothing_about_types() -> None:
    """Retries that fail while nothing succeeds at all don't count against their type."""
    health = Health()
    for number in range(50):
        health.retried(ERROR, False, failed_at=100.0 + number)
    assert health.promising(ERROR, chance=0.99)
    health.succeeded(200.0, 0.05, fresh=True)
    for _ in range(5):
        health.retried(ERROR, False, failed_at=150.0)
    assert not health.promising(ERROR, chance=0.99)


def test_what_never_mends_is_tried_now_and_then_and_learnt_anew() -> None:
    """A share of exploration stays, and a type that mends again is retried again."""
    health = Health()
    health.succeeded(100.0, 0.05, fresh=True)
    for _ in range(50):
        health.retried(ERROR, False, failed_at=99.0)
    assert health.promise(ERROR) < 0.05
    assert health.promising(ERROR, chance=0.02)
    assert not health.promising(ERROR, chance=0.04)
    assert health.promising(OTHER, chance=0.99)
    for _ in range(5):
        health.retried(ERROR, True, failed_at=99.0)
    assert health.promising(ERROR, chance=0.99)


def test_held_calls_are_released_at_the_pace_of_usual_successes() -> None:
    """Slow successes give no credit, usual ones a burst of four at most; the urgent go first."""
    health = Health()
    now = fed(health, [0.05] * 100)
    while health.release(now, 1.0):
        pass
    for _ in range(20):
        health.succeeded(now, 0.5, fresh=True)
    assert not health.release(now, 1.0)
    for _ in range(20):
        health.succeeded(now, 0.05, fresh=True)
    assert sum(health.release(now, 1.0) for _ in range(20)) in range(3, 6)
    # Who can wait finds no credit where who can't still does.
    health.succeeded(now, 0.05, fresh=True)
    assert not health.release(now, 0.0)
    assert health.release(now, 1.0)


def test_a_calm_origin_need_not_be_told_of_every_success() -> None:
    """Fifty looks a second are enough; any failure asks for the next success at once."""
    health = Health()
    health.succeeded(100.0, 0.05, fresh=True)
    assert health.calm_until == pytest.approx(100.02)
    fail(health, 100.01)
    assert health.calm_until == -math.inf
    health.succeeded(100.02, 0.05, fresh=True)
    assert health.calm_until > 100.02
    health.held = 1
    health.calm_until = -math.inf
    health.succeeded(100.03, 0.05, fresh=True)
    assert health.calm_until == -math.inf


def test_successes_that_were_not_told_count_all_the_same() -> None:
    """The usual share of failures fades by how many successes there were, told or not."""
    told, untold = Health(), Health()
    for health in (told, untold):
        for number in range(300):
            fail(health, float(number))
            health.succeeded(number + 0.5, 0.05, fresh=True)
    assert told.needed == untold.needed == 14
    for number in range(100):
        told.succeeded(300.0 + number, 0.05, fresh=True)
    untold.passed(100)
    assert told.needed == untold.needed == 4


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ok", "first", "retry", "limited", "mended", "wasted", "release"]),
            st.floats(allow_nan=True, allow_infinity=True),
            st.floats(allow_nan=True, allow_infinity=True),
            st.integers(1, 255),
        ),
        max_size=80,
    )
)
def test_no_reading_breaks_it(steps: list[tuple[str, float, float, int]]) -> None:
    """Whatever clocks and latencies say, nothing raises, and every estimate stays a number."""
    health = Health()
    for step, now, latency, code in steps:
        if step == "ok":
            health.succeeded(now, latency, fresh=True)
            health.passed(code)
        elif step == "release":
            health.release(now, 0.5)
        elif step in {"mended", "wasted"}:
            health.retried(code, step == "mended", now)
        else:
            health.failed(now, first=step == "first", limited=step == "limited", overload=True)
        assert health.state(now) in STATES
        assert 0.0 < health.flow <= 1.0
        assert 0.0 <= health.promise(code) <= 1.0
        assert 3 <= health.needed <= 14


def test_it_is_small_whatever_it_saw() -> None:
    """Less than a kilobyte, with every error type there is."""
    health = Health()
    health.succeeded(1.0, 0.05, fresh=True)
    for code in range(1, 256):
        health.retried(code, False, 0.0)
    parts = [getattr(health, name) for name in Health.__slots__]
    assert sys.getsizeof(health) + sum(sys.getsizeof(part) for part in parts) < 1500
