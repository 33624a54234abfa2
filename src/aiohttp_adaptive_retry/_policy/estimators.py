"""What is learnt of an origin and its callers: four estimators that know nothing of each other.

Arithmetic over plain numbers: O(1) per attempt, some hundred bytes each. Each starts ignorant.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import Final

from .tuning import Tuning

# One object for all: a thousand origins have several such moments each.
_NEVER: Final = -math.inf
# The number of error names known at a time; beyond them the oldest makes room.
_TYPES: Final = 16
# The highest share of failures that is believed.
_MOST_FAILING: Final = 0.9
# Counts are halved when they pass this, so that the past fades.
_MOST_CALLS: Final = 40.0


@dataclass(slots=True, eq=False)
class Outage:
    """Is the origin down? First attempts of so many calls in a row failed that it is no bad luck.

    Any thread may read.
    """

    _tuning: Tuning
    #: Failures of first attempts since the last success; retries count for a part.
    streak: float = 0.0
    #: Since when nothing succeeded, while `streak` is not 0.
    failing_since: float = 0.0
    #: Since when the origin is down, or None.
    down_since: float | None = None
    last_success: float = _NEVER
    #: When anything was last heard of the origin.
    last_known: float = _NEVER
    _failing: float = 0.0

    def passed(self, successes: int) -> None:
        """Learn from successes that were only written down."""
        if self._failing:
            self._failing *= (1.0 - self._tuning.failing_weight) ** successes

    def succeeded(self, now: float) -> bool:
        """Learn from a success. True: what looked like an outage is over."""
        over = self.streak >= 2.0
        self.last_success = self.last_known = now
        self.streak = 0.0
        self.down_since = None
        if self._failing:
            self._failing *= 1.0 - self._tuning.failing_weight
        return over

    def failed(self, now: float, *, first: bool) -> None:
        """Learn from a failure: of a call's first attempt, or of a retry."""
        tuning = self._tuning
        self.last_known = now
        if not self.streak:
            self.failing_since = now
        self.streak += 1.0 if first else tuning.streak_retry
        if first and self.down_since is None:
            self._failing += tuning.failing_weight * (1.0 - self._failing)
            if self.streak >= tuning.streak_least and self.streak >= self.needed:
                self.down_since = self.failing_since

    @property
    def needed(self) -> float:
        """Failures in a row that tell an outage: the least n with `share ** n <= surprise`."""
        tuning = self._tuning
        usual = max(tuning.failing_least, min(_MOST_FAILING, self._failing))
        streak = math.ceil(math.log(tuning.surprise) / math.log(usual))
        return max(tuning.streak_least, min(tuning.streak_most, streak))


@dataclass(slots=True, eq=False)
class Latency:
    """Is the origin congested? Successes take `slowed` times as long as they used to."""

    _tuning: Tuning
    congested: bool = False
    #: How many latencies the means are made of; 0 while nothing has succeeded.
    successes: int = 0
    # Short-run and long-run means, in seconds.
    _fast: float = 0.0
    _slow: float = 0.0

    def is_lost(self, latency: float) -> bool:
        """Whether an attempt that took so long in vain was lost, and not only slow."""
        return not self.successes or not latency < self._tuning.lost * self._fast

    def succeeded(self, latency: float) -> bool:
        """Learn from the latency of a success; what is no time is left out.

        True: it is so slow, beside what was usual, that it is a sign of overload.
        """
        if not 0.0 <= latency < math.inf:
            return False
        tuning, usual = self._tuning, self._slow
        if self.successes < tuning.known:
            # A plain mean until there is enough for a moving one.
            self.successes += 1
            self._slow = self._fast = usual + (latency - usual) / self.successes
            return False
        is_slow = latency > max(tuning.slow_success * usual, usual + tuning.excess)
        latency = min(latency, tuning.clip * usual)
        self._fast += tuning.fast * (latency - self._fast)
        if self.congested:
            self._slow = usual + tuning.slow_congested * (latency - usual)
            self.congested = self._fast >= tuning.relieved * usual
            return is_slow
        if self.successes * tuning.slow < 1.0:
            self.successes += 1
            self._slow = usual + (latency - usual) / self.successes
        else:
            self._slow = usual + tuning.slow * (latency - usual)
        self.congested = self._fast > max(tuning.slowed * self._slow, self._slow + tuning.excess)
        return is_slow

    def outage_over(self) -> None:
        """Take the usual for the present: after an outage the short-run mean is stale."""
        if not self.congested:
            self._fast = self._slow


