"""The fixed policy: so many attempts, full jitter between them, nothing learnt."""

from __future__ import annotations

import math
import random as _random
from collections.abc import Callable
from datetime import timedelta

from .._checks import duration
from .cost import full_jitter
from .protocol import SEND, Action, AttemptOutcome, CallView, GiveUp, Wait


class FixedPolicy:
    """Retries every failure that can be retried, up to a number of attempts.

    It bounds no load: hundreds of clients with it multiply an outage by `attempts`.

    Args:
        attempts: the most attempts of one call, 1 or more.
        base: the span of the first wait, in seconds or a timedelta, above zero; the spans triple.
        cap: the longest span, in seconds or a timedelta.
        random: a number from 0 to 1, for jitter.

    O(1) time; no memory of its own for a call.
    """

    def __init__(
        self,
        attempts: int = 3,
        *,
        base: float | timedelta = 0.2,
        cap: float | timedelta = 5.0,
        random: Callable[[], float] = _random.random,
    ) -> None:
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
            raise ValueError(f"attempts must be >= 1, got {attempts!r}")
        base, cap = duration("base", base), duration("cap", cap)
        if not 0.0 < base <= cap < math.inf:
            raise ValueError(f"base must be > 0 and <= cap ({cap}), got {base}")
        self._attempts, self._base, self._cap, self._random = attempts, base, cap, random

    def arrive(self, now: float, call: CallView) -> Action:
        """Send."""
        return SEND

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Wait a jittered span, or as long as the server asked for."""
        if outcome.ok:
            return SEND
        if not outcome.replayable:
            return GiveUp("not_retryable")
        if call.attempts >= self._attempts:
            return GiveUp("max_attempts")
        wait = full_jitter(call.attempts, self._base, self._cap, self._random())
        return Wait(max(wait, outcome.retry_after or 0.0), committed=True)

    def wake(self, now: float, call: CallView) -> Action:
        """Send."""
        return SEND

    def cancel(self, now: float, call: CallView) -> None:
        """Nothing is reserved."""
