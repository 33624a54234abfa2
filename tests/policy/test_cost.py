"""What a retry costs: the budget's law over many and awkward values, and the spans of waits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._policy.cost import RetryBudget, full_jitter, jittered_retry_after

ratios = st.floats(0.0, 1.0)


@given(
    capacity=st.floats(1.0, 1000.0),
    share=ratios,
    earned=ratios,
    floor=ratios,
    steps=st.lists(
        st.tuples(st.sampled_from(["deposit", "withdraw", "give_back", "wait"]), st.floats(0, 1e5)),
        max_size=200,
    ),
)
def test_retries_never_exceed_what_the_rule_allows(
    capacity: float, share: float, earned: float, floor: float, steps: list[tuple[str, float]]
) -> None:
    """Withdrawn less given back is at most initial + deposits + floor, whatever the ratios."""
    config = AdaptiveConfig(
        budget_capacity=capacity,
        budget_initial=capacity * share,
        budget_deposit=earned,
        budget_floor=floor,
    )
    budget, now, deposits, out = RetryBudget(config, 0.0), 0.0, 0, 0
    for step, seconds in steps:
        if step == "deposit":
            budget.deposit()
            deposits += 1
        elif step == "withdraw":
            out += budget.try_withdraw(now)
        elif step == "give_back" and out:
            budget.give_back()
            out -= 1
        elif step == "wait":
            now += seconds
        assert 0.0 <= budget.balance(now) <= capacity + 1e-9
        allowed = config.budget_initial + deposits * earned + now * floor
        assert out <= allowed + 1e-6 * (1 + allowed)


def test_a_token_must_be_whole() -> None:
    """Nine tenths of a token buy nothing; ten successes at a tenth buy one retry."""
    budget = RetryBudget(AdaptiveConfig(budget_initial=0, budget_floor=0), 0.0)
    for _ in range(9):
        budget.deposit()
    assert not budget.try_withdraw(0.0)
    budget.deposit()
    budget.deposit()
    assert budget.try_withdraw(0.0)
    assert not budget.try_withdraw(0.0)


def test_the_floor_earns_over_time_and_catches_up_no_more_than_an_hour() -> None:
    """A client that was idle for a day has not saved up a day's retries."""
    config = AdaptiveConfig(budget_initial=0, budget_floor=0.001, budget_capacity=1000)
    budget = RetryBudget(config, 0.0)
    assert not budget.try_withdraw(999.0)
    assert budget.try_withdraw(1001.0)
    assert budget.balance(86_400.0) < 4.0


def test_a_broken_clock_earns_nothing() -> None:
    """Readings that go back, or are no numbers, change no balance."""
    budget = RetryBudget(AdaptiveConfig(budget_initial=2), 100.0)
    assert budget.balance(math.nan) == 2.0
    assert budget.balance(-1e9) == 2.0
    assert budget.try_withdraw(-1e9)
    assert budget.balance(-1e9) == 1.0


def test_what_is_given_back_never_overfills() -> None:
    """What comes back stops at the capacity."""
    budget = RetryBudget(AdaptiveConfig(budget_capacity=3, budget_initial=3), 0.0)
    budget.give_back()
    assert budget.balance(0.0) == 3.0


def test_a_mended_retry_is_rewarded_with_the_token_it_took_and_one_more() -> None:
    """The reward is two tokens, held at the capacity."""
    budget = RetryBudget(AdaptiveConfig(budget_capacity=3, budget_initial=1), 0.0)
    assert budget.try_withdraw(0.0)
    budget.reward()
    assert budget.balance(0.0) == 2.0
    budget.reward()
    assert budget.balance(0.0) == 3.0


def test_the_balance_counts_successes_that_were_not_deposited_and_changes_nothing() -> None:
    """It says what a deposit of so many successes would leave."""
    budget = RetryBudget(AdaptiveConfig(budget_initial=1), 0.0)
    assert budget.balance(0.0, successes=5) == 1.5
    assert budget.balance(0.0, successes=10_000) == 20.0
    assert budget.balance(0.0) == 1.0
    budget.deposit(5)
    assert budget.balance(0.0) == 1.5


@given(
    retry=st.integers(1, 10_000),
    base=st.floats(1e-6, 1e6),
    factor=st.floats(1.0, 1e3),
    chance=st.floats(0, 1),
)
def test_a_wait_lies_between_nothing_and_its_cap(
    retry: int, base: float, factor: float, chance: float
) -> None:
    """However many retries, no wait is negative, above the cap, or overflows."""
    wait = full_jitter(retry, base, base * factor, lambda: chance)
    assert 0.0 <= wait <= base * factor


def test_spans_reach_from_a_blip_to_a_restart() -> None:
    """The first wait ends within a blip of 200 ms, the third may pass a second."""
    assert full_jitter(1, 0.2, 5.0, lambda: 1.0) == pytest.approx(0.2)
    assert full_jitter(3, 0.2, 5.0, lambda: 1.0) == pytest.approx(1.8)
    assert full_jitter(4, 0.2, 5.0, lambda: 1.0) == 5.0
    assert full_jitter(4, 0.2, 5.0, lambda: 0.0) == 0.0


@pytest.mark.parametrize("chance", [math.nan, -1.0, 2.0, math.inf])
def test_a_broken_source_of_chance_waits_the_whole_span(chance: float) -> None:
    """A source that gives no number from 0 to 1 leads to no negative and no endless wait."""
    assert full_jitter(1, 0.2, 5.0, lambda: chance) == 0.2


@given(
    seconds=st.floats(0.001, 1e6),
    retry=st.integers(1, 1000),
    chance=st.floats(0, 1),
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


@pytest.mark.parametrize("chance", [math.nan, -1.0, 2.0, math.inf])
def test_broken_chance_asks_for_the_whole_jitter(chance: float) -> None:
    """A source that gives no number from 0 to 1 never leads below what the server asked for."""
    assert jittered_retry_after(4.0, 1, chance) == 5.0
