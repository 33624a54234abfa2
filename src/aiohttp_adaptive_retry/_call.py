"""One call's driver, without I/O: outcomes go in, actions come out. It sends and awaits nothing.

A driver records what attempts came to, asks the policy, holds the bounds that are the caller's
(attempts, deadline, memory), tells the listeners, and lets clean-up run when it is due. Nothing
here makes a call fail: each method catches what goes wrong in it, and then lets the call end as it
would without us.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from typing import Final

from ._origin.call import Call as Call
from ._origin.call import Watcher
from ._origin.counters import OTHER_NAME, ErrorCatalogue, Faults
from ._origin.memory import MemoryGuard
from ._origin.origin import Origin
from ._origin.sweeper import Sweeper
from ._origin.waiting import WaitingCalls
from ._origin.window import OK
from ._policy.asking import ask_by
from ._policy.protocol import REASONS, SEND, Action, AttemptOutcome, GiveUp, Reason, Send, Wait
from .config import AdaptiveConfig
from .events import CallResult, EventKind

_is_enabled: Final = logging.getLogger("aiohttp_adaptive_retry").isEnabledFor
#: The log's level for what is told. Mended calls are told to listeners alone.
_LEVELS: Final[dict[EventKind, int]] = {
    "retry": logging.DEBUG,
    "hold": logging.DEBUG,
    "give_up": logging.INFO,
    "mended": logging.NOTSET,
}
# What nobody is told of.
_UNTOLD: Final = ("first_success", "ignored")

# A fault of our own ends the call; it is counted as a fault, and not as a reason.
_FAULT: Final = GiveUp("fault")


@dataclass(slots=True, eq=False)
class SafeClock:
    """A clock that always gives a number: the injected one, or the real one where that breaks.

    No method of the middleware: the telemetry keeps it, and must not keep a middleware alive.
    """

    _clock: Callable[[], float]
    _faults: Faults

    def __call__(self) -> float:
        try:
            return float(self._clock())
        except Exception as error:
            self._faults(error)
            return time.monotonic()


@dataclass(slots=True, eq=False)
class CallDriver:
    """Drives the calls of one middleware, strategy or simulated client. One loop; O(1).

    For one call: `arrive` (where first attempts are asked about), then after each `Send` the
    attempt and `sent`, then `outcome`, then after each `Wait` the wait and `wake`. `cancel` ends a
    call at any point.
    """

    _config: AdaptiveConfig
    _catalogue: ErrorCatalogue
    _guard: MemoryGuard
    _sweeper: Sweeper
    _faults: Faults
    #: Those of all origins, where there are several.
    waiting: InitVar[WaitingCalls | None] = None
    _watcher: Watcher | None = None
    #: No call gets a further attempt, and those that wait end as they wake.
    is_off: bool = False
    _waiting: WaitingCalls = field(init=False)

    def __post_init__(self, waiting: WaitingCalls | None) -> None:
        self._waiting = waiting or WaitingCalls(self._config)

    def arrive(self, now: float, call: Call) -> Action:
        """Ask about the first attempt. After `GiveUp` the call is over, unsent."""
        try:
            action = call.origin.policy.arrive(now, call)
            if action is not SEND and call.origin.is_shared:
                # One unknown name's trouble keeps no other one back.
                call.origin.policy.cancel(now, call)
                return SEND
            return self._settle(now, call, action)
        except Exception as fault:
            self._faults(fault)
            return SEND

    def observe(self, now: float, call: Call) -> None:
        """Tell the policy of a first attempt that is sent whatever the answer is."""
        try:
            policy = call.origin.policy
            if not isinstance(policy.arrive(now, call), Send):
                policy.cancel(now, call)
        except Exception as fault:
            self._faults(fault)

    def refuse(self, now: float, call: Call, reason: Reason) -> None:
        """End a call before its first attempt, of which the policy has not heard."""
        try:
            self._end(now, call, "refused", reason)
        except Exception as fault:
            self._faults(fault)

    def sent(self, now: float, call: Call) -> None:
        """Count an attempt that is sent now."""
        if call.waits_with is not None:
            self.leave(call)
        call.attempts += 1
        call.sent_at = now
        waited, call.waited = call.waited, 0.0
        call.is_held = call.is_announced = False
        if call.attempts > 1:
            try:
                for listener in call.origin.listeners:
                    listener.retry_sent(call, waited)
            except Exception as fault:
                self._faults(fault)

    def outcome(
        self,
        now: float,
        call: Call,
        outcome: AttemptOutcome,
        obstacle: Reason | None = None,
        text: str | None = None,
        unsent: bool = False,
    ) -> Action:
        """Record what an attempt came to, and ask what is next.

        Args:
            call: after `GiveUp`, and after a success, it is over and counted.
            obstacle: why the request can't be sent again, whatever the policy says:
                `not_idempotent` or `body_not_replayable`.
            text: the error's text, where texts are recorded.
            unsent: the attempt ended in the client's own queue for a connection. That says nothing
                about the origin. So the policy is not told, and the attempt is made again.
        """
        success: CallResult = "retry_success" if call.attempts > 1 else "first_success"
        try:
            origin = call.origin
            if origin.window.end - origin.window.appended != origin.caught_up:
                origin.catch_up()
            if outcome.ok:
                origin.window.append(now, OK)
                origin.policy.outcome(now, call, outcome)
                if origin.mood is not None or not now < origin.policy.quiet_until:
                    self._look(now, origin)
                origin.newcomers.earn(1)
                self._end(now, call, success)
                return SEND
            code, name = self._catalogue.entry(outcome.error_type)
            if obstacle != "not_idempotent":
                if call.attempts >= (call.own or origin.config).max_attempts:
                    obstacle = "max_attempts"
                elif not outcome.replayable:
                    obstacle = "not_retryable"
                elif obstacle is None and self._is_short(now):
                    obstacle = "memory_pressure"
            if obstacle is not None or name != outcome.error_type:
                outcome = outcome._replace(error_type=name, replayable=obstacle is None)
            call.must_send = not outcome.can_wait
            call.waited = 0.0
            call.error_types += (name,)
            call.retry_after = outcome.retry_after
            for listener in origin.listeners:
                listener.attempt_failed(call, outcome)
            origin.window.append(now, code)
            if text is not None:
                origin.note_text(text)
            policy = origin.policy
            if unsent:
                action: Action = SEND
            elif call.own is None or call.own is origin.config:
                action = policy.outcome(now, call, outcome)
            else:
                action = ask_by(call.own, policy, policy.outcome, now, call, outcome)
            if isinstance(action, Wait) and obstacle is None:
                # A policy of the user's may know no cap.
                asked = outcome.retry_after
                if asked is not None and asked > (call.own or origin.config).retry_after_cap:
                    obstacle = "retry_after"
            self._look(now, origin)
            return self._settle(now, call, action, obstacle)
        except Exception as fault:
            return self._broken(now, call, fault, success if outcome.ok else _failure(call))

    def wake(self, now: float, call: Call) -> Action:
        """Ask again, after the wait that the last answer asked for."""
        try:
            origin = call.origin
            if origin.window.end - origin.window.appended != origin.caught_up:
                origin.catch_up()
            seconds = now - call.waits_since
            if seconds > 0.0:
                call.total_waited += seconds
                call.total_held += seconds if call.is_held else 0.0
            if self.is_off:
                if call.must_send or not call.attempts:
                    return SEND
                return self._give_up(now, call, "disabled")
            if self._is_short(now) and not call.must_send:
                return self._give_up(now, call, "memory_pressure")
            if call.own is None or call.own is origin.config:
                action = origin.policy.wake(now, call)
            else:
                action = ask_by(call.own, origin.policy, origin.policy.wake, now, call)
            if call.must_send and isinstance(action, (Send, GiveUp)):
                if not call.is_announced:
                    self._tell("retry", now, call)
                return SEND
            return self._settle(now, call, action)
        except Exception as fault:
            if call.must_send or not call.attempts:
                self._faults(fault)
                return SEND
            return self._broken(now, call, fault, _failure(call))

    def cancel(self, now: float, call: Call) -> None:
        """End a call that was cancelled, or whose error says nothing about the origin."""
        try:
            if not call.ended:
                call.origin.policy.cancel(now, call)
                self._end(now, call, "ignored")
        except Exception as fault:
            self._broken(now, call, fault, "ignored")

    def first_success(self, now: float, origin: Origin, latency: float) -> None:
        """Record a call that succeeded at once; only the policy is told, and without a `Call`."""
        try:
            origin.ended += 1
            origin.counters.first_success += 1
            if origin.window.end - origin.window.appended != origin.caught_up:
                origin.catch_up()
            origin.window.append(now, OK)
            origin.policy.succeeded(now, latency)
            if origin.mood is not None or not now < origin.policy.quiet_until:
                self._look(now, origin)
            origin.newcomers.earn(1)
            self.count(now, origin)
        except Exception as fault:
            self._faults(fault)

    def _settle(
        self, now: float, call: Call, action: Action, obstacle: Reason | None = None
    ) -> Action:
        """Hold the caller's bounds against the policy's action; end the call if it is over."""
        reason: str | None = obstacle
        is_retry = call.attempts and not isinstance(action, GiveUp)
        if reason is None and is_retry and not call.origin.may_retry():
            reason = "budget_exhausted"
        # What the switch says comes after what the request and the caller's limits say.
        switch: str | None = None
        if (
            call.attempts
            and (call.observed or self.is_off)
            and not (call.must_send and call.waited)
        ):
            switch = "observed" if call.observed else "disabled"
        if isinstance(action, Wait):
            if not 0.0 <= action.seconds < math.inf:
                raise ValueError(f"seconds must be >= 0 and finite, got {action.seconds}")
            if call.deadline is not None and now + action.seconds >= call.deadline:
                if call.must_send and call.waited:
                    return SEND
                reason = reason or "deadline"
            reason = reason or switch
            if reason is None:
                # What the server has said is let go of before a wait that ends in an attempt.
                call.must_send = call.must_send or action.committed
                if call.waits_with is None:
                    size = call.kept_bytes()
                    if self._waiting.enter(size):
                        call.waits_with = size
                    else:
                        reason = "memory_pressure"
                call.waited += action.seconds
                call.waits_since = now
                if call.must_send:
                    call.is_held = False
                elif not call.is_held and reason is None:
                    call.is_held = True
                    self._tell("hold", now, call, action.seconds)
        elif isinstance(action, GiveUp) and isinstance(action.reason, str):
            reason = reason or action.reason
        elif isinstance(action, Send):
            call.is_held = False
            if call.attempts and not call.must_send and call.is_late(now):
                reason = reason or "deadline"
            reason = reason or switch
        else:
            raise TypeError(f"a policy must answer with Send, Wait or GiveUp, got {action!r}")
        if reason is None:
            if not call.is_held and not call.is_announced and call.attempts:
                self._tell("retry", now, call, getattr(action, "seconds", 0.0))
            return action
        if not isinstance(action, GiveUp):
            return self._give_up(now, call, reason)
        self._end(now, call, _failure(call), reason)
        return GiveUp(reason)

    def _give_up(self, now: float, call: Call, reason: str) -> GiveUp:
        """End a call that the policy would let go on."""
        call.origin.policy.cancel(now, call)
        self._end(now, call, _failure(call), reason)
        return GiveUp(reason)

    def _is_short(self, now: float) -> bool:
        """Whether the container is nearly full: a call that waits holds its body, and may kill."""
        guard = self._guard
        # A clock that was set back is the tick's affair.
        if not now < guard.due:
            self._sweeper.look(now)
        return guard.container_pressure

    def leave(self, call: Call) -> None:
        """Count a call out that does not wait, or waits no more."""
        if call.waits_with is not None:
            self._waiting.leave(call.waits_with)
            call.waits_with = None

    def _broken(self, now: float, call: Call, fault: Exception, result: CallResult) -> Action:
        """Our own bookkeeping failed: the call ends as it would without us, and is counted."""
        self._faults(fault)
        try:
            if not call.ended:
                self._end(now, call, result)
                if result != "ignored":
                    # The policy gets back what it has reserved; of an ignored call it has heard.
                    call.origin.policy.cancel(now, call)
        except Exception as another:
            self._faults(another)
        return _FAULT

    def _end(self, now: float, call: Call, result: CallResult, reason: str | None = None) -> None:
        """Count a call that is over, once."""
        call.ended = True
        if call.waits_with is not None:
            self.leave(call)
        origin = call.origin
        origin.ended += 1
        for listener in origin.listeners:
            listener.call_ended(call, result, reason)
        if result == "retry_success":
            self._tell("mended", now, call)
        elif result not in _UNTOLD:
            if reason is not None:
                # The words of a user's own policy are not bounded in number.
                word = reason if reason in REASONS else OTHER_NAME
                counts = origin.suppressed = origin.suppressed or {}
                counts[word] = counts.get(word, 0) + 1
            call.reason = reason or _FAULT.reason
            self._tell("give_up", now, call, reason=call.reason)
        self.count(now, origin)

    def _tell(
        self, kind: EventKind, now: float, call: Call, delay: float = 0.0, reason: str | None = None
    ) -> None:
        """Tell the watcher, if anybody wants to know."""
        call.is_announced = kind == "retry"
        watcher = self._watcher
        if watcher is not None and (watcher.is_listening or _is_enabled(_LEVELS[kind])):
            watcher.tell(kind, now, call, delay, reason)

    def _look(self, now: float, origin: Origin) -> None:
        """Have the watcher look at an origin's state, if anybody wants to know."""
        watcher = self._watcher
        if watcher is not None and (watcher.is_listening or _is_enabled(logging.WARNING)):
            watcher.look(now, origin)

    def count(self, now: float, origin: Origin) -> None:
        """Count an operation, and those of the fast path before it; tick if that is due."""
        sweeper, window = self._sweeper, origin.window
        new = window.end - origin.swept
        sweeper.operations -= new if new > 0 else 1
        origin.swept = window.end
        if sweeper.operations <= 0 or not now < sweeper.due:
            sweeper.tick(now)
        # The operation that makes a sweep due has to come here, so the fast path ends before it.
        until = min(origin.policy.quiet_until, sweeper.due)
        window.renew_lease(window.end + sweeper.operations - 1, until)


def _failure(call: Call) -> CallResult:
    if not call.attempts:
        return "refused"
    return "failed_after_retry" if call.attempts > 1 else "failed_without_retry"
