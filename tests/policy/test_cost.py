"""What a retry costs: the law of the flow over many and awkward values, and the spans of waits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._policy.cost import (
    RetryFlow,
    full_jitter,
    jittered_retry_after,
    time_of,
)
from aiohttp_adaptive_retry._policy.tuning import TUNING

shares = st.floats(0.0, 1.0)
broken_chance = pytest.mark.parametrize("chance", [math.nan, -1.0, 2.0, math.inf])


def flow(**fields: float) -> RetryFlow:
    """A flow that begins at the moment 0."""
    return RetryFlow(AdaptiveConfig(**fields), 0.0, TUNING)  # type: ignore[arg-type]


@given(
    capacity=st.floats(1.0, 1000.0),
    full=shares,
    earned=shares,
    floor=shares,
    steps=st.lists(
        st.tuples(
            st.sampled_from(["earn", "take", "give_back", "raise", "cut", "hold_down", "wait"]),
            st.floats(0, 1e5),
        ),
        max_size=200,
    ),
)
def test_retries_never_exceed_what_the_law_allows(
    capacity: float, full: float, earned: float, floor: float, steps: list[tuple[str, float]]
) -> None:
    """What is out is at most the initial tokens, what successes earned, and the floor's."""
    initial = capacity * full
    tokens = flow(
        budget_capacity=capacity,
        budget_initial=initial,
        budget_deposit=earned,
        budget_floor=floor,
    )
    now, allowed, out = 0.0, initial, list[float]()
    for step, number in steps:
        if step == "earn":
            allowed += tokens.share
            tokens.earn()
        elif step == "take":
            price = 1.0 + number % 3
            tokens.refill(now)
            if tokens.take(price):
                out.append(price)
        elif step == "give_back" and out:
            tokens.give_back(out.pop())
        elif step == "raise":
            tokens.raise_share()
        elif step == "cut":
            tokens.cut_share()
        elif step == "hold_down":
            tokens.hold_down(number)
        elif step == "wait":
            now += number
            allowed += floor * number
        assert 0.0 <= tokens.balance(now) <= capacity
        assert sum(out) + tokens.balance(now) <= allowed * (1 + 1e-9) + 1e-6
        assert min(earned, TUNING.share_least) <= tokens.share <= max(earned, TUNING.share_most)


def test_a_token_must_be_whole() -> None:
    """Nine tenths of a token buy nothing; ten successes at a tenth buy one retry."""
    tokens = flow(budget_initial=0)
    tokens.earn(9)
    assert not tokens.take(1.0)
    assert tokens.balance(0.0) == pytest.approx(0.9)
    tokens.earn(2)
    assert tokens.take(1.0)
    assert not tokens.take(1.0)


def test_the_floor_earns_over_time_and_catches_up_no_more_than_an_hour() -> None:
    """A client that was idle for a day has not saved up a day's retries."""
    tokens = flow(budget_initial=0, budget_floor=0.001, budget_capacity=1000)
    tokens.refill(999.0)
    assert not tokens.take(1.0)
    tokens.refill(2000.0)
    assert tokens.take(1.0)
    assert tokens.balance(86_400.0) < 5.0


def test_a_broken_clock_earns_nothing_and_is_forgotten() -> None:
    """Readings that go back, or are no numbers, change no balance; afterwards time counts again."""
    tokens = flow(budget_initial=3, budget_floor=0.1)
    for reading in (math.nan, -1e9, -math.inf):
        assert tokens.balance(reading) == 3.0
    tokens.refill(math.nan)
    assert tokens.take(1.0)
    assert tokens.balance(10.0) == 2.0
    tokens.refill(10.0)
    assert tokens.take(1.0)
    assert tokens.balance(15.0) == 1.5


def test_what_is_given_back_never_overfills() -> None:
    """What comes back stops at the capacity."""
    tokens = flow(budget_capacity=3, budget_initial=3)
    tokens.give_back(2.0)
    assert tokens.balance(0.0) == 3.0
    assert [tokens.take(1.0) for _ in range(4)] == [True, True, True, False]


def test_the_balance_counts_successes_that_were_not_told_and_changes_nothing() -> None:
    """It says what so many successes would leave."""
    tokens = flow(budget_initial=1)
    assert tokens.balance(0.0, successes=5) == 1.5
    assert tokens.balance(0.0, successes=10_000) == 20.0
    assert tokens.balance(0.0) == 1.0
    tokens.earn(5)
    assert tokens.balance(0.0) == 1.5


