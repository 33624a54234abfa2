"""What is learnt of an origin: is it down, congested or limiting, and which errors retries mend.

Arithmetic over plain numbers, O(1) per attempt, less than 1 kB per origin. Each estimate starts
ignorant, on the side of retrying, and learns from what attempts come to. Where a constant was
chosen for one of the simulated conditions (benchmarks/efficacy), its comment names it; the
conditions vary every number by seed, and results change little if a constant is halved or doubled.
"""

from __future__ import annotations

import math
from array import array
from typing import Final, Literal, get_args

__all__ = ("STATES", "SUSPICIOUS", "Health", "State")

#: The word for an origin's condition, worst first.
State = Literal["down", "congested", "limited", "healthy"]
STATES: Final[tuple[State, ...]] = get_args(State)

# Down. How improbable a streak has to be, given the usual share of failures, to be no bad luck.
_SURPRISE: Final = math.log(1e-4)
# Fewer are no streak, however reliable the origin was (errors_20%).
_LEAST_STREAK: Final = 3
# More are never asked for, however unreliable it was (partial_50%).
_MOST_STREAK: Final = 14
# What a failed retry adds to the streak: four of one call (1 + 4 * 0.34) stay below the least.
_WITHIN: Final = 0.34
# From here on a streak may be a silence; one call alone gets here with its fourth attempt.
SUSPICIOUS: Final = 2.0
# The share of first attempts that fail: what is believed at first, its memory (about 50 of them),
# and how high or low it may be taken to be.
_USUAL_SHARE: Final = 0.02
_SHARE_MEMORY: Final = 0.02
_MOST_SHARE: Final = 0.9

# Congested. Weight of a latency in the mean of the newest ones: 16 tell a queue from chance.
_FAST: Final = 1 / 16
# And in the usual one: some 256 successes, so that a slow start of trouble is not taken for usual.
_SLOW: Final = 1 / 256
# While congested the usual is all but kept, yet no misjudgement lasts for ever.
_SLOW_CONGESTED: Final = 1 / 2048
# A latency counts as at most so many usual ones, so that one straggler is no congestion
# (slow_service).
_CLIP: Final = 4.0
# Congestion begins where the newest exceed the usual by so much (overload errors weighed in) ...
_SLOWED: Final = 1.7
# ... and is over where they no longer exceed it by so much (brownout, spike_1.5).
_RELIEVED: Final = 1.3
# ... and never where they exceed it by less, whatever errors say: a bad server among good ones
# gives 503 too, and then retries mend (one_bad_of_five).
_LEAST_SLOWED: Final = 1.35
# Nor where they exceed it by fewer seconds: a service of 2 ms that takes 5 for a while is no queue
# but a busy processor, here or there.
_LEAST_EXCESS: Final = 0.02
# Where latency itself is usual again it is over too, whatever errors say: else 503 by chance would
# keep alive what a few slow successes began (errors_20% where all are 503).
_USUAL_AGAIN: Final = 1.15
# Beyond that latency alone says it, and nobody waits to see whether it passes (shedding_503).
_FLOODED: Final = 1.7
# How much the share of overload errors adds: 20 % of them count as latency raised by half. A
# short queue that sheds load hardly slows anybody (shedding_503).
_OVERLOAD_WEIGHT: Final = 2.5
# Memory of that share: about 20 attempts.
_OVERLOAD_MEMORY: Final = 0.05
# Latencies of fewer successes say nothing yet.
_LEAST_SUCCESSES: Final = 16
# Of the first latency after a silence so much is believed: what was before says little, but so
# does a single one.
_DAMPED: Final = 0.25
# Without a success for so long, seconds, latency says nothing any more.
_STALE: Final = 10.0
# While all is well this many latencies a second are enough to learn from; the rest cost nothing.
_LOOKS: Final = 50.0

# Flow, with admission. Latency at which it neither grows nor shrinks, in usual ones: busy but not
# drowning (at 0.6 of its speed an idle origin takes 1.7; brownout).
_FLOW_TARGET: Final = 3.0
# How fast it follows: a success of usual latency raises it by 40 %.
_FLOW_GAIN: Final = 0.2
# What an overload error leaves of it.
_FLOW_CUT: Final = 0.85
# It never falls lower, or there would be nothing left to learn from.
_LEAST_FLOW: Final = 0.2

# Release of held calls. Credit that the success of a call that was not held gives: two calls.
_CREDIT_FRESH: Final = 2.0
# A released call's own gives half more than it took: a slow start, until latency says stop
# (flapping, where with admission hardly any call is not held).
_CREDIT_HELD: Final = 1.5
# While the usual latency is not known yet nothing could brake, so a success gives little
# (cold_clients, hundreds of which come back together).
_CREDIT_UNKNOWN: Final = 0.25
# And time gives, per second, for clients that hardly call (sparse_clients).
_CREDIT_TIME: Final = 1.0
# What can be saved up: a small burst.
_MOST_CREDIT: Final = 4.0
# A success that took longer than so many usual ones gives none: the brake (outage_refused).
_BRAKE: Final = 2.0
# Credit beyond 1 that the least urgent call has to find: the most urgent ones go first.
_PATIENCE: Final = 2.5

