"""Known policies with a circuit breaker."""

from __future__ import annotations

from collections import deque
from math import sqrt, tanh

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, CallView, GiveUp, Wait

from .anchors_budgets import Rolling
from .policy import Clock, Rand


class Resilience4j:
    """resilience4j's Retry around its CircuitBreaker, both with ``ofDefaults()``.

    Source: resilience4j, CircuitBreakerConfig.java (failure rate 50 % over a window of the last
    100 calls, of which at least 100 are needed; open for 60 s; ten calls when half open) and
    RetryConfig.java (three attempts, 500 ms between them, every exception). The order is that of
    its Spring integration, Retry(CircuitBreaker(call)): a call that the breaker refuses uses up
    one of the three attempts, but nothing is sent. Every error counts as a failure.
    """

    def __init__(self, clock: Clock, random: Rand) -> None:
        self._window: deque[bool] = deque(maxlen=100)
        self._failures = 0
        self._opened: float | None = None
        self._half_open = False
        self._permits = 0
        self._trial: list[bool] = []

    def _try(self, now: float, call: CallView) -> Action:
        """One of Retry's attempts."""
        tried, _ = call.state or (0, False)
        if self._opened is not None and now - self._opened >= 60.0:
            self._opened = None
            self._half_open, self._permits, self._trial = True, 10, []
        if self._opened is not None or (self._half_open and self._permits == 0):
            call.state = (tried + 1, False)
            return GiveUp("breaker open") if tried + 1 >= 3 else Wait(0.5)
        if self._half_open:
            self._permits -= 1
        call.state = (tried + 1, self._half_open)
        return SEND

    def arrive(self, now: float, call: CallView) -> Action:
        """Ask the breaker."""
        return self._try(now, call)

    def wake(self, now: float, call: CallView) -> Action:
        """Ask the breaker."""
        return self._try(now, call)

    def cancel(self, now: float, call: CallView) -> None:
        """Give the permit of an attempt under way back (``releasePermission``)."""
        if call.state is not None and call.state[1] and self._half_open:
            self._permits = min(10, self._permits + 1)
            call.state = (call.state[0], False)

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Tell the breaker, then retry after 500 ms."""
        tried, trial = call.state
        self._record(now, outcome.ok, trial)
        call.state = (tried, False)
        if outcome.ok:
            return SEND
        return GiveUp("no retry") if tried >= 3 else Wait(0.5)

    def _record(self, now: float, ok: bool, trial: bool) -> None:
        if self._opened is not None:
            return
        if self._half_open:
            if not trial:
                return
            self._trial.append(ok)
            if len(self._trial) < 10:
                return
            self._half_open = False
            if self._trial.count(False) >= 5:
                self._opened = now
            self._window.clear()
            self._failures = 0
            return
        if len(self._window) == 100 and not self._window[0]:
            self._failures -= 1
        self._window.append(ok)
        if not ok:
            self._failures += 1
        if len(self._window) == 100 and self._failures >= 50:
            self._opened = now


class PollyStandard:
    """.NET's ``AddStandardResilienceHandler()``: retry around a circuit breaker, by Polly.

    Source: dotnet/extensions, Microsoft.Extensions.Http.Resilience (HttpRetryStrategyOptions:
    three retries, delay 2 s, exponential with jitter, Retry-After honoured; transient are 408, 429,
    5xx, HttpRequestException, timeouts) and App-vNext/Polly: RetryHelper.cs (decorrelated jitter,
    after G. Polevoy) and CircuitBreakerStrategyOptions (failure ratio 0.1, at least 100 calls in
    30 s, broken for 5 s, then one trial). A call that meets a broken circuit ends at once:
    BrokenCircuitException is not transient to the retry. Its attempt timeout of 10 s, total
    timeout of 30 s and limit of 1000 concurrent calls are wider than the simulated caller's own
    and left out.
    """

    def __init__(self, clock: Clock, random: Rand) -> None:
        self._random = random
        self._calls = Rolling(30.0, 10)
        self._failures = Rolling(30.0, 10)
        self._broken_until: float | None = None
        self._trial: CallView | None = None

    def arrive(self, now: float, call: CallView) -> Action:
        """Ask the breaker."""
        call.state = 0.0
        return self._try(now, call)

    def wake(self, now: float, call: CallView) -> Action:
        """Ask the breaker."""
        return self._try(now, call)

    def _try(self, now: float, call: CallView) -> Action:
        if self._broken_until is None:
            return SEND
        if now < self._broken_until or self._trial is not None:
            return GiveUp("circuit broken")
        self._trial = call
        return SEND

    def cancel(self, now: float, call: CallView) -> None:
        """Let the next call try, if this one was the trial."""
        if self._trial is call:
            self._trial = None

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Tell the breaker, then back off."""
        if self._trial is call:
            self._trial = None
            if outcome.ok:
                self._broken_until = None
                self._calls, self._failures = Rolling(30.0, 10), Rolling(30.0, 10)
            else:
                self._broken_until = now + 5.0
        self._calls.add(now, 1.0)
        if outcome.ok:
            return SEND
        self._failures.add(now, 1.0)
        calls = self._calls.sum(now)
        if self._broken_until is None and calls >= 100 and self._failures.sum(now) >= 0.1 * calls:
            self._broken_until = now + 5.0
        if call.attempts >= 4:
            return GiveUp("no retry")
        delay = self._delay(call)
        return Wait(delay if outcome.retry_after is None else outcome.retry_after)

    def _delay(self, call: CallView) -> float:
        """2 s * (f(n + u) - f before) / 1.4, where f(t) = 2**t * tanh(sqrt(4 t))."""
        t = call.attempts - 1 + self._random()
        value: float = 2.0**t * tanh(sqrt(4.0 * t))
        before: float = call.state
        call.state = value
        return max(0.0, value - before) / 1.4 * 2.0
