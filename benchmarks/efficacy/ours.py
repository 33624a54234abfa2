"""Our strategy as a policy of the simulator: the very object that the middleware drives."""

from __future__ import annotations

import sys

from aiohttp_adaptive_retry.config import AdaptiveConfig
from aiohttp_adaptive_retry.errors import ErrorCatalogue
from aiohttp_adaptive_retry.faults import Faults, SafeClock
from aiohttp_adaptive_retry.memory import MemoryGuard
from aiohttp_adaptive_retry.strategy import AdaptiveStrategy
from aiohttp_adaptive_retry.trial import Decision, Evidence, Trial

from .policy import SEND, Action, Call, Clock, GiveUp, Outcome, Rand, Wait

_CONFIG = AdaptiveConfig()
# One for all: what is simulated shares a process, and its size is no part of it.
_GUARD = MemoryGuard(_CONFIG, resident=lambda: 0, fullness=lambda: 0.0)

# What the middleware makes of the exceptions and statuses that these stand for.
_EVIDENCE = {
    "ConnectionRefused": Evidence(absent=True),
    "Timeout": Evidence(absent=True, overload=True),
    "503": Evidence(overload=True),
}
_OTHERS = Evidence()


class _State(Trial):
    """What is kept of a call: its trial, whether it is held, and when it was sent last."""

    __slots__ = ("asking", "sent")

    def __init__(self, now: float) -> None:
        super().__init__()
        self.asking = False
        self.sent = now


class Ours:
    """AdaptiveStrategy with its defaults, driven as the middleware drives it."""

    _admission = False

    def __init__(self, clock: Clock, random: Rand) -> None:
        catalogue = ErrorCatalogue()
        self._code = catalogue.code
        self.strategy = AdaptiveStrategy.shared(
            _CONFIG, SafeClock(clock, Faults()), random, catalogue, _GUARD
        )

    def arrive(self, now: float, call: Call) -> Action:
        """Send, or with admission ask."""
        call.state = _State(now)
        if not self._admission:
            return SEND
        return self._act(now, call, self.strategy.admit(now, call.state, call.deadline - now))

    def result(self, now: float, call: Call, outcome: Outcome) -> Action:
        """Tell the strategy, and do what it says."""
        trial = call.state
        if outcome.ok:
            strategy = self.strategy
            if trial.failures or not strategy.window.succeed(now):
                strategy.succeeded(now, now - trial.sent, trial)
                strategy.window.open(sys.maxsize, strategy.health.calm_until)
            return SEND
        evidence = _EVIDENCE.get(outcome.error, _OTHERS)
        if outcome.error == "429":
            evidence = Evidence(limited=True, retry_after=outcome.retry_after)
        decision = self.strategy.failed(
            now,
            self._code(outcome.error),
            trial,
            evidence,
            obstacle="max_attempts" if call.attempts >= _CONFIG.max_attempts else None,
            remaining=call.deadline - now,
            patient=True,
        )
        return self._act(now, call, decision)

    def wake(self, now: float, call: Call) -> Action:
        """Send what has waited for its turn; ask again for what was held."""
        if not call.state.asking:
            call.state.sent = now
            return SEND
        return self._act(now, call, self.strategy.woken(now, call.state, call.deadline - now))

    def abandon(self, now: float, call: Call) -> None:
        """Give back what is reserved for the call."""
        self.strategy.abandoned(call.state)

    def _act(self, now: float, call: Call, decision: Decision) -> Action:
        trial = call.state
        trial.asking = decision.hold
        if decision.reason is not None:
            self.strategy.abandoned(trial)
            return GiveUp(decision.reason)
        if decision.delay > 0.0:
            return Wait(decision.delay)
        trial.sent = now
        return SEND


class OursAdmitting(Ours):
    """The same with `admission=True`."""

    _admission = True
