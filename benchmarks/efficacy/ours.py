"""Our strategy as a policy of the simulator: the very object that the middleware drives."""

from __future__ import annotations

from aiohttp_adaptive_retry.config import AdaptiveConfig
from aiohttp_adaptive_retry.errors import ErrorCatalogue
from aiohttp_adaptive_retry.faults import Faults, SafeClock
from aiohttp_adaptive_retry.memory import MemoryGuard
from aiohttp_adaptive_retry.strategy import AdaptiveStrategy

from .policy import SEND, Action, Call, Clock, GiveUp, Outcome, Rand, Wait

_CONFIG = AdaptiveConfig()
# One for all: what is simulated shares a process, and its size is no part of it.
_GUARD = MemoryGuard(_CONFIG, resident=lambda: 0, fullness=lambda: 0.0)


class Ours:
    """AdaptiveStrategy with its defaults, driven as the middleware drives it.

    A call's state is whether a token is reserved for it.
    """

    def __init__(self, clock: Clock, random: Rand) -> None:
        catalogue = ErrorCatalogue()
        self._code = catalogue.code
        self._strategy = AdaptiveStrategy.shared(
            _CONFIG, SafeClock(clock, Faults()), random, catalogue, _GUARD
        )

    def arrive(self, now: float, call: Call) -> Action:
        """First attempts are always sent."""
        call.state = False
        return SEND

    def result(self, now: float, call: Call, outcome: Outcome) -> Action:
        """Tell the strategy, and do what it says."""
        if outcome.ok:
            self._strategy.succeeded(now)
            self.abandon(now, call)
            return SEND
        decision = self._strategy.failed(
            now,
            self._code(outcome.error),
            retry=call.attempts,
            obstacle="max_attempts" if call.attempts >= _CONFIG.max_attempts else None,
            retry_after=outcome.retry_after,
            remaining=call.deadline - now,
        )
        call.state = decision.reason is None
        return Wait(decision.delay) if decision.reason is None else GiveUp(decision.reason)

    def wake(self, now: float, call: Call) -> Action:
        """The wait before a retry is over."""
        return SEND

    def abandon(self, now: float, call: Call) -> None:
        """Give the token back, if one is reserved: the retry mended, or was not judged."""
        if call.state:
            call.state = False
            self._strategy.refund()