@dataclass(slots=True, eq=False)
class Callers:
    """Do callers wait for their answers before they call again? Then few call while others wait.

    Calls are counted apart in the time in which a failed call is under way and in the rest. Callers
    that don't wait come as often in both. Only a difference that is hardly chance counts.
    """

    _tuning: Tuning
    #: Failed calls under way.
    pending: int = 0
    #: Calls a second while no failed call is under way; 0 if unknown.
    rate: float = 0.0
    #: Whether callers wait: while failed calls were under way, far too few others came.
    wait: bool = False
    _at: float = _NEVER
    _last_call: float = _NEVER
    # When the first of those that are under way was sent, and when none was under way before.
    _pending_since: float = _NEVER
    _idle_since: float = _NEVER
    _calls: float = 0.0
    _time: float = 0.0
    _pending_calls: float = 0.0
    _pending_time: float = 0.0

    def passed(self, calls: int) -> None:
        """Learn from calls that were only written down."""
        if self.pending:
            self._pending_calls += calls
        else:
            self._calls += calls

    def called(self, now: float) -> None:
        """Learn that a call's first attempt succeeded."""
        self._count(now, 1)

    def failed(self, now: float, latency: float) -> None:
        """Learn that a call's first attempt failed after so many seconds; it is under way now."""
        self._count(now, 1, latency)
        self.pending += 1

    def ended(self, now: float) -> None:
        """Learn that a failed call is over."""
        self._count(now, 0)
        self.pending -= 1
        if not self.pending:
            self._idle_since = now

    def _count(self, now: float, calls: int, latency: float = 0.0) -> None:
        """Add the time that passed, and calls, and say anew what follows from both.

        A caller waited so many seconds for what failed now.
        """
        at, self._at = self._at, now
        if at == _NEVER:
            # Time begins with the first call, which says nothing about the rate.
            self._last_call = now
            return
        # A clock that leapt says nothing.
        if 0.0 < now - at < math.inf:
            if self.pending:
                self._pending_time += now - at
            else:
                self._time += now - at
        if 0.0 < latency < math.inf:
            self._was_pending(now, latency)
        elif self.pending:
            self._pending_calls += calls
        else:
            self._calls += calls
        if calls:
            self._last_call = now
        # The past fades.
        if self._calls > _MOST_CALLS:
            self._calls /= 2.0
            self._time /= 2.0
        self.rate = self._calls / self._time if self._time > 0.0 else 0.0
        expected = self._pending_time * self.rate
        if expected > _MOST_CALLS:
            self._pending_calls /= 2.0
            self._pending_time /= 2.0
            expected /= 2.0
        self.wait = False
        if expected:
            # Both counts are chance: the one that is expected, and the one that tells the rate.
            deviation = math.sqrt(expected + expected * expected / self._calls)
            surprise = self._tuning.serial_surprise * deviation
            self.wait = self._pending_calls < expected - surprise

    def _was_pending(self, now: float, latency: float) -> None:
        """Count a call that failed from when it was sent: it was under way since then."""
        if not self.pending:
            self._pending_since = now
        sent = now - latency
        early = self._pending_since - max(sent, self._idle_since)
        if early <= 0.0 or sent < self._idle_since:
            self._pending_calls += 1
        else:
            self._calls += 1
        if not 0.0 < early < math.inf:
            return
        early = min(early, self._time)
        self._pending_since -= early
        self._time -= early
        self._pending_time += early
        if self._last_call > self._pending_since:
            # As many as callers who don't wait make on average, if they make any.
            expected = self.rate * early
            moved = min(self._calls, expected / -math.expm1(-expected)) if expected else 0.0
            self._calls -= moved
            self._pending_calls += moved


@dataclass(slots=True, eq=False)
class Mending:
    """Which errors do retries mend? A share for each error's name, over about 20 retries."""

    _tuning: Tuning
    # For each name: mended retries and retries, both fading. None before the first.
    _names: list[str] | None = None
    _retries: array[float] | None = None
    _next: int = 0

    def retried(self, error_type: str, mended: bool) -> None:
        """Learn what a retry after that error came to."""
        names, retries = self._names, self._retries
        if names is None or retries is None:
            names = self._names = []
            retries = self._retries = array("f")
        if error_type in names:
            at = 2 * names.index(error_type)
        elif len(names) < _TYPES:
            at = 2 * len(names)
            names.append(error_type)
            retries.extend((0.0, 0.0))
        else:
            at = 2 * self._next
            names[self._next] = error_type
            self._next = (self._next + 1) % _TYPES
            retries[at] = retries[at + 1] = 0.0
        memory = self._tuning.mending_memory
        retries[at] = retries[at] * memory + mended
        retries[at + 1] = retries[at + 1] * memory + 1.0

    def mends(self, error_type: str, share: float, chance: float) -> bool:
        """Whether at least that share of retries mends; `chance` (0 to 1) picks some others."""
        tuning = self._tuning
        mended = retries = 0.0
        if self._names is not None and self._retries is not None and error_type in self._names:
            at = 2 * self._names.index(error_type)
            mended, retries = self._retries[at], self._retries[at + 1]
        if (mended + tuning.prior_mended) / (retries + tuning.prior_retries) >= share:
            return True
        return chance < max(tuning.explored, tuning.explored_early / (1.0 + retries) ** 2)