# Promise. What a type that was never retried is believed to be worth: 0.6 of 0.8 retries mended.
_PRIOR_MENDED: Final = 0.6
_PRIOR_RETRIES: Final = 0.8
# Memory of what retries came to: about 20 of them.
_PROMISE_MEMORY: Final = 0.95
# A retry is worth its cost if it mends once in seven times (hopeless_5%).
_PROMISING: Final = 0.15
# So many are tried all the same, to notice when a type has become mendable; more while little is
# known, as a few failures in a row may be bad luck (errors_20%).
_EXPLORED: Final = 0.03
_EXPLORED_EARLY: Final = 2.0
# One object for all: a thousand origins have five such moments each.
_NEVER: Final = -math.inf
# Error types known at a time; beyond them the oldest makes room.
_TYPES: Final = 16


class Health:
    """The learnt state of one origin. One loop; `state` may be read from any thread.

    Down: first attempts of so many calls in a row failed, with no success of any kind between,
    that chance at the usual share of failures would do it once in ten thousand times. Retries of
    one call are next to no evidence, however many.

    Congested: successes take 1.7 times as long as they used to; errors that speak of overload
    lower the bar. It tells shedding load from bad luck.

    Limited: the origin has said until when it takes nothing more.

    Flow: the share of first attempts that a congested origin is sent, with admission. It follows
    the latency of what was sent.

    Credit: how many held calls may go. Successes of usual latency earn it, slow ones don't, so a
    crowd that waited is let go at the pace at which the origin can be seen to cope.

    Promise: the share of retries that mend, by the type of the error they follow. A failed retry
    counts only if anything succeeded meanwhile: an outage teaches nothing about types.
    """

    __slots__ = (
        "_codes",
        "_credit",
        "_credit_at",
        "_failure_share",
        "_fast",
        "_learnt",
        "_next",
        "_overload_share",
        "_slow",
        "_successes",
        "calm_until",
        "congested",
        "congested_since",
        "down_since",
        "failing_since",
        "flow",
        "held",
        "last_known",
        "last_sent",
        "last_success",
        "limited_until",
        "silent",
        "streak",
    )

    def __init__(self) -> None:
        #: Before this moment a success would teach nothing but that it was one (`passed`).
        self.calm_until = _NEVER
        #: Failures of first attempts since the last success; retries count for a part.
        self.streak = 0.0
        #: Since when nothing succeeded, while `streak` is not 0.
        self.failing_since = 0.0
        #: Whether the streak began out of nothing, not out of congestion.
        self.silent = False
        #: Since when the origin is down, or None.
        self.down_since: float | None = None
        self.last_success = _NEVER
        #: When anything was last heard of the origin.
        self.last_known = _NEVER
        #: When an attempt was last sent, as far as it was decided on here.
        self.last_sent = _NEVER
        #: Until when the origin said that it takes nothing.
        self.limited_until = _NEVER
        self.congested = False
        self.congested_since = 0.0
        #: Share of first attempts that are sent, with admission.
        self.flow = 1.0
        #: Calls that are being held.
        self.held = 0
        self._failure_share = _USUAL_SHARE
        self._overload_share = 0.0
        self._fast = 0.0
        self._slow = 0.0
        self._successes = 0
        self._credit = 0.0
        self._credit_at = 0.0
        # Codes of error types; for each, retries that mended and retries, both fading. None before
        # the first retry.
        self._codes: bytearray | None = None
        self._learnt: array[float] | None = None
        self._next = 0

    def passed(self, successes: int) -> None:
        """Successes of a calm time: all they teach is how rare failures are."""
        if self._overload_share:
            self._overload_share *= (1.0 - _OVERLOAD_MEMORY) ** successes
        self._failure_share *= (1.0 - _SHARE_MEMORY) ** successes

    def succeeded(self, now: float, latency: float, *, fresh: bool) -> bool:
        """An attempt succeeded, `latency` seconds after it was sent. True: a silence is over.

        Args:
            now: the clock's reading.
            latency: seconds; negative, infinite or no number: unknown.
            fresh: it was a first attempt that had not been held.
        """
        self.last_success = self.last_known = now
        known = 0.0 <= latency < math.inf
        over = False
        if self.streak:
            over = self.streak >= SUSPICIOUS
            if over:
                self._revive(now, latency if known else None)
            self.streak = 0.0
            self.down_since = None
        self.passed(1)
        if known:
            self._time(now, latency, fresh)
        if not self.congested and not self.held and self.flow >= 1.0:
            self.calm_until = now + 1.0 / _LOOKS
        return over

    def _revive(self, now: float, latency: float | None) -> None:
        """The first success after a silence: forget what the silence looked like."""
        self._credit = 1.0
        self._credit_at = now
        self._overload_share = 0.0
        if latency is not None and not self.congested and self._successes >= _LEAST_SUCCESSES:
            slow = self._slow
            self._fast = slow + _DAMPED * (min(latency, _CLIP * slow) - slow)

    def _time(self, now: float, latency: float, fresh: bool) -> None:
        """Learn from the latency of a success."""
        slow = self._slow
        if self._successes < _LEAST_SUCCESSES:
            # A plain mean until there is enough for a moving one.
            self._successes += 1
            self._slow = self._fast = slow + (latency - slow) / self._successes
            self._earn(_CREDIT_UNKNOWN)
            return
        if latency < _BRAKE * slow:
            self._earn(_CREDIT_FRESH if fresh else _CREDIT_HELD)
        elif latency > _CLIP * slow:
            latency = _CLIP * slow
        self._fast += _FAST * (latency - self._fast)
        if self.flow < 1.0 or self.congested:
            ratio = latency / slow if slow > 0.0 else 1.0
            flow = self.flow * (1.0 + _FLOW_GAIN * (_FLOW_TARGET - ratio))
            self.flow = min(1.0, max(_LEAST_FLOW, flow))
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

    def _earn(self, credit: float) -> None:
        if self._credit < _MOST_CREDIT:
            self._credit += credit

    def failed(self, now: float, *, first: bool, limited: bool, overload: bool) -> None:
        """An attempt failed: a call's first one or a retry.

        `limited`: the origin said to come later, so it is there and the streak does not grow.
        `overload`: the error is one that a flooded origin gives.
        """
        self.last_known = now
        self.calm_until = _NEVER
        if limited:
            return
        if not self.streak:
            self.failing_since = now
            self.silent = not self.congested
        self.streak += 1.0 if first else _WITHIN
        if self.down_since is not None:
            return
        if overload:
            self._overload_share += _OVERLOAD_MEMORY * (1.0 - self._overload_share)
            if self.congested:
                self.flow = max(_LEAST_FLOW, self.flow * _FLOW_CUT)
        if first:
            self._failure_share += _SHARE_MEMORY * (1.0 - self._failure_share)
            if self.streak >= self.needed:
                self.down_since = self.failing_since

    @property
    def needed(self) -> int:
        """Failures of first attempts in a row that tell an outage from bad luck.

        The smallest n with `share ** n <= 1e-4`, the share being that of first attempts that
        usually fail; 3 at least, 14 at most.
        """
        usual = max(_USUAL_SHARE, min(_MOST_SHARE, self._failure_share))
        return max(_LEAST_STREAK, min(_MOST_STREAK, math.ceil(_SURPRISE / math.log(usual))))

    def release(self, now: float, urgency: float) -> bool:
        """Take the credit for one held call, if there is enough for its urgency (0 to 1)."""
        credit = min(_MOST_CREDIT, self._credit + _CREDIT_TIME * max(0.0, now - self._credit_at))
        self._credit_at = now
        if credit < 1.0 + _PATIENCE * (1.0 - urgency):
            self._credit = credit
            return False
        self._credit = credit - 1.0
        return True

    def retried(self, code: int, mended: bool, failed_at: float) -> None:
        """A retry after an error of type `code`, which came at `failed_at`, has ended."""
        if not mended and self.last_success < failed_at:
            return
        codes, learnt = self._codes, self._learnt
        if codes is None or learnt is None:
            codes = self._codes = bytearray()
            learnt = self._learnt = array("f")
        at = 2 * codes.find(code)
        if at < 0:
            if len(codes) < _TYPES:
                at = 2 * len(codes)
                codes.append(code)
                learnt.extend((0.0, 0.0))
            else:
                at = 2 * self._next
                codes[self._next] = code
                self._next = (self._next + 1) % _TYPES
                learnt[at] = learnt[at + 1] = 0.0
        learnt[at] = learnt[at] * _PROMISE_MEMORY + mended
        learnt[at + 1] = learnt[at + 1] * _PROMISE_MEMORY + 1.0

    def promise(self, code: int) -> float:
        """Share of retries that mend an error of this type, as far as it is known."""
        mended, retries = self._known(code)
        return (mended + _PRIOR_MENDED) / (retries + _PRIOR_RETRIES)

    def promising(self, code: int, chance: float) -> bool:
        """Whether a retry is worth its cost; `chance` (0 to 1) picks a few of the others."""
        if self.promise(code) >= _PROMISING:
            return True
        _, retries = self._known(code)
        return chance < max(_EXPLORED, _EXPLORED_EARLY / (1.0 + retries) ** 2)

    def _known(self, code: int) -> tuple[float, float]:
        codes, learnt = self._codes, self._learnt
        if codes is None or learnt is None:
            return 0.0, 0.0
        at = 2 * codes.find(code)
        return (0.0, 0.0) if at < 0 else (learnt[at], learnt[at + 1])

    @property
    def flooded(self) -> bool:
        """Whether latency alone tells overload, whatever errors say."""
        return self.congested and self._fast > _FLOODED * self._slow

    def state(self, now: float) -> State:
        """The origin's state in a word."""
        if self.down_since is not None:
            return "down"
        if self.congested and now - self.last_success < _STALE:
            return "congested"
        if self.limited_until > now:
            return "limited"
        return "healthy"
