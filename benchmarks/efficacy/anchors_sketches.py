"""Two sketches, written in minutes and tuned to nothing: what little code comes to."""

from __future__ import annotations

import math

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, CallView, GiveUp, Wait

from .anchors_loops import Loop
from .policy import Clock, Rand, timed_out

_MAX_ATTEMPTS = 5


class EightLines(Loop):
    """One token at first, a tenth of a token per success, the token back when the retry mends.

    Time-outs are never retried. Waits random(0, 0.1 * 2 ** (n - 1)) s, at most 2 s, or longer if
    the server asks for it. At most ten tokens.
    """

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        self._tokens = 1.0

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Give tokens for a success, else decide."""
        if outcome.ok:
            self._tokens = min(10.0, self._tokens + (1.0 if call.attempts > 1 else 0.1))
        return super().outcome(now, call, outcome)

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return the backoff, or None without a token."""
        if timed_out(outcome) or self._tokens < 1.0 or call.attempts >= _MAX_ATTEMPTS:
            return None
        self._tokens -= 1.0
        wait = self.random() * min(0.1 * 2.0 ** (call.attempts - 1), 2.0)
        return max(wait, outcome.retry_after or 0.0)


class SixtyLines(Loop):
    """The share that retries may add is raised when one mends and halved at signs of overload.

    A sign is a time-out, or a success that takes more than twice the usual; halving happens once a
    second at most. Tokens come from successes by that share. A failure that finds no token holds
    for a while, at most 1 s or a tenth of what the caller has left; a success releases one held
    call at a time.
    """

    _LEAST, _MOST, _RAISE = 0.02, 0.5, 0.02
    _HOLD, _PART = 1.0, 0.1

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        self._share = 0.1
        self._tokens = 1.0
        self._cut_at = -math.inf
        self._usual = 0.0
        self._released = 0

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Adapt the share, then decide."""
        if outcome.ok:
            if self._usual and outcome.latency > 2.0 * self._usual:
                self._cut(now)
            self._usual += (outcome.latency - self._usual) * (0.05 if self._usual else 1.0)
            gain = self._share
            if call.attempts > 1:
                self._share = min(self._MOST, self._share + self._RAISE)
                gain = 1.0
            self._tokens = min(10.0, self._tokens + gain)
            self._released = 1
            return SEND
        if timed_out(outcome):
            self._cut(now)
            if self._tokens < 2.0:
                return GiveUp("no token")
        if call.attempts >= _MAX_ATTEMPTS:
            return GiveUp("attempts")
        backoff = self.random() * min(0.1 * 2.0 ** (call.attempts - 1), 2.0)
        backoff = max(backoff, outcome.retry_after or 0.0)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            call.state = None
            return Wait(backoff)
        left = math.inf if call.deadline is None else call.deadline - now
        hold = min(self._HOLD, self._PART * left)
        if backoff >= hold:
            return GiveUp("no token")
        call.state = now + hold
        return Wait(backoff)

    def wake(self, now: float, call: CallView) -> Action:
        """Send with a token; a held call asks again until its time is over."""
        if call.state is None:
            return SEND
        if self._tokens >= 1.0 and self._released:
            self._released = 0
            self._tokens -= 1.0
            call.state = None
            return SEND
        if now >= call.state:
            return GiveUp("no token")
        return Wait(min(0.1, max(0.0, call.state - now)))

    def _cut(self, now: float) -> None:
        if now - self._cut_at >= 1.0:
            self._cut_at = now
            self._share = max(self._LEAST, self._share / 2.0)
