"""The candidate as a policy of the simulator."""

from __future__ import annotations

from aiohttp_adaptive_retry.config import AdaptiveConfig
from aiohttp_adaptive_retry.errors import ErrorCatalogue
from aiohttp_adaptive_retry.memory import MemoryGuard

from ..policy import SEND, Action, Call, Clock, GiveUp, Outcome, Rand, Wait
from .budget import RewardingBudget
from .deciding import Deciding, Decision, Trial
from .health import Health

_CONFIG = AdaptiveConfig(budget_capacity=15.0, budget_initial=3.0, budget_deposit=0.2)
# One for all: what is simulated shares a process, and its size is no part of it.
_GUARD = MemoryGuard(_CONFIG, resident=lambda: 0, fullness=lambda: 0.0)

_OVERLOAD = frozenset(("Timeout", "503"))
_ABSENT = frozenset(("Timeout", "ConnectionRefused"))


class _Core(Deciding):
    """The rules with what they need beside them."""

    __slots__ = ()

    def __init__(self, clock: Clock, random: Rand) -> None:
        self.config = _CONFIG
        self.health = Health()
        self.budget = RewardingBudget(_CONFIG, clock())
        self._random = random
        self._guard = _GUARD


class _State:
    """What is kept of a call: its trial, and whether it is being held."""

    __slots__ = ("held", "trial")

    def __init__(self) -> None:
        self.trial = Trial()
        self.held = False


class Candidate:
    """The learning policy with its defaults."""

    _admission = False

    def __init__(self, clock: Clock, random: Rand) -> None:
        self._core = _Core(clock, random)
        self._code = ErrorCatalogue().code

    def arrive(self, now: float, call: Call) -> Action:
        """Send, or with admission ask."""
        call.state = _State()
        if not self._admission:
            return SEND
        return _action(call, self._core.admit(now, call.state.trial, call.deadline - now))

    def result(self, now: float, call: Call, outcome: Outcome) -> Action:
        """Tell the rules, and do what they say."""
        trial = call.state.trial
        if outcome.ok:
            self._core._judge_success(now, outcome.latency, trial)
            return SEND
        decision = self._core._judge_failure(
            now,
            self._code(outcome.error),
            trial,
            obstacle="max_attempts" if call.attempts >= _CONFIG.max_attempts else None,
            retry_after=outcome.retry_after,
            limited=outcome.error == "429",
            overload=outcome.error in _OVERLOAD,
            absent=outcome.error in _ABSENT,
            remaining=call.deadline - now,
            patient=True,
        )
        return _action(call, decision)

    def wake(self, now: float, call: Call) -> Action:
        """Send what has waited for its turn; ask again for what was held."""
        if not call.state.held:
            return SEND
        return _action(call, self._core.woken(now, call.state.trial, call.deadline - now))

    def abandon(self, now: float, call: Call) -> None:
        """Give the token back, if one is reserved."""
        self._core.cancelled(call.state.trial)


class CandidateAdmitting(Candidate):
    """The same with admission."""

    _admission = True


def _action(call: Call, decision: Decision) -> Action:
    call.state.held = decision.hold
    if decision.reason is not None:
        return GiveUp(decision.reason)
    return Wait(decision.delay) if decision.delay > 0.0 else SEND
