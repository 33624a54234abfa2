"""The adaptive policy: when a call is sent, held or given up.

1. A failure that a retry may mend is retried after a short jittered wait, if the flow of retries
   has a token for it. Successes earn tokens; a retry that mends gives its token back (cost.py).
2. What hardly ever mends is given up at once. So is an error of overload while the origin is
   congested, and a time-out that was only slow, as a retry would make all that worse.
3. In an outage a call is held for a small part of its time, until another call's success shows that
   the origin is back. Held calls are let go at the pace of successes of usual latency.
4. Where nobody brings news, or no token is left, a failed call looks for itself, after growing
   pauses. So a lone caller is retried as by a plain loop, and a crowd hardly looks at all.
5. Where callers wait for their answers before they call again, their retries add no load. They take
   no token, and wait a little longer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from ..config import AdaptiveConfig
from .cost import RetryFlow, full_jitter, jittered_retry_after, poll_pause, time_of
from .estimators import Callers, Latency, Mending, Outage
from .protocol import SEND, Action, AttemptOutcome, CallView, GiveUp, Reason, State, Wait
from .state import CallState, Decision
from .tuning import TUNING, Tuning

# While all is well one success in so many seconds is learnt from; the others cost nothing.
_QUIET: Final = 1 / 50.0
#: Calls held at a time for one origin; each holds its request, and perhaps an answer of 16 kB.
MOST_HELD: Final = 1000


class AdaptivePolicy:
    """Implements `Policy` for one origin. One loop; nothing suspends; everything is O(1).

    Args:
        config, now: the fields about retries, budget and admission; the clock's reading.
        random: a number from 0 to 1, for jitter and exploration.
    """

    __slots__ = (
        "_config",
        "_flow",
        "_held_calls",
        "_last_look",
        "_limited_until",
        "_random",
        "_release",
        "_tuning",
        "_unmended",
        "callers",
        "latency",
        "mending",
        "outage",
        "quiet_until",
    )

    def __init__(
        self,
        config: AdaptiveConfig,
        now: float,
        random: Callable[[], float],
        tuning: Tuning = TUNING,
    ) -> None:
        self._config, self._random, self._tuning = config, random, tuning
        self._flow = RetryFlow(config, now, tuning)
        self.outage = Outage(tuning)
        self.latency = Latency(tuning)
        self.callers = Callers(tuning)
        self.mending = Mending(tuning)
        self._unmended = ""  # The error of a retry that failed while nothing succeeded.
        self._held_calls = 0
        self._release = 0.0  # Held calls that may be let go now.
        # When the newest call looks or looked for itself.
        self._last_look = self._limited_until = -math.inf
        #: Before this moment a first success may be written down, and told by `catch_up`.
        self.quiet_until = -math.inf

    def arrive(self, now: float, call: CallView) -> Action:
        """Send."""
        return SEND

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Learn from the attempt; after a failure, decide."""
        if outcome.ok:
            self.succeeded(now, outcome.latency, call.state)
            return SEND
        if outcome.reused_connection and outcome.replayable:
            # The connection was lost while nobody used it, which says nothing about the origin.
            return SEND
        if outcome.reused_connection:
            self.cancel(now, call)
            return GiveUp("not_retryable")
        state = self._failed(now, call, outcome)
        return self._apply(now, state, self._decide(now, call, state, self._chance()))

    def wake(self, now: float, call: CallView) -> Action:
        """Send what has waited for its turn; decide again on what was held."""
        state: CallState | None = call.state
        if state is None or not state.held:
            return SEND
        self._flow.refill(now)
        decision = self._await_news(now, call, state, self._chance(), "origin_down")
        return self._apply(now, state, decision)

    def cancel(self, now: float, call: CallView) -> None:
        """Take back the tokens and the place of a call that ends without an outcome."""
        if call.state is not None:
            self._end(now, call.state)

    # What it learns.

    def catch_up(self, successes: int) -> None:
        """Learn from successes of a quiet time, which were only written down."""
        self._flow.earn(successes)
        self.outage.passed(successes)
        self.callers.passed(successes)

    def succeeded(self, now: float, latency: float, state: CallState | None = None) -> None:
        """Learn from one success; `state` is its call's, if that failed before."""
        if state is None and now < self.quiet_until:
            self.catch_up(1)
            return
        tuning, flow = self._tuning, self._flow
        if self.outage.succeeded(now):
            self.latency.outage_over()
            self._release = 1.0
            # Held calls need tokens, and the outage may have used them up.
            flow.give_back(max(0.0, 1.0 - flow.tokens))
        slow = self.latency.succeeded(latency)
        flow.earn()
        if state is not None:
            self.mending.retried(state.failure.error_type, True)
        else:
            self.callers.called(now)
            if self._unmended:
                # The next call succeeds at once, so the failed one could not be mended.
                self.mending.retried(self._unmended, False)
        self._unmended = ""
        if self.latency.congested:
            flow.cut_share()
        elif not slow:
            if state is not None:
                flow.raise_share()
            if self._release < tuning.release_most:
                fresh = state is None or not state.held_seconds
                self._release += tuning.release if fresh else tuning.release_mended
        if state is not None:
            self._end(now, state)
        if not self.latency.congested and not self.callers.pending:
            self.quiet_until = now + _QUIET

    def _failed(self, now: float, call: CallView, outcome: AttemptOutcome) -> CallState:
        """Learn from one failure."""
        tuning, outage, flow = self._tuning, self.outage, self._flow
        self.quiet_until = -math.inf
        flow.refill(now)
        state: CallState | None = call.state
        if state is None:
            time, hold = time_of(now, call.deadline, self._config, tuning)
            look_until = now + tuning.look_share * time
            state = call.state = CallState(outcome, now, time, now + hold, look_until)
            self.callers.failed(now, outcome.latency)
            if getattr(call, "is_resend", False):
                # Another layer's retry takes a token, as our own would, and is held no more.
                flow.take(min(1.0, flow.tokens))
                state.hold_until = state.look_until = now
        else:
            if outage.last_success >= state.failed_at:
                self.mending.retried(state.failure.error_type, False)
            else:
                # While nothing succeeds, a retry that fails teaches nothing yet.
                self._unmended = state.failure.error_type
            if outcome.overload:
                flow.cut_share()
            # It has cost its tokens.
            state.paid = state.held_seconds = 0.0
            state.failures, state.failure, state.failed_at = state.failures + 1, outcome, now
        state.timed_out = outcome.overload and outcome.no_response
        # Who never saw a success can't have more than one token.
        state.price = tuning.timeout_price if state.timed_out and self.latency.successes else 1.0
        if outcome.limited:
            # Whoever says so is there.
            outage.last_known = now
            if outcome.retry_after is not None:
                until = now + min(outcome.retry_after, self._config.retry_after_cap)
                self._limited_until = max(self._limited_until, until)
            return state
        outage.failed(now, first=state.failures == 1)
        if outage.down_since is not None:
            flow.hold_down(tuning.outage_tokens)
        return state

    # What it decides. These change nothing.

    def _decide(self, now: float, call: CallView, state: CallState, chance: float) -> Decision:
        """What is to be done with a call that has just failed: the rules in their order.

        `chance`, from 0 to 1, picks what is explored, and jitters the wait.
        """
        tuning, failure, outage = self._tuning, state.failure, self.outage
        if not failure.replayable:
            return Decision(GiveUp("not_retryable"))
        longest, limited = self._config.retry_after_cap, failure.limited
        if failure.retry_after is not None:
            if call.deadline is not None and failure.retry_after >= call.deadline - now:
                return Decision(GiveUp("deadline"))
            if failure.retry_after > longest:
                return Decision(GiveUp("retry_after"))
        serial = self.callers.wait
        worth = tuning.worth_limited if limited and not serial else tuning.worth
        if not self.mending.mends(failure.error_type, worth, chance):
            return Decision(GiveUp("limited" if limited else "unpromising"))
        down = outage.down_since is not None
        if failure.overload and not serial and not down:
            slow = state.timed_out and not self.latency.is_lost(failure.latency)
            if slow or self.latency.congested:
                return Decision(GiveUp("congested"))
        if limited:
            return self._retry(now, call, state, chance, serial)
        if state.timed_out:
            latency = failure.latency if failure.latency > 0.0 else 0.0
            down = down or (outage.streak > 1.0 and outage.last_success < now - latency)
        elif failure.no_response:
            # One refusal alone may be a blip.
            down = down or outage.streak > 1.0
        if down:
            return self._await_news(now, call, state, chance, "origin_down")
        return self._retry(now, call, state, chance, serial)

    def _retry(
        self, now: float, call: CallView, state: CallState, jitter: float, serial: bool
    ) -> Decision:
        """Retry after a jittered wait, if the flow has tokens for it."""
        tuning, config, failure = self._tuning, self._config, state.failure
        longest = math.inf if call.deadline is None else call.deadline - now
        if failure.retry_after:
            seconds = max(failure.retry_after, self._limit(now) if failure.limited else 0.0)
            wait = jittered_retry_after(seconds, state.failures, jitter, config.retry_after_cap)
            if wait >= longest:
                return Decision(GiveUp("deadline"))
        else:
            retry = state.failures
            wait = full_jitter(retry, config.backoff_base, config.backoff_cap, jitter)
            if failure.limited:
                # A limiter that names no time has windows of seconds.
                wait = max(wait, (0.5 + 0.5 * jitter) * 2.0 ** min(retry - 1, 8))
            if serial and (retry > 1 or self.outage.streak > 1.0):
                wait = max(wait, min(1.0, tuning.serial_share * state.time))
            wait = min(wait, config.backoff_cap, tuning.look_share * max(0.0, longest))
        price = 0.0 if serial else state.price
        if self._flow.tokens < price:
            if not (failure.limited or state.timed_out):
                return self._await_news(now, call, state, jitter, "budget_exhausted")
            return Decision(GiveUp("budget_exhausted"))
        return Decision(Wait(wait, committed=True) if wait > 0.0 else SEND, price)

    def _await_news(
        self, now: float, call: CallView, state: CallState, jitter: float, reason: Reason
    ) -> Decision:
        """Hold a call until another's success shows that the origin is back, or let it look."""
        tuning, outage, failure = self._tuning, self.outage, state.failure
        price = state.price
        affordable = self._flow.tokens >= price
        # Time passes as the clock says, and at least as the call was asked to wait.
        now = max(state.failed_at + state.held_seconds, now)
        left = math.inf if call.deadline is None else call.deadline - now
        is_back = not outage.streak and outage.last_success >= state.failed_at
        if is_back and affordable:
            # Where successes are slow they let nobody go; then silence does, one call at a time.
            silent = now - max(outage.last_known, self._last_look) >= tuning.look_least
            if silent or self._release >= 1.0:
                return Decision(SEND, price, released=True, look=silent)
        began = outage.failing_since if outage.streak else state.failed_at
        # Nobody's news has come since the call failed.
        alone = outage.last_known <= state.failed_at
        until_look = self._until_look(now, state, began, jitter)
        may_look = not is_back and now + until_look <= state.look_until and until_look < left
        if state.timed_out and not self.callers.wait:
            may_look = may_look and affordable
        else:
            price = 0.0
        if may_look and until_look <= 0.0:
            return Decision(SEND, price, look=True)
        if not failure.can_wait or self._config.hold_cap <= 0.0:
            wait = Wait(max(0.0, until_look), committed=True)
            look = may_look and alone
            return Decision(wait, price, look=True) if look else Decision(GiveUp(reason))
        if is_back:
            # It waits for its turn.
            hold_until = state.look_until
        else:
            hold_until = state.hold_until
            length = hold_until - state.failed_at
            too_old = now - began > tuning.hold_young * length
            if too_old or (alone and self.callers.rate * length < 1.0):
                hold_until = -math.inf
        # Where the clock gives no number it is not before then either.
        if not now < hold_until and not (may_look and alone):
            return Decision(GiveUp(reason))
        pause = poll_pause(now, now - began, jitter, self._held_calls, tuning)
        if may_look:
            # Who is alone wakes for its look; of a crowd one is always awake soon enough.
            pause = min(pause, until_look + jitter * self._held_calls / tuning.polls)
        if now < hold_until:
            pause = min(pause, hold_until - now)
        return Decision(Wait(pause) if pause < left else GiveUp("deadline"))

    def _until_look(self, now: float, state: CallState, began: float, jitter: float) -> float:
        """Seconds until a failed call looks for itself, if no news comes before."""
        tuning = self._tuning
        heard = max(self.outage.last_known, self._last_look)
        pause = max(tuning.look_least, tuning.look_growth * (heard - began))
        if heard <= began:
            # The first look is a plain loop's first retry.
            pause = jitter * self._config.backoff_base
        if self.callers.wait and (state.failures == 1 or now - began < state.time):
            pause = min(pause, tuning.serial_share * state.time)
        # The newest look may lie ahead.
        wait = heard + pause - now
        longest = max(self._config.backoff_cap, self._config.hold_cap)
        return wait if max(pause, wait) <= longest else math.inf

    def _limit(self, now: float) -> float:
        """Seconds for which the origin wants to be left alone; 0 if it does not say so."""
        left = self._limited_until - now
        return left if 0.0 < left <= self._config.retry_after_cap else 0.0  # Else a clock leapt.

    def _apply(self, now: float, state: CallState, decision: Decision) -> Action:
        """Do what was decided."""
        action = decision.action
        if isinstance(action, Wait) and not action.committed:
            if not state.held and self._held_calls >= MOST_HELD:
                self._end(now, state)
                return GiveUp("origin_down")
            if not state.held:
                state.held = True
                self._held_calls += 1
            state.held_seconds += action.seconds
            return action
        if isinstance(action, GiveUp):
            self._end(now, state)
            return action
        if state.held:
            state.held = False
            self._held_calls -= 1
        if decision.price and self._flow.take(decision.price):
            state.paid = decision.price
        if decision.released:
            self._release = max(0.0, self._release - 1.0)
        if decision.look:
            self._last_look = now + (action.seconds if isinstance(action, Wait) else 0.0)
        return action

    def _end(self, now: float, state: CallState) -> None:
        """Take back what a call has; idempotent."""
        if state.held:
            state.held = False
            self._held_calls -= 1
        if state.paid:
            self._flow.give_back(state.paid)
            state.paid = 0.0
        if not state.ended:
            state.ended = True
            self.callers.ended(now)

    def _chance(self) -> float:
        """A number from 0 to 1, whatever the injected source gives."""
        chance = self._random()
        return chance if 0.0 <= chance <= 1.0 else 1.0

    # What is shown. Any thread may read.

    @property
    def is_troubled(self) -> bool:
        """Whether a call that fails now may be held."""
        return bool(self.outage.streak) or self.latency.congested

    def state(self, now: float) -> State:
        """The origin's state in a word."""
        if self.outage.down_since is not None:
            return "down"
        if self.latency.congested:
            return "congested"
        return "limited" if self._limit(now) > 0.0 else "down" if self._held_calls else "healthy"

    @property
    def parked_calls(self) -> int:
        """Calls that are held now."""
        return self._held_calls

    def tokens_at(self, now: float, successes: int) -> float:
        """Tokens, with so many successes that `catch_up` has not been told."""
        return self._flow.balance(now, successes)

    @property
    def capacity(self) -> float:
        """The most tokens that there can be."""
        return self._flow.capacity
