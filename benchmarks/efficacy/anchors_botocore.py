"""botocore's retry modes, as of botocore 1.44.5 (botocore/retries/)."""

from __future__ import annotations

import math

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, CallView, Wait

from .anchors_loops import Loop
from .policy import Clock, Rand


class BotocoreStandard(Loop):
    """``retries={"mode": "standard"}``.

    Source: botocore 1.44.5, retries/standard.py and quota.py: three attempts; wait = rand(0, 1) *
    min(base * 2 ** i, 20 s), i from 0, base 0.05 s, for throttling (429) 1 s; a quota of 500, a
    retry costs 14, one for throttling 5; a success after retries gives the last cost back, one
    without gives 1. 500, 502, 503, 504, connection errors and timeouts are transient. Only the
    header x-amz-retry-after is read, not Retry-After.
    """

    _QUOTA = 500

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        self._quota = self._QUOTA

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Give quota back for a success, else decide."""
        if outcome.ok:
            self._quota = min(self._QUOTA, self._quota + (call.state or 1))
        return super().outcome(now, call, outcome)

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return the backoff, or None without quota."""
        throttled = outcome.error_type == "429"
        cost = 5 if throttled else 14
        if call.attempts >= 3 or cost > self._quota:
            return None
        self._quota -= cost
        call.state = cost
        base = 1.0 if throttled else 0.05
        return self.random() * min(base * 2.0 ** (call.attempts - 1), 20.0)


class BotocoreAdaptive(BotocoreStandard):
    """``retries={"mode": "adaptive"}``: standard, and a client-side rate limit learnt from 429s.

    Source: botocore 1.44.5, retries/adaptive.py, throttling.py and bucket.py: from the first
    throttled answer on, each attempt needs a token; the rate follows CUBIC (scale 0.4, beta 0.7)
    and is at most twice the measured rate (smoothing 0.8, buckets of 0.5 s) and at least 0.5/s.
    """

    _MIN_RATE = 0.5

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        now = clock()
        self._enabled = False
        # CubicCalculator
        self._w_max = 0.0
        self._last_fail = now
        # RateClocker
        self._measured = 0.0
        self._last_bucket = float(math.floor(now))
        self._count = 0
        # TokenBucket
        self._rate = 1.0
        self._capacity = 1.0
        self._tokens = 0.0
        self._filled = now

    def arrive(self, now: float, call: CallView) -> Action:
        """Send as soon as there is a token."""
        return self._acquire(now)

    def wake(self, now: float, call: CallView) -> Action:
        """Send as soon as there is a token."""
        return self._acquire(now)

    def _acquire(self, now: float) -> Action:
        if not self._enabled:
            return SEND
        self._refill(now)
        if self._tokens >= 1.0 - 1e-9:
            self._tokens -= 1.0
            return SEND
        return Wait((1.0 - self._tokens) / self._rate)

    def _refill(self, now: float) -> None:
        self._tokens = min(self._capacity, self._tokens + (now - self._filled) * self._rate)
        self._filled = now

    def _measure(self, now: float) -> None:
        bucket = math.floor(now * 2.0) / 2.0
        self._count += 1
        if bucket > self._last_bucket:
            rate = self._count / (bucket - self._last_bucket)
            self._measured = rate * 0.8 + self._measured * 0.2
            self._count = 0
            self._last_bucket = bucket

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Adapt the rate, then decide as the standard mode does."""
        self._measure(now)
        if outcome.error_type == "429":
            self._w_max = min(self._measured, self._rate) if self._enabled else self._measured
            self._last_fail = now
            rate = self._w_max * 0.7
            self._enabled = True
        else:
            k = (self._w_max * 0.3 / 0.4) ** (1.0 / 3.0)
            rate = 0.4 * (now - self._last_fail - k) ** 3 + self._w_max
        self._refill(now)
        rate = min(rate, 2.0 * self._measured)
        self._rate = max(rate, self._MIN_RATE)
        self._capacity = max(rate, 1.0)
        self._tokens = min(self._tokens, self._capacity)
        return super().outcome(now, call, outcome)
