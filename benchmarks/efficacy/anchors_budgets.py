"""Known policies that ration retries, or attempts, over all calls of a client."""

from __future__ import annotations

import math

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, CallView, GiveUp

from .anchors_loops import Loop
from .policy import Clock, Rand, timed_out


class Rolling:
    """A sum over the last ``span`` s, kept in ``slices`` equal slices that expire one by one."""

    __slots__ = ("_index", "_length", "_slices", "_values", "total")

    def __init__(self, span: float, slices: int) -> None:
        self._length = span / slices
        self._slices = slices
        self._values = [0.0] * slices
        self._index = 0
        self.total = 0.0

    def add(self, now: float, amount: float) -> None:
        """Add ``amount`` to the present slice."""
        self.sum(now)
        self._values[self._index % self._slices] += amount
        self.total += amount

    def sum(self, now: float) -> float:
        """Drop what has expired at ``now`` and return the sum of the rest."""
        index = int(now / self._length)
        if index - self._index >= self._slices:
            self._values = [0.0] * self._slices
            self.total = 0.0
            self._index = index
        while self._index < index:
            self._index += 1
            slot = self._index % self._slices
            self.total -= self._values[slot]
            self._values[slot] = 0.0
        return self.total


class GrpcThrottle(Loop):
    """gRPC client retries with retry throttling, numbers of the proposal's own example.

    Source: grpc/proposal A6 (A006-client-retries.md, 2022-11-17): maxAttempts 4, initialBackoff
    0.1 s, backoffMultiplier 2, maxBackoff 1 s, wait = random(0, min(initial * 2 ** (n - 1), max));
    maxTokens 10, tokenRatio 0.1: a failure takes one token, a success gives 0.1, no retries while
    tokens <= 5. Pushback: waits exactly what the server says, then starts the backoff anew.
    retryableStatusCodes is ["UNAVAILABLE"] there; by gRPC's mapping of HTTP status codes that is
    429, 502, 503, 504 and failures to connect. A 500 is UNKNOWN and a timeout DEADLINE_EXCEEDED:
    neither retried nor counted.
    """

    _MAX_TOKENS = 10.0

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        self._tokens = self._MAX_TOKENS

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Count tokens for each attempt, then decide as a loop does."""
        if outcome.ok:
            self._tokens = min(self._MAX_TOKENS, self._tokens + 0.1)
        elif outcome.error_type != "500" and not timed_out(outcome):
            self._tokens = max(0.0, self._tokens - 1.0)
        return super().outcome(now, call, outcome)

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return the backoff, or None without tokens or for other codes."""
        if outcome.error_type == "500" or timed_out(outcome) or call.attempts >= 4:
            return None
        if self._tokens <= self._MAX_TOKENS / 2:
            return None
        if outcome.retry_after is not None:
            call.state = call.attempts
            return outcome.retry_after
        nth = call.attempts - (call.state or 0)
        return self.random() * min(0.1 * 2.0 ** (nth - 1), 1.0)


class FinagleBudget(Loop):
    """Finagle's RequeueFilter with the default RetryBudget.

    Source: twitter/finagle, RetryBudget.scala (ttl 10 s, minRetriesPerSec 10, percentCanRetry
    0.2), RequeueFilter.scala and Retries.scala (MaxRequeuesPerReq 0.2 of the balance, no backoff).
    Each call deposits 1, each retry withdraws 1 / 0.2 = 5, both expire after 10 s; a reserve of
    10/s * 10 s retries is always there. Finagle requeues only failures that were surely not
    processed; as it would otherwise do nothing here, every error counts as such.
    """

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        self._bucket = Rolling(10.0, 10)

    def _balance(self, now: float) -> float:
        return math.floor(self._bucket.sum(now) / 5.0 + 100.0)

    def arrive(self, now: float, call: CallView) -> Action:
        """Deposit, and settle how many retries this call may take at most."""
        self._bucket.add(now, 1.0)
        call.state = math.ceil(0.2 * self._balance(now))
        return SEND

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Retry at once while the budget lasts."""
        if call.attempts > call.state or self._balance(now) < 1.0:
            return None
        self._bucket.add(now, -5.0)
        return 0.0


class EnvoyBudget(Loop):
    """Envoy's router with ``retry_on: 5xx`` and ``retry_budget: {}``.

    Source: envoyproxy/envoy, circuit_breaker.proto (budget_percent 20 of active requests,
    min_retry_concurrency 3) and the router filter's documentation (one retry, base interval 25 ms,
    maximum ten times that, fully jittered). "5xx" includes refused connections, resets and
    timeouts per try, but not 429. A retry is active from its scheduling to its end.
    """

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        self._active = 0
        self._retries = 0

    def arrive(self, now: float, call: CallView) -> Action:
        """Count an active request."""
        self._active += 1
        return SEND

    def _end(self, call: CallView) -> None:
        self._active -= 1
        if call.state:
            self._retries -= 1

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Retry once if the share of active retries allows it."""
        action = super().outcome(now, call, outcome)
        if outcome.ok or isinstance(action, GiveUp):
            self._end(call)
        return action

    def cancel(self, now: float, call: CallView) -> None:
        """Count the request, and its retry, as no longer active."""
        self._end(call)

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return up to 25 ms, or None."""
        if call.attempts >= 2 or outcome.error_type == "429":
            return None
        if self._retries >= max(3, int(0.2 * self._active)):
            return None
        self._retries += 1
        call.state = True
        return self.random() * 0.025


class SreThrottle(Loop):
    """Client-side adaptive throttling, K = 2, with the book's two retry budgets.

    Source: Beyer et al. (eds.), Site Reliability Engineering, chapter 21, Handling Overload:
    attempts are refused locally with probability max(0, (requests - K * accepts) / (requests + 1))
    over the last two minutes, locally refused ones count as requests; at most three attempts per
    request; no retry when retries are 10 % of the client's requests or more. Backoff is from
    chapter 22 (randomised, exponential); it gives no numbers: random(0, 0.1 * 2 ** (n - 1)) s is
    our choice. Accepted is what the backend processed: successes and 500. Attempts are counted when
    they end, as go-zero and failsafe-go do: counted when they begin, slow answers alone would have
    a new client refuse itself.
    """

    _K = 2.0

    def __init__(self, clock: Clock, random: Rand) -> None:
        super().__init__(clock, random)
        self._requests = Rolling(120.0, 12)
        self._accepts = Rolling(120.0, 12)
        self._retries = Rolling(120.0, 12)

    def _admit(self, now: float) -> Action:
        requests, accepts = self._requests.sum(now), self._accepts.sum(now)
        if self.random() < max(0.0, (requests - self._K * accepts) / (requests + 1.0)):
            self._requests.add(now, 1.0)
            return GiveUp("throttled")
        return SEND

    def arrive(self, now: float, call: CallView) -> Action:
        """Send, unless throttled."""
        return self._admit(now)

    def wake(self, now: float, call: CallView) -> Action:
        """Send the retry, unless throttled."""
        self._retries.add(now, 1.0)
        return self._admit(now)

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Count the attempt, and whether it was accepted, then decide."""
        self._requests.add(now, 1.0)
        if outcome.ok or outcome.error_type == "500":
            self._accepts.add(now, 1.0)
        return super().outcome(now, call, outcome)

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return the backoff, or None outside of either budget."""
        if call.attempts >= 3 or self._retries.sum(now) >= 0.1 * self._requests.sum(now):
            return None
        return self.random() * 0.1 * 2.0 ** (call.attempts - 1)
