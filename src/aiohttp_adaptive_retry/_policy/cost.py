"""What a retry costs: the token that it takes, and the time that it waits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..config import AdaptiveConfig

# However long nothing happened, no more seconds than this are caught up at once.
_LONGEST_CATCH_UP: Final = 3600.0
_GROWTH: Final = 3.0


class RetryBudget:
    """Tokens for one origin, between 0 and the capacity; one retry reserves one token.

    `balance = min(capacity, initial + deposit * successes + floor * seconds + mended retries -
    wasted retries)`, held at the capacity at every step.

    The idea is Finagle's RetryBudget (deposit, try_withdraw, balance) with two changes. A token is
    reserved before the wait, so that no wait is wasted on a retry that can't be afforded. The token
    comes back when the retry succeeds, as a mended request costs the server nothing extra.

    Every method is O(1). One loop may call them; any thread may call `balance` and read `capacity`.

    >>> from aiohttp_adaptive_retry import AdaptiveConfig
    >>> budget = RetryBudget(AdaptiveConfig(budget_initial=1), now=0.0)
    >>> budget.try_withdraw(0.0), budget.try_withdraw(0.0)
    (True, False)
    >>> budget.give_back(); budget.try_withdraw(0.0)
    True
    """

    __slots__ = ("_deposit", "_floor", "_last", "capacity", "tokens")

    def __init__(self, config: AdaptiveConfig, now: float) -> None:
        self.capacity = float(config.budget_capacity)
        self.tokens = float(config.budget_initial)
        self._deposit = float(config.budget_deposit)
        self._floor = float(config.budget_floor)
        self._last = now

    def deposit(self, successes: int = 1) -> None:
        """Add the share of a token that each success earns."""
        self.tokens = min(self.capacity, self.tokens + self._deposit * successes)

    def give_back(self) -> None:
        """Add one whole token: a reserved one whose retry was not sent."""
        self.tokens = min(self.capacity, self.tokens + 1.0)

    def reward(self) -> None:
        """Add the token that a mended retry had reserved, and one that a later one may waste."""
        self.tokens = min(self.capacity, self.tokens + 1.0 + 1.0)

    def try_withdraw(self, now: float) -> bool:
        """Reserve one token; False if there is none."""
        self.tokens = self.balance(now)
        self._last = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def balance(self, now: float, successes: int = 0) -> float:
        """Tokens at this moment, with so many successes that were not deposited yet."""
        tokens = self.tokens + self._deposit * successes
        # A clock that leapt back, or gave no number, earns nothing.
        elapsed = min(now - self._last, _LONGEST_CATCH_UP)
        if elapsed > 0.0:
            tokens += self._floor * elapsed
        return min(self.capacity, tokens)


def full_jitter(retry: int, base: float, cap: float, random: Callable[[], float]) -> float:
    """Seconds to wait before the `retry`-th retry (1 is the first): `random() * span`.

    `span = min(cap, base * 3 ** (retry - 1))`. The whole span is jittered, which spreads clients
    that failed together furthest (Marc Brooker, "Exponential Backoff and Jitter", AWS
    Architecture Blog, 2015). Tripling makes one configuration span a blip and a restart.

    >>> [round(full_jitter(retry, 0.2, 5.0, lambda: 1.0), 2) for retry in (1, 2, 3, 4, 5)]
    [0.2, 0.6, 1.8, 5.0, 5.0]
    """
    # Beyond 64 the power would only overflow; the cap has long been reached.
    span = min(cap, base * _GROWTH ** min(retry - 1, 64))
    chance = random()
    # A number from 0 to 1 whatever the injected source gives.
    return span * (chance if 0.0 <= chance <= 1.0 else 1.0)


def jittered_retry_after(
    seconds: float, retry: int, chance: float, longest: float = math.inf
) -> float:
    """What the server asked for, and up to as much again: jitter only ever adds.

    The share that is added is `chance` (0 to 1) of a quarter at the first retry, half at the
    second, and all from the third on, as clients that keep meeting at a limiter's end have to
    spread further each time. `longest` cuts the jitter, never what was asked for.

    >>> jittered_retry_after(2.0, 1, 1.0), jittered_retry_after(2.0, 3, 1.0)
    (2.5, 4.0)
    """
    if not 0.0 <= chance <= 1.0:
        chance = 1.0
    share = min(1.0, 0.25 * 2.0 ** min(retry - 1, 8))
    return max(seconds, min(longest, seconds * (1.0 + share * chance)))
