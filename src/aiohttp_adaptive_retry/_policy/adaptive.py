"""The adaptive policy: when a call is sent, parked or given up.

An attempt that failed with an answer is retried after a short, growing, jittered wait, unless
retries after its error hardly ever mend, or the error speaks of overload and successes stay slow. A
call that got no answer, like any failed call while the origin is down, is parked: it asks again and
again (`wake`) until the success of another call shows that the origin is back or, where hardly
anybody else calls, until a probe finds out. Parked calls cost the origin nothing. They are let go
at the pace of successes of usual latency, the most urgent first; no call is parked for more than
`hold_cap` seconds, or once the trouble is older than 40 s. Every retry needs a token, which
successes earn, and which comes back only if the retry mends. What a server asks for in Retry-After
is waited for or handed to the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..config import AdaptiveConfig
from .cost import RetryBudget, full_jitter, jittered_retry_after
from .health import SUSPICIOUS, Health
from .protocol import SEND, Action, AttemptOutcome, CallView, GiveUp, Reason, State, Wait

# Trouble that has lasted for t seconds typically lasts for t more. At 0.025 for a second's wait
# against 0.9 for a success, parking pays up to 36 s.
_YOUNG: Final = 40.0
# A failed call finds out by itself after so many seconds without news.
_PROBE_AFTER: Final = 4.5
# A probe waits for this share of the trouble's age, so that few of them tell of a long outage
# (sparse_clients, quiet_outage).
_PROBE_GROWTH: Final = 0.4
# A call that met overload waits so many seconds for relief. Congestion that chance feigned is over
# by then (errors_20% where all are 503 or time-outs); real congestion costs little (shedding_503).
_RELIEF: Final = 1.5
# The seconds between two looks of a call that waits for relief.
_RELIEF_POLL: Final = 0.2
# A parked call asks again after this share of the trouble's age, within the two bounds below: its
# wait is little longer than the trouble (blips_200ms), and a crowd costs little work.
_POLL_SHARE: Final = 0.05
_POLL_LEAST: Final = 0.05
_POLL_MOST: Final = 0.5
# All parked calls together ask no more often a second than this: a tenth of a processor.
_MOST_POLLS: Final = 4000.0
# A failure with no news for so many seconds before it: no other call will bring news either.
_SPARSE_AFTER: Final = 5.0
# While all is well one success in so many seconds is learnt from; the others cost nothing.
_QUIET: Final = 1 / 50.0
#: Calls parked at a time for one origin; each holds its request, and perhaps an answer of 16 kB.
MOST_PARKED: Final = 1000


@dataclass(slots=True, eq=False)
class CallState:
    """What the policy remembers of one call, from its first failure or its parking to its end."""

    failures: int = 0
    #: Whether a token is reserved for a retry that has not been judged yet.
    token_reserved: bool = False
    #: The newest failure, and when it came.
    error_type: str = ""
    failed_at: float = 0.0
    #: The call was told to come later, and waits for that moment.
    awaiting_limit: bool = False
    #: The call met overload while the origin was congested, and waits for that to pass.
    awaiting_relief: bool = False
    #: Nothing had been heard of the origin for long when the call failed first.
    sparse: bool = False
    parked: bool = False
    #: Seconds that the call was asked to wait while parked; the clock may stand still or leap.
    parked_seconds: float = 0.0


class AdaptivePolicy:
    """Implements `Policy` for one origin. One loop; nothing suspends; everything is O(1).

    Args:
        config, now: the fields about retries, budget and admission; the clock's reading.
        random: a number from 0 to 1, for jitter and exploration.
    """

    __slots__ = ("_budget", "_config", "_random", "health", "quiet_until")

    def __init__(self, config: AdaptiveConfig, now: float, random: Callable[[], float]) -> None:
        self._config, self._random = config, random
        self._budget = RetryBudget(config, now)
        #: Before this moment a first success may be written down, and told by `catch_up`.
        self.quiet_until = -math.inf
        self.health = Health()

    def arrive(self, now: float, call: CallView) -> Action:
        """Send."""
        return SEND

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Learn from the attempt; after a failure, decide. The rules stand in their order."""
        state = call.state
        if outcome.ok:
            self.succeeded(now, outcome.latency, state)
            return SEND
        if state is None:
            state = call.state = CallState()
        health, config, longest = self.health, self._config, self._config.retry_after_cap
        overload, limited, retry_after = outcome.overload, outcome.limited, outcome.retry_after
        can_wait = outcome.can_wait and config.hold_cap > 0.0
        if state.failures:
            health.retried(state.error_type, False, state.failed_at)
        else:
            state.sparse = now - health.last_known > _SPARSE_AFTER
        state.failures = retry = state.failures + 1
        # The retry that has failed has cost its token.
        state.token_reserved = False
        self.quiet_until = -math.inf
        health.failed(now, first=retry == 1, limited=limited, overload=overload)
        state.error_type, state.failed_at = outcome.error_type, now
        state.awaiting_limit = limited and retry_after is not None
        state.awaiting_relief = False
        if limited and retry_after is not None:
            health.limited_until = max(health.limited_until, now + min(retry_after, longest))
        if not outcome.replayable:
            return GiveUp("not_retryable")
        if retry_after is not None:
            if call.deadline is not None and retry_after >= call.deadline - now:
                return GiveUp("deadline")
            if retry_after > longest:
                return GiveUp("retry_after")
        if not health.worth_retrying(outcome.error_type, self._random()):
            return GiveUp("limited" if limited else "unpromising")
        if state.awaiting_limit and can_wait:
            return self._await_limit(now, call, state)
        # An outage that came out of nothing is one, whatever the latency was before.
        outage = health.streak >= SUSPICIOUS and health.from_nothing
        if overload and health.congested and not outage:
            if can_wait:
                state.awaiting_relief = True
                return self._await_relief(now, call, state)
            return GiveUp("congested")
        # One refusal alone may be a blip. A time-out has cost so much time that no blip is left.
        unanswered = outcome.no_response and (overload or health.streak > 1.0)
        if not limited and (unanswered or health.down_since is not None):
            if can_wait:
                return self._await_news(now, call, state)
            if health.down_since is not None and self._until_probe(now, state) > 0.0:
                return GiveUp("origin_down")
        if retry_after is None:
            wait = full_jitter(retry, config.backoff_base, config.backoff_cap, self._random)
        else:
            wait = jittered_retry_after(retry_after, retry, self._random(), longest)
        return self._retry(now, call, state, wait)

    def wake(self, now: float, call: CallView) -> Action:
        """Send what has waited for its turn; decide again on what was parked."""
        state = call.state
        if state is None or not state.parked:
            return SEND
        action = self._resume(now, call, state)
        if type(action) is not Wait:
            self._unpark(state)
            if type(action) is GiveUp:
                self._give_back(state)
        return action

    def cancel(self, now: float, call: CallView) -> None:
        """Take back the token and the parking place of a call that ends without an outcome."""
        if (state := call.state) is not None:
            self._unpark(state)
            self._give_back(state)

    @property
    def is_troubled(self) -> bool:
        """Whether a call that fails now may be parked."""
        return bool(self.health.streak) or self.health.congested

    def catch_up(self, successes: int) -> None:
        """Learn from successes of a quiet time, which were only written down."""
        self._budget.deposit(successes)
        self.health.passed(successes)

    def succeeded(self, now: float, latency: float, state: CallState | None = None) -> None:
        """Learn from one success; `state` is its call's, if that was parked or failed before."""
        health, budget = self.health, self._budget
        if state is None or not state.failures:
            if now < self.quiet_until:
                self.catch_up(1)
                return
            fresh = state is None or not state.parked_seconds
            over = health.succeeded(now, latency, fresh=fresh)
            budget.deposit()
        else:
            over = health.succeeded(now, latency, fresh=False)
            health.retried(state.error_type, True, state.failed_at)
            if state.token_reserved:
                state.token_reserved = False
                budget.reward()
        if over:
            # Parked calls need tokens, and the outage may have used them up.
            budget.give_back()
        if not health.congested and not health.parked_calls and health.admission_rate >= 1.0:
            self.quiet_until = now + _QUIET

    def state(self, now: float) -> State:
        """The origin's state in a word, by what the rules go by. Any thread."""
        if self.health.down_since is not None:
            return "down"
        if self.health.congested:
            return "congested"
        return "limited" if self._limit(now) > 0.0 else "healthy"

    @property
    def parked_calls(self) -> int:
        """Calls that are parked now. Any thread."""
        return self.health.parked_calls

    def tokens_at(self, now: float, successes: int) -> float:
        """What the budget holds, with so many successes that `catch_up` has not been told."""
        return self._budget.balance(now, successes)

    @property
    def capacity(self) -> float:
        """The most tokens that the budget can hold."""
        return self._budget.capacity

    def _resume(self, now: float, call: CallView, state: CallState) -> Action:
        """Decide again on a parked call that failed."""
        if state.awaiting_relief:
            return self._await_relief(now, call, state)
        if not state.awaiting_limit:
            return self._await_news(now, call, state)
        if self._limit(now) > 0.0:
            return self._await_limit(now, call, state)
        # The call was told when to come, so its deadline was looked at before the wait.
        return self._retry(now, None, state)

    def _await_news(self, now: float, call: CallView, state: CallState) -> Action:
        """A call that failed waits for its origin to come back, or finds out."""
        health = self.health
        affordable = self._budget.balance(now) >= 1.0
        if not health.streak and health.last_success >= state.failed_at:
            # The origin is back.
            if affordable and health.try_release(now, self._priority(now, call, state)):
                return self._retry(now, None, state)
            return self._park(now, call, state, now - state.failed_at, "origin_down")
        age = now - (health.failing_since if health.streak else state.failed_at)
        if age > _YOUNG:
            return GiveUp("origin_down")
        wait = self._until_probe(now, state)
        if wait <= 0.0 and affordable:
            return self._retry(now, None, state)
        in_time = call.deadline is None or wait < call.deadline - now
        parkable = wait < self._config.hold_cap - state.parked_seconds
        if state.sparse and not (affordable and parkable and in_time):
            # Nobody will bring news.
            return GiveUp("origin_down")
        return self._park(now, call, state, age, "origin_down")

    def _await_relief(self, now: float, call: CallView, state: CallState) -> Action:
        """A call that met overload waits a moment for it to pass."""
        health, priority = self.health, self._priority(now, call, state)
        if not health.congested and health.try_release(now, priority):
            return self._retry(now, call, state)
        waited = now - state.failed_at >= _RELIEF or state.parked_seconds >= self._config.hold_cap
        if health.overloaded or waited:
            return GiveUp("congested")
        return self._ask_again(now, call, state, _RELIEF_POLL, "congested")

    def _await_limit(self, now: float, call: CallView, state: CallState) -> Action:
        """Wait for the moment that the origin named; those of least priority spread furthest."""
        longest = self._config.retry_after_cap
        lateness = (1.0 - self._priority(now, call, state)) * self._random()
        delay = jittered_retry_after(self._limit(now), state.failures or 1, lateness, longest)
        if call.deadline is not None and delay >= call.deadline - now:
            return GiveUp("deadline")
        if state.parked_seconds and state.parked_seconds + delay > longest:
            return GiveUp("limited")
        # Before the wait: a call that can't afford the retry need not wait for it.
        if state.failures and not state.token_reserved:
            if not self._budget.try_withdraw(now):
                return GiveUp("budget_exhausted")
            state.token_reserved = True
        return self._parked(state, delay, "limited")

    def _retry(
        self, now: float, call: CallView | None, state: CallState, delay: float = 0.0
    ) -> Action:
        """Reserve a token and retry; `call` is None where its deadline does not matter."""
        if call is not None and call.deadline is not None and delay >= call.deadline - now:
            return GiveUp("deadline")
        # A call that waited for a moment that the origin named has its token already.
        if not state.token_reserved and not self._budget.try_withdraw(now):
            return GiveUp("budget_exhausted")
        state.token_reserved = True
        self.health.last_sent = now + delay
        return Wait(delay, committed=True) if delay > 0.0 else SEND

    def _until_probe(self, now: float, state: CallState) -> float:
        """Seconds until a failed call may find out by itself whether the origin is back."""
        health = self.health
        since = health.failing_since if health.streak else state.failed_at
        news = max(health.last_sent, health.last_known, state.failed_at)
        return news + max(_PROBE_AFTER, _PROBE_GROWTH * (news - since)) - now

    def _limit(self, now: float) -> float:
        """Seconds for which the origin wants to be left alone; 0 if it does not say so."""
        left = self.health.limited_until - now
        # A limit further away than the cap shows that the clock was set back.
        return left if 0.0 < left <= self._config.retry_after_cap else 0.0

    def _park(
        self, now: float, call: CallView, state: CallState, age: float, reason: Reason
    ) -> Action:
        """Ask again a little later, unless the trouble is too old or the parking too long."""
        if age > _YOUNG or state.parked_seconds >= self._config.hold_cap:
            return GiveUp(reason)
        crowd = self.health.parked_calls / _MOST_POLLS
        pause = min(_POLL_MOST, max(_POLL_LEAST, _POLL_SHARE * age, crowd))
        return self._ask_again(now, call, state, pause, reason)

    def _ask_again(
        self, now: float, call: CallView, state: CallState, pause: float, reason: Reason
    ) -> Action:
        # Half to one and a half: calls that were parked together do not ask together.
        pause *= 0.5 + self._random()
        if call.deadline is not None and pause >= call.deadline - now:
            return GiveUp("deadline")
        return self._parked(state, pause, reason)

    def _parked(self, state: CallState, pause: float, reason: Reason) -> Action:
        health = self.health
        if not state.parked:
            if health.parked_calls >= MOST_PARKED:
                self._give_back(state)
                return GiveUp(reason)
            state.parked = True
            health.parked_calls += 1
        state.parked_seconds += pause
        return Wait(pause)

    def _unpark(self, state: CallState) -> None:
        if state.parked:
            state.parked = False
            self.health.parked_calls -= 1

    def _give_back(self, state: CallState) -> None:
        if state.token_reserved:
            state.token_reserved = False
            self._budget.give_back()

    def _priority(self, now: float, call: CallView, state: CallState) -> float:
        """How much of the time for which a call can be parked is over, 0 to 1."""
        left = max(0.0, self._config.hold_cap - state.parked_seconds)
        if call.deadline is not None:
            left = min(left, max(0.0, call.deadline - now))
        total = state.parked_seconds + left
        return state.parked_seconds / total if total > 0.0 else 1.0
