"""The policy that ships, behind the driver that ships, as a client of the simulator."""

from __future__ import annotations

import math
import sys

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._call import Call, CallDriver
from aiohttp_adaptive_retry._origin.counters import OTHER_LABEL, Counters, ErrorCatalogue, Faults
from aiohttp_adaptive_retry._origin.memory import MemoryGuard
from aiohttp_adaptive_retry._origin.origin import Origin
from aiohttp_adaptive_retry._origin.registry import Registry
from aiohttp_adaptive_retry._origin.sweeper import Sweeper
from aiohttp_adaptive_retry._origin.window import Window
from aiohttp_adaptive_retry.policy import (
    SEND,
    Action,
    AttemptOutcome,
    CallView,
    Send,
    make_adaptive_policy,
)

from .policy import Clock, Rand

_CONFIG = AdaptiveConfig()
# One for all: what is simulated shares a process, and its size is no part of the simulation.
_GUARD = MemoryGuard(_CONFIG, resident=lambda: 0, fullness=lambda: 0.0)


class _Loud(Faults):
    """A fault of our own ends the simulation."""

    def __call__(self, error: Exception) -> None:
        raise error


_NOTHING = Registry(_CONFIG, lambda: 0.0, Faults(), lambda name: make_adaptive_policy(), _GUARD)


class _NeverDue(Sweeper):
    """Windows need no sweep in minutes."""

    def __init__(self, config: AdaptiveConfig) -> None:
        super().__init__(config, _GUARD, _NOTHING)
        self.operations = sys.maxsize
        self.due = math.inf


class Ours:
    """What decides about the calls of one client."""

    # aiohttp's own resend is off where the middleware is on.
    sees_reused = True
    _config = _CONFIG

    def __init__(self, clock: Clock, random: Rand) -> None:
        config, faults = self._config, _Loud()
        counters = Counters(0, faults).of_label(OTHER_LABEL)
        self._origin = Origin(
            "",
            "",
            "",
            None,
            config,
            make_adaptive_policy(config, clock=clock, random=random),
            Window(config.window_size, config.window_duration.total_seconds()),
            counters,
            (counters,),
        )
        self._driver = CallDriver(config, ErrorCatalogue(), _GUARD, _NeverDue(config), faults)

    def arrive(self, now: float, call: CallView) -> Action:
        """Send, or with admission ask."""
        own = call.state = Call(self._origin, now, now)
        own.deadline = call.deadline
        action = self._driver.arrive(now, own) if self._config.admission else SEND
        return self._sent(now, own, action)

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Write a first success down, if that is all that is due; else tell the driver."""
        own: Call = call.state
        if outcome.ok and own.attempts == 1 and self._origin.window.record_fast(now):
            return SEND
        outcome = outcome._replace(latency=now - own.sent_at)
        action = self._driver.outcome(now, own, outcome)
        return action if outcome.ok else self._sent(now, own, action)

    def wake(self, now: float, call: CallView) -> Action:
        """Ask the driver."""
        return self._sent(now, call.state, self._driver.wake(now, call.state))

    def cancel(self, now: float, call: CallView) -> None:
        """End the call."""
        self._driver.cancel(now, call.state)

    def _sent(self, now: float, own: Call, action: Action) -> Action:
        if isinstance(action, Send):
            self._driver.sent(now, own)
        return action


class OursAdmitting(Ours):
    """The same with `admission=True`."""

    _config = AdaptiveConfig(admission=True)


class OursInteractive(Ours):
    """The preset for callers to whom a second matters."""

    _config = AdaptiveConfig.interactive()


class OursBatch(Ours):
    """The preset for callers who would rather wait than fail."""

    _config = AdaptiveConfig.batch()
