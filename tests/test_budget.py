"""The budget's law, over many and awkward values."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry.budget import RetryBudget

ratios = st.floats(0.0, 1.0)


@given(
    capacity=st.floats(1.0, 1000.0),
    share=ratios,
    earned=ratios,
    floor=ratios,
    steps=st.lists(
        st.tuples(st.sampled_from(["deposit", "withdraw", "refund", "wait"]), st.floats(0, 1e5)),
        max_size=200,
    ),
)
def test_retries_never_exceed_what_the_rule_allows(
    capacity: float, share: float, earned: float, floor: float, steps: list[tuple[str, float]]
) -> None:
    """Withdrawn less refunded is at most initial + deposits + floor, whatever the ratios."""
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
        elif step == "refund" and out:
            budget.refund()
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


def test_a_refund_never_overfills() -> None:
    """What comes back stops at the capacity."""
    budget = RetryBudget(AdaptiveConfig(budget_capacity=3, budget_initial=3), 0.0)
    budget.refund()
    assert budget.balance(0.0) == 3.0
