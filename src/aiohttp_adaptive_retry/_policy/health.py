"""What is learnt of an origin: is it down, congested or limiting, and which errors retries mend.

Arithmetic over plain numbers: O(1) per attempt, about 1 kB per origin. Each estimate starts
ignorant, on the side of retrying, and learns from what attempts come to. Where a constant was
chosen for one of the simulated conditions (benchmarks/efficacy), its comment names the condition.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import Final

# Down. The probability below which a streak of failures is not taken for bad luck.
_SURPRISE: Final = math.log(1e-4)
# The shortest streak that tells an outage, however reliable the origin was (errors_20%).
_LEAST_STREAK: Final = 3
# The longest streak that is ever asked for, however unreliable the origin was (partial_50%).
_MOST_STREAK: Final = 14
# What a failed retry adds to the streak. One call with 4 retries stays below the shortest streak.
_WITHIN: Final = 0.34
# The streak at which an outage is suspected. One call alone gets here with its fourth attempt.
SUSPICIOUS: Final = 2.0
# The share of first attempts that fail: the first guess, its memory (about 50 first attempts), and
# the highest share that is believed.
_USUAL_SHARE: Final = 0.02
_SHARE_MEMORY: Final = 0.02
_MOST_SHARE: Final = 0.9

# Congested. The weight of one latency in the short-run mean: 16 latencies tell a queue from chance.
_FAST: Final = 1 / 16
# The weight of one latency in the long-run mean: trouble that starts slowly is not taken for usual.
_SLOW: Final = 1 / 256
# The same weight in congestion: the mean is all but kept, and yet no misjudgement lasts for ever.
_SLOW_CONGESTED: Final = 1 / 2048
# A latency counts at most so many long-run means: one straggler is no congestion (slow_service).
_CLIP: Final = 4.0
# Congestion begins where the short-run mean, raised by overload errors, is so many long-run means.
_SLOWED: Final = 1.7
# Congestion ends where the same quotient falls below this factor (brownout, spike_1.5).
_RELIEVED: Final = 1.3
# Congestion never begins below this quotient of plain latencies, whatever errors say: a bad server
# among good ones gives 503 too, and then retries mend (one_bad_of_five).
_LEAST_SLOWED: Final = 1.35
# Congestion never begins below this difference in seconds: 5 ms after 2 ms is a busy processor.
_LEAST_EXCESS: Final = 0.02
# Congestion ends at this quotient of plain latencies, whatever errors say. Otherwise 503 by chance
# would keep alive what a few slow successes began (errors_20% where all are 503).
_USUAL_AGAIN: Final = 1.15
# The quotient of plain latencies above which nobody waits for relief (shedding_503).
_OVERLOADED: Final = 1.7
# How much the share of overload errors raises the short-run mean: 20 % raise the mean by half, as
# a short queue that sheds load hardly slows anybody (shedding_503).
_OVERLOAD_WEIGHT: Final = 2.5
# The memory of the share of overload errors: about 20 attempts.
_OVERLOAD_MEMORY: Final = 0.05
# The number of successes from which on latencies say anything.
_LEAST_SUCCESSES: Final = 16
# After an outage, the first latency replaces this part of the short-run mean, because the old mean
# is stale and one sample is noisy.
_DAMPED: Final = 0.25

# Admission. The latency, in long-run means, at which the admission rate neither grows nor shrinks:
# a busy origin that copes (at 0.6 of its speed an idle origin takes 1.7; brownout).
_ADMISSION_TARGET: Final = 3.0
# How fast the admission rate follows latency: a success of usual latency raises it by 40 %.
_ADMISSION_GAIN: Final = 0.2
# What an overload error leaves of the admission rate.
_ADMISSION_CUT: Final = 0.85
# The lowest admission rate: below it nothing would be left to learn from.
_LEAST_ADMISSION: Final = 0.2

# Release of parked calls. The tokens that the success of a call gives which was not parked.
_RELEASE_FRESH: Final = 2.0
# The tokens that the success of a released call gives: half more than it took, which is a slow
# start, until latency says stop (flapping, where with admission hardly any call is not parked).
_RELEASE_PARKED: Final = 1.5
# The tokens that a success gives while the usual latency is not known yet and nothing could brake
# (cold_clients, hundreds of which come back together).
_RELEASE_UNKNOWN: Final = 0.25
# The tokens that a second gives, for clients that hardly call (sparse_clients).
_RELEASE_TIME: Final = 1.0
# The most tokens that can be saved up: a small burst.
_MOST_RELEASE: Final = 4.0
# A success that took more long-run means than this gives no token: the brake (outage_refused).
_BRAKE: Final = 2.0
# The tokens above 1 that the call of least priority has to find, so that the most urgent go first.
_PATIENCE: Final = 2.5

# Retry success. The guess about an error that was never retried: 0.6 of 0.8 retries mended.
_PRIOR_MENDED: Final = 0.6
_PRIOR_RETRIES: Final = 0.8
# The memory of what retries came to: about 20 of them.
_RETRY_MEMORY: Final = 0.95
# A retry is worth its cost if it mends once in seven times (hopeless_5%).
_WORTH: Final = 0.15
# The share of hopeless retries that are sent all the same, to notice when an error has become
# mendable, and its excess at first, as a few failures in a row may be bad luck (errors_20%).
_EXPLORED: Final = 0.03
_EXPLORED_EARLY: Final = 2.0
# One object for all: a thousand origins have five such moments each.
_NEVER: Final = -math.inf
# The number of error names known at a time; beyond them the oldest makes room.
_TYPES: Final = 16


@dataclass(slots=True, eq=False)
class Health:
    """The learnt state of one origin. One loop; any thread may read.

    Down: first attempts of so many calls in a row failed that chance at the usual share of failures
        would do it once in ten thousand times. Retries of one call are next to no evidence.
    Congested: successes take 1.7 times as long as they used to. Errors that speak of overload
        lower the bar, which tells shedding load from bad luck.
    Limited: the origin has said until when it takes nothing more.
    Admission rate: the share of first attempts that a congested origin is sent, with admission. It
        follows the latency of what was sent.
    Release tokens: how many parked calls may go. Successes of usual latency earn them, slow ones do
        not, so a crowd is let go at the pace at which the origin can be seen to cope.
    Retry success rate: the share of retries that mend, by the error that they follow. A failed
        retry counts only if anything succeeded meanwhile: an outage teaches nothing about errors.
    """

    #: Failures of first attempts since the last success; retries count for a part.
    streak: float = 0.0
    #: Since when nothing succeeded, while `streak` is not 0.
    failing_since: float = 0.0
    #: Whether the streak began out of nothing, not out of congestion.
    from_nothing: bool = False
    #: Since when the origin is down, or None.
    down_since: float | None = None
    last_success: float = _NEVER
    #: When anything was last heard of the origin.
    last_known: float = _NEVER
    #: When an attempt was last sent, as far as the policy decided on it.
    last_sent: float = _NEVER
    #: Until when the origin said that it takes nothing.
    limited_until: float = _NEVER
    congested: bool = False
    congested_since: float = 0.0
    #: Share of first attempts that are sent, with admission.
    admission_rate: float = 1.0
    parked_calls: int = 0
    _failure_share: float = _USUAL_SHARE
    _overload_share: float = 0.0
    # Short-run and long-run means of latency, in seconds, and how many latencies they are made of.
    _fast: float = 0.0
    _slow: float = 0.0
    _successes: int = 0
    _release_tokens: float = 0.0
    _release_at: float = 0.0
    # Names of errors; for each, mended retries and retries, both fading. None before the first.
    _error_types: list[str] | None = None
    _retries: array[float] | None = None
    _next: int = 0

    def passed(self, successes: int) -> None:
        """Learn from successes of a quiet time: all that they teach is how rare failures are."""
        if self._overload_share:
            self._overload_share *= (1.0 - _OVERLOAD_MEMORY) ** successes
        self._failure_share *= (1.0 - _SHARE_MEMORY) ** successes

    def succeeded(self, now: float, latency: float, *, fresh: bool) -> bool:
        """Learn from an attempt that succeeded. True: an outage is over.

        Args:
            latency: seconds; negative, infinite or no number: unknown.
            fresh: it was a first attempt that had not been parked.
        """
        self.last_success = self.last_known = now
        known = 0.0 <= latency < math.inf
        over = self.streak >= SUSPICIOUS
        if over:
            # What the outage looked like is forgotten.
            self._release_tokens, self._release_at, self._overload_share = 1.0, now, 0.0
            if known and not self.congested and self._successes >= _LEAST_SUCCESSES:
                slow = self._slow
                self._fast = slow + _DAMPED * (min(latency, _CLIP * slow) - slow)
        self.streak = 0.0
        self.down_since = None
        if self._overload_share:
            self._overload_share *= 1.0 - _OVERLOAD_MEMORY
        self._failure_share *= 1.0 - _SHARE_MEMORY
        if known:
            self._time(now, latency, fresh)
        return over

    def _time(self, now: float, latency: float, fresh: bool) -> None:
        """Learn from the latency of a success."""
        slow = self._slow
        if self._successes < _LEAST_SUCCESSES:
            # A plain mean until there is enough for a moving one.
            self._successes += 1
            self._slow = self._fast = slow + (latency - slow) / self._successes
            if self._release_tokens < _MOST_RELEASE:
                self._release_tokens += _RELEASE_UNKNOWN
            return
        if latency < _BRAKE * slow:
            if self._release_tokens < _MOST_RELEASE:
                self._release_tokens += _RELEASE_FRESH if fresh else _RELEASE_PARKED
        elif latency > _CLIP * slow:
            latency = _CLIP * slow
        self._fast += _FAST * (latency - self._fast)
        if self.admission_rate < 1.0 or self.congested:
            ratio = latency / slow if slow > 0.0 else 1.0
            rate = self.admission_rate * (1.0 + _ADMISSION_GAIN * (_ADMISSION_TARGET - ratio))
            self.admission_rate = min(1.0, max(_LEAST_ADMISSION, rate))
        load = self._fast * (1.0 + _OVERLOAD_WEIGHT * self._overload_share)
        if self.congested:
            self._slow = slow + _SLOW_CONGESTED * (latency - slow)
            self.congested = load >= _RELIEVED * slow and self._fast >= _USUAL_AGAIN * slow
            return
        if self._successes * _SLOW < 1.0:
            self._successes += 1
            slow += (latency - slow) / self._successes
        else:
            slow += _SLOW * (latency - slow)
        self._slow = slow
        if load > _SLOWED * slow and self._fast > max(_LEAST_SLOWED * slow, slow + _LEAST_EXCESS):
            self.congested = True
            self.congested_since = now

    def failed(self, now: float, *, first: bool, limited: bool, overload: bool) -> None:
        """Learn from an attempt that failed: the first one of a call, or a retry.

        `limited`: the origin said to come later, so it is there and the streak does not grow.
        """
        self.last_known = now
        if limited:
            return
        if not self.streak:
            self.failing_since = now
            self.from_nothing = not self.congested
        self.streak += 1.0 if first else _WITHIN
        if self.down_since is not None:
            return
        if overload:
            self._overload_share += _OVERLOAD_MEMORY * (1.0 - self._overload_share)
            if self.congested:
                self.admission_rate = max(_LEAST_ADMISSION, self.admission_rate * _ADMISSION_CUT)
        if first:
            self._failure_share += _SHARE_MEMORY * (1.0 - self._failure_share)
            if self.streak >= _LEAST_STREAK and self.streak >= self.needed:
                self.down_since = self.failing_since

    @property
    def needed(self) -> int:
        """Failures of first attempts in a row that tell an outage from bad luck.

        The smallest n from 3 to 14 with `share ** n <= 1e-4`, for the usual share of failures.
        """
        usual = max(_USUAL_SHARE, min(_MOST_SHARE, self._failure_share))
        return max(_LEAST_STREAK, min(_MOST_STREAK, math.ceil(_SURPRISE / math.log(usual))))

    def try_release(self, now: float, priority: float) -> bool:
        """Take a token for one parked call, if there are enough for its priority (0 to 1)."""
        earned = _RELEASE_TIME * max(0.0, now - self._release_at)
        tokens = min(_MOST_RELEASE, self._release_tokens + earned)
        self._release_at = now
        if tokens < 1.0 + _PATIENCE * (1.0 - priority):
            self._release_tokens = tokens
            return False
        self._release_tokens = tokens - 1.0
        return True

    def retried(self, error_type: str, mended: bool, failed_at: float) -> None:
        """Learn what a retry after that error, which came at `failed_at`, came to."""
        if not mended and self.last_success < failed_at:
            return
        names, retries = self._error_types, self._retries
        if names is None or retries is None:
            names = self._error_types = []
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
        retries[at] = retries[at] * _RETRY_MEMORY + mended
        retries[at + 1] = retries[at + 1] * _RETRY_MEMORY + 1.0

    def worth_retrying(self, error_type: str, chance: float) -> bool:
        """Whether a retry is worth its cost; `chance` (0 to 1) picks a few of the others."""
        mended = retries = 0.0
        names = self._error_types
        if names is not None and self._retries is not None and error_type in names:
            at = 2 * names.index(error_type)
            mended, retries = self._retries[at], self._retries[at + 1]
        if (mended + _PRIOR_MENDED) / (retries + _PRIOR_RETRIES) >= _WORTH:
            return True
        return chance < max(_EXPLORED, _EXPLORED_EARLY / (1.0 + retries) ** 2)

    @property
    def overloaded(self) -> bool:
        """Whether latency alone tells overload, whatever errors say."""
        return self.congested and self._fast > _OVERLOADED * self._slow