def test_the_share_grows_by_steps_and_shrinks_to_parts() -> None:
    """Up slowly and down at once, between one token for fifty successes and one for two."""
    tokens = flow()
    tokens.raise_share()
    assert tokens.share == pytest.approx(0.1 + TUNING.share_step)
    tokens.cut_share()
    assert tokens.share == pytest.approx((0.1 + TUNING.share_step) * TUNING.share_cut)
    for _ in range(100):
        tokens.raise_share()
    assert tokens.share == TUNING.share_most
    for _ in range(100):
        tokens.cut_share()
    assert tokens.share == TUNING.share_least


def test_a_share_that_was_set_beyond_the_bounds_stays() -> None:
    """Nothing raises a share of one, and nothing cuts a share of nothing."""
    tokens = flow(budget_deposit=1.0)
    tokens.raise_share()
    assert tokens.share == 1.0
    tokens = flow(budget_deposit=0.0)
    tokens.cut_share()
    assert tokens.share == 0.0


@given(
    retry=st.integers(1, 10_000),
    base=st.floats(1e-6, 1e6),
    factor=st.floats(1.0, 1e3),
    chance=shares,
)
def test_a_wait_lies_between_nothing_and_its_cap(
    retry: int, base: float, factor: float, chance: float
) -> None:
    """However many retries, no wait is negative, above the cap, or overflows."""
    wait = full_jitter(retry, base, base * factor, chance)
    assert 0.0 <= wait <= base * factor


def test_spans_reach_from_a_blip_to_a_restart() -> None:
    """The first wait ends within a blip of 200 ms, the third may pass a second."""
    assert full_jitter(1, 0.2, 5.0, 1.0) == pytest.approx(0.2)
    assert full_jitter(3, 0.2, 5.0, 1.0) == pytest.approx(1.8)
    assert full_jitter(4, 0.2, 5.0, 1.0) == 5.0
    assert full_jitter(4, 0.2, 5.0, 0.0) == 0.0


@broken_chance
def test_a_broken_source_of_chance_waits_the_whole_span(chance: float) -> None:
    """A source that gives no number from 0 to 1 leads to no negative and no endless wait."""
    assert full_jitter(1, 0.2, 5.0, chance) == 0.2


@given(
    seconds=st.floats(0.001, 1e6),
    retry=st.integers(1, 1000),
    chance=shares,
    longest=st.floats(0.001, 1e6),
)
def test_jitter_only_adds_to_retry_after_and_at_most_doubles_it(
    seconds: float, retry: int, chance: float, longest: float
) -> None:
    """Never less than the server asked for, never more than twice that, nor past the cap."""
    wait = jittered_retry_after(seconds, retry, chance, longest)
    assert seconds <= wait <= 2 * seconds
    assert wait <= max(seconds, longest)


def test_jitter_grows_with_the_retries() -> None:
    """Those that keep meeting at the end of a wait spread further each time."""
    waits = [jittered_retry_after(4.0, retry, 1.0) for retry in (1, 2, 3, 4)]
    assert waits == [5.0, 6.0, 8.0, 8.0]


@broken_chance
def test_broken_chance_asks_for_the_whole_jitter(chance: float) -> None:
    """A source that gives no number from 0 to 1 never leads below what the server asked for."""
    assert jittered_retry_after(4.0, 1, chance) == 5.0


@pytest.mark.parametrize(
    ("deadline", "time", "hold"),
    [
        (102.0, 2.0, 0.5),
        (160.0, 60.0, 12.0),
        (160.1, TUNING.untold, TUNING.untold_hold),
        (None, TUNING.untold, TUNING.untold_hold),
        (math.inf, TUNING.untold, TUNING.untold_hold),
        (99.0, 0.0, 0.0),
        (math.nan, 0.0, 0.0),
    ],
)
def test_a_call_has_the_time_that_somebody_chose(
    deadline: float | None, time: float, hold: float
) -> None:
    """More than a minute is nobody's choice, and such a call is held for a moment only."""
    found = time_of(100.0, deadline, AdaptiveConfig(), TUNING)
    assert list(found) == pytest.approx([time, hold])


def test_no_time_is_made_up_where_holding_is_off() -> None:
    """Without a deadline, and with `hold_cap=0`, nothing is held."""
    assert time_of(0.0, None, AdaptiveConfig(hold_cap=0), TUNING) == (TUNING.untold, 0.0)
