"""What is learnt of an origin, from plain numbers on a fake clock."""

from __future__ import annotations

import math
import random
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry._policy.health import Health
from aiohttp_adaptive_retry._policy.protocol import STATES

ERROR, OTHER = "503", "502"


def fed(health: Health, latencies: list[float], now: float = 100.0) -> float:
    """Report successes of these latencies, ten a second; give back the time after them."""
    for latency in latencies:
        health.succeeded(now, latency, fresh=True)
        now += 0.1
    return now


def fail(health: Health, now: float, *, first: bool = True, overload: bool = False) -> None:
    health.failed(now, first=first, limited=False, overload=overload)


def state(health: Health) -> str:
    """What is learnt, in the words of `AdaptivePolicy.state`; a limit is the policy's affair."""
    if health.down_since is not None:
        return "down"
    return "congested" if health.congested else "healthy"


def test_a_streak_across_calls_is_an_outage_and_one_within_a_call_is_not() -> None:
    """Three first attempts in a row tell; four attempts of one call do not."""
    health = Health()
    now = fed(health, [0.05] * 50)
    fail(health, now)
    for _ in range(3):
        fail(health, now, first=False)
    assert state(health) == "healthy"
    fail(health, now + 1)
    assert state(health) == "healthy"
    fail(health, now + 2)
    assert state(health) == "down"
    # The outage is as old as the streak.
    assert health.down_since == now
    health.succeeded(now + 3, 0.05, fresh=True)
    assert state(health) == "healthy"


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
    assert state(health) == "healthy"
    now = fed(health, [0.15] * 30, now)
    assert state(health) == "congested"
    now = fed(health, [0.05] * 60, now)
    assert state(health) == "healthy"


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


def test_an_outage_teaches_nothing_about_types() -> None:
    """Retries that fail while nothing succeeds at all don't count against their type."""
    health = Health()
    for number in range(50):
        health.retried(ERROR, False, failed_at=100.0 + number)
    assert health.worth_retrying(ERROR, chance=0.99)
    health.succeeded(200.0, 0.05, fresh=True)
    for _ in range(5):
        health.retried(ERROR, False, failed_at=150.0)
    assert not health.worth_retrying(ERROR, chance=0.99)


def test_what_never_mends_is_tried_now_and_then_and_learnt_anew() -> None:
    """Three retries in a hundred are sent all the same; the third in a row that mends is enough."""
    health = Health()
    health.succeeded(100.0, 0.05, fresh=True)
    for _ in range(50):
        health.retried(ERROR, False, failed_at=99.0)
    assert health.worth_retrying(ERROR, chance=0.02)
    assert not health.worth_retrying(ERROR, chance=0.04)
    assert health.worth_retrying(OTHER, chance=0.99)
    for worth in (False, False, True):
        health.retried(ERROR, True, failed_at=99.0)
        assert health.worth_retrying(ERROR, chance=0.99) is worth


def test_parked_calls_are_released_at_the_pace_of_usual_successes() -> None:
    """Slow successes give no tokens, usual ones four at most; the urgent go first."""
    health = Health()
    now = fed(health, [0.05] * 100)
    while health.try_release(now, 1.0):
        pass
    for _ in range(20):
        health.succeeded(now, 0.5, fresh=True)
    assert not health.try_release(now, 1.0)
    for _ in range(20):
        health.succeeded(now, 0.05, fresh=True)
    assert sum(health.try_release(now, 1.0) for _ in range(20)) in range(3, 6)
    # The call of least priority finds no token where the most urgent one does.
    health.succeeded(now, 0.05, fresh=True)
    assert not health.try_release(now, 0.0)
    assert health.try_release(now, 1.0)


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
    for step, now, latency, number in steps:
        if step == "ok":
            health.succeeded(now, latency, fresh=True)
            health.passed(number)
        elif step == "release":
            health.try_release(now, 0.5)
        elif step in {"mended", "wasted"}:
            health.retried(str(number), step == "mended", now)
        else:
            health.failed(now, first=step == "first", limited=step == "limited", overload=True)
        assert state(health) in STATES
        assert 0.0 < health.admission_rate <= 1.0
        # No chance is below 0, and every chance but a broken one is below 1.
        assert health.worth_retrying(str(number), chance=-0.01)
        assert health.worth_retrying(str(number), chance=1.0) in {True, False}
        assert all(0.0 <= amount < math.inf for amount in health._retries or ())
        assert 3 <= health.needed <= 14


def test_sixteen_errors_are_known_at_a_time() -> None:
    """A seventeenth makes the oldest one unknown again, which is worth retrying; fifteen stay."""
    health = Health()
    health.succeeded(100.0, 0.05, fresh=True)
    for number in range(17):
        for _ in range(50):
            health.retried(str(number), False, failed_at=99.0)
    known = [number for number in range(17) if not health.worth_retrying(str(number), chance=0.9)]
    assert known == list(range(1, 17))


def test_it_is_small_whatever_it_saw() -> None:
    """Less than 1024 bytes each, by the allocator, after retries of every error there can be.

    The errors' names are not counted: they belong to the catalogue, which all origins share.
    """
    names = [str(number) for number in range(255)]

    def make() -> Health:
        health = Health()
        now = fed(health, [0.05, 0.06] * 20)
        for name in names:
            health.retried(name, False, 0.0)
        for second in range(14):
            fail(health, now + second, overload=True)
        health.limited_until = now + 14
        health.try_release(now + 14, 1.0)
        return health

    make()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        kept = [make() for _ in range(100)]
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(health.down_since is not None for health in kept)
    # The list that keeps them is counted too: 8 bytes and a little for each.
    assert (after - before) / len(kept) < 1024
