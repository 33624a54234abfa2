"""Known policies that decide within one call only: nothing is shared between calls.

Where a source leaves the choice of errors to its user, every error of the simulator is retried:
all of them are transient by their names.
"""

from __future__ import annotations

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, CallView, GiveUp, Wait

from .policy import Clock, Rand


class Loop:
    """No retries: what a client does without any policy. The base of the others."""

    def __init__(self, clock: Clock, random: Rand) -> None:
        self.clock = clock
        self.random = random

    def arrive(self, now: float, call: CallView) -> Action:
        """Send at once."""
        return SEND

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Ask ``delay`` after a failure."""
        if outcome.ok:
            return SEND
        delay = self.delay(now, call, outcome)
        return GiveUp("no retry") if delay is None else Wait(delay)

    def wake(self, now: float, call: CallView) -> Action:
        """Send the retry."""
        return SEND

    def cancel(self, now: float, call: CallView) -> None:
        """Nothing is shared, nothing to give back."""

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return the wait before the next attempt, s, or None for no retry."""
        return None


class FixedThree(Loop):
    """The loop that everyone writes: three attempts, ``await asyncio.sleep(2 ** attempt)``.

    Waits 1 s and 2 s, no jitter, every error. The bad end of the regret's scale ("always
    retrying twice").
    """

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return 1 s, 2 s, None."""
        return float(2 ** (call.attempts - 1)) if call.attempts < 3 else None


class AiohttpRetry(Loop):
    """``aiohttp_retry.RetryClient`` with its default ``ExponentialRetry()``.

    Source: aiohttp-retry 2.9.1, retry_options.py and client.py: attempts=3, start_timeout=0.1,
    factor=2, max_timeout=30, no jitter; the delay is 0.1 * 2 ** attempt with attempts counted from
    1, so 0.2 s and 0.4 s. All 5xx answers are retried (retry_all_server_errors), 429 is not. The
    default set of exceptions is empty and ``any()`` over it is False: refused connections,
    disconnects and timeouts are raised at once, although a comment there says otherwise.
    """

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return 0.2 s, 0.4 s, None."""
        if call.attempts >= 3 or not outcome.error_type.startswith("5"):
            return None
        return min(30.0, 0.1 * 2.0**call.attempts)


class Tenacity(Loop):
    """tenacity as it is pasted: ``wait_random_exponential(min=1, max=60), stop_after_attempt(6)``.

    tenacity's own defaults are to retry for ever without a wait, which nobody runs; this pair of
    options is that of the OpenAI cookbook (How_to_handle_rate_limits) and of the many programs
    that copied it. Source of the formula: tenacity 9.2.1, wait.py: uniform(min, max(min,
    min(multiplier * 2 ** (attempt - 1), max))), multiplier=1.
    """

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return a wait in [1, 2 ** (attempts - 1)] s, or None from the sixth attempt on."""
        if call.attempts >= 6:
            return None
        high = max(1.0, min(2.0 ** (call.attempts - 1), 60.0))
        return 1.0 + self.random() * (high - 1.0)


class Stamina(Loop):
    """``stamina.retry(on=...)`` with its defaults, every error.

    Source: stamina 26.1.0, _core.py: attempts=10, timeout=45, wait_initial=0.1, wait_max=5,
    wait_jitter=1, wait_exp_base=2; wait = min(wait_max, wait_initial * 2 ** (attempt - 1) +
    uniform(0, wait_jitter)); stops after the attempts or once the timeout has passed.
    """

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return about 0.6 s at first, 5 s in the end, or None from the tenth attempt on."""
        if call.attempts >= 10 or now - call.started >= 45.0:
            return None
        return min(5.0, 0.1 * 2.0 ** (call.attempts - 1) + self.random())
