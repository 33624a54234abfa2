"""The retry budget: tokens that successes earn and wasted retries cost.

The idea is Finagle's RetryBudget (deposit, try_withdraw, balance) with two changes. A token is
reserved *before* the wait, so that no wait is wasted on a retry that can't be afforded; and it
comes back when the retry succeeds, since a retry that mends costs the server no more than the
request that it replaces. What is charged is waste.
"""

from __future__ import annotations

from .config import AdaptiveConfig

__all__ = ("RetryBudget",)

# However long nothing happened, no more than this is caught up at once.
_LONGEST_CATCH_UP = 3600.0


class RetryBudget:
    """Tokens for one origin, between 0 and the capacity; one retry reserves one token.

    `balance = min(capacity, initial + deposit * successes + floor * seconds + mended retries -
    wasted retries)`, held at the capacity at every step. Everything is O(1); the loop's thread
    only, but `tokens` and `capacity` may be read from any.

    >>> budget = RetryBudget(AdaptiveConfig(budget_initial=1), now=0.0)
    >>> budget.try_withdraw(0.0), budget.try_withdraw(0.0)
    (True, False)
    >>> budget.refund(); budget.try_withdraw(0.0)
    True
    """

    __slots__ = ("_floor", "_last", "capacity", "earned", "tokens")

    def __init__(self, config: AdaptiveConfig, now: float) -> None:
        self.capacity = float(config.budget_capacity)
        self.tokens = float(config.budget_initial)
        #: What one success earns.
        self.earned = float(config.budget_deposit)
        self._floor = float(config.budget_floor)
        self._last = now

    def deposit(self, successes: int = 1) -> None:
        """Earn the share that each success earns."""
        if self.tokens < self.capacity:
            tokens = self.tokens + self.earned * successes
            self.tokens = tokens if tokens < self.capacity else self.capacity

    def reward(self) -> None:
        """Earn a whole token: a retry mended, or an outage is over.

        So retries may waste as much as they mend, beside what successes earn, and calls that were
        held through an outage do not run out of tokens at its end.
        """
        self.tokens = min(self.capacity, self.tokens + 1.0)

    def refund(self) -> None:
        """Give back one reserved token: its retry succeeded, or was never sent."""
        self.tokens = min(self.capacity, self.tokens + 1.0)

    def try_withdraw(self, now: float) -> bool:
        """Reserve one token; False if there is none."""
        tokens = self.balance(now)
        self.tokens = tokens
        self._last = now
        if tokens < 1.0:
            return False
        self.tokens = tokens - 1.0
        return True

    def balance(self, now: float, successes: int = 0) -> float:
        """Tokens at this moment, with what the floor earned meanwhile, and so many successes that
        were not deposited yet. Changes nothing."""
        tokens = self.tokens + self.earned * successes
        # A clock that leapt back, or gave no number, earns nothing.
        elapsed = min(now - self._last, _LONGEST_CATCH_UP)
        if elapsed > 0.0:
            tokens += self._floor * elapsed
        return min(self.capacity, tokens)
