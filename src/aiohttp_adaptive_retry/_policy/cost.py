"""What a retry costs: the tokens that it takes, and the time that it waits."""

from __future__ import annotations

import math
from typing import Final

from ..config import AdaptiveConfig
from .tuning import Tuning

# However long nothing happened, no more seconds than this are caught up at once.
_LONGEST_CATCH_UP: Final = 3600.0
_GROWTH: Final = 3.0


class RetryFlow:
    """Tokens for one origin, between 0 and `capacity`: what retries may waste.

    A retry reserves tokens before its wait, so that no wait is wasted on one that can't be
    afforded. They come back if it mends, as a mended request costs the origin nothing extra. So
    `wasted <= initial + sum of share over successes + floor * seconds`.

    A success earns `share` of a token. The share grows by a step when a retry mends, and shrinks to
    a part at a sign of overload, as TCP's window does (Chiu and Jain, "Analysis of the Increase and
    Decrease Algorithms for Congestion Avoidance", 1989). The tokens are those of Finagle's
    RetryBudget.

    Every method is O(1). One loop may call them; any thread may call `balance`.

    >>> from aiohttp_adaptive_retry import AdaptiveConfig
    >>> flow = RetryFlow(AdaptiveConfig(budget_initial=1), 0.0, Tuning())
    >>> flow.take(1.0), flow.take(1.0)
    (True, False)
    >>> flow.give_back(1.0); flow.take(1.0)
    True
    """

    __slots__ = ("_floor", "_last", "_tuning", "capacity", "share", "tokens")

    def __init__(self, config: AdaptiveConfig, now: float, tuning: Tuning) -> None:
        self.capacity = float(config.budget_capacity)
        self.tokens = float(config.budget_initial)
        self.share = float(config.budget_deposit)
        self._floor = float(config.budget_floor)
        self._last = now
        self._tuning = tuning

    def earn(self, successes: int = 1) -> None:
        """Add what so many successes earn."""
        self.tokens = min(self.capacity, self.tokens + self.share * successes)

    def refill(self, now: float) -> None:
        """Add what the time since the last refill earns."""
        if self._floor:
            self.tokens = self.balance(now)
        self._last = now

    def take(self, price: float) -> bool:
        """Reserve tokens; False, and nothing, if there are not so many."""
        if self.tokens < price:
            return False
        self.tokens -= price
        return True

    def give_back(self, price: float) -> None:
        """Put back what a retry reserved that mended, or was not sent."""
        self.tokens = min(self.capacity, self.tokens + price)

    def hold_down(self, most: float) -> None:
        """Keep no more than so many."""
        self.tokens = min(self.tokens, most)

    def raise_share(self) -> None:
        """A retry mended, and nothing speaks of overload. A share that was set higher stays."""
        tuning = self._tuning
        if self.share < tuning.share_most:
            self.share = min(tuning.share_most, self.share + tuning.share_step)

    def cut_share(self) -> None:
        """Something speaks of overload. A share that was set lower stays."""
        tuning = self._tuning
        if self.share > tuning.share_least:
            self.share = max(tuning.share_least, self.share * tuning.share_cut)

    def balance(self, now: float, successes: int = 0) -> float:
        """Tokens at this moment, with so many successes that were not told yet."""
        tokens = self.tokens + self.share * successes
        # A clock that leapt back, or gave no number, earns nothing.
        elapsed = min(now - self._last, _LONGEST_CATCH_UP)
        if elapsed > 0.0:
            tokens += self._floor * elapsed
        return min(self.capacity, tokens)


def full_jitter(retry: int, base: float, cap: float, chance: float) -> float:
    """Seconds to wait before the `retry`-th retry (1 is the first): `chance * span`.

    `span = min(cap, base * 3 ** (retry - 1))`. The whole span is jittered, which spreads clients
    that failed together furthest (Marc Brooker, "Exponential Backoff and Jitter", AWS
    Architecture Blog, 2015). Tripling makes one configuration span a blip and a restart.

    >>> [round(full_jitter(retry, 0.2, 5.0, 1.0), 2) for retry in (1, 2, 3, 4, 5)]
    [0.2, 0.6, 1.8, 5.0, 5.0]
    """
    # Beyond 64 the power would only overflow; the cap has long been reached.
    span = min(cap, base * _GROWTH ** min(retry - 1, 64))
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


def time_of(
    now: float, deadline: float | None, config: AdaptiveConfig, tuning: Tuning
) -> tuple[float, float]:
    """The seconds that a call has, and for how many of them it may be held.

    >>> time_of(0.0, 2.0, AdaptiveConfig(), Tuning())
    (2.0, 0.5)
    """
    longest = config.hold_cap
    time = math.inf if deadline is None else max(0.0, deadline - now)
    if time > tuning.told_most:
        time, longest = tuning.untold, min(longest, tuning.untold_hold)
    return time, min(longest, config.hold_share * time)


def poll_pause(now: float, age: float, jitter: float, held: int, tuning: Tuning) -> float:
    """Seconds after which a held call asks again, in trouble of that age, one of so many held.

    A crowd asks more rarely. `jitter`, from 0 to 1, makes it half to one and a half, so that calls
    that were held together do not ask together.
    """
    pause = min(tuning.poll_most, max(tuning.poll_least, tuning.poll_share * age))
    pause = max(pause, held / tuning.polls) * (0.5 + jitter)
    # Those that ask at about the same time share one turn of the loop, which costs the most.
    late = -(now + pause) % tuning.poll_least
    return pause + late if late < tuning.poll_least else pause
