"""When clean-up is due. No call, task or timer is needed: clean-up runs with the traffic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, Protocol

from ..config import AdaptiveConfig
from .memory import MemoryGuard

# How soon after a tick, in seconds, the next one looks at the clock's due times again.
_TICK_INTERVAL: Final = 1.0


class Swept(Protocol):
    """What a sweeper cleans up: a middleware's registry, or a strategy's one origin."""

    def sweep(self, now: float) -> None:
        """Drop what has expired."""

    def on_pressure(self, now: float) -> None:
        """Give memory back: it is short."""

    def on_relief(self, now: float) -> None:
        """Memory is no longer short."""


class Sweeper:
    """Counts operations, and ticks every `cleanup_frequency` of them and every second with traffic.

    A tick samples memory, sweeps if `cleanup_frequency` or `cleanup_interval` says so, and calls
    what else is to be done with time (`also`). One loop.
    """

    def __init__(
        self,
        config: AdaptiveConfig,
        guard: MemoryGuard,
        swept: Swept,
        *also: Callable[[float], None],
    ) -> None:
        self._guard, self._swept, self._also = guard, swept, also
        self.reconfigure(config)
        #: Operations until the next sweep.
        self.operations = config.cleanup_frequency
        #: When `tick` wants to be called at the latest. After a clock was set back, the countdown
        #: brings the next tick, which puts this right.
        self.due = -math.inf
        self._sweep_at = math.inf

    def reconfigure(self, config: AdaptiveConfig) -> None:
        """Sweep as often as a configuration says, after the sweep that is next."""
        self._frequency = config.cleanup_frequency
        self._interval = config.cleanup_interval.total_seconds()

    def look(self, now: float) -> None:
        """Sample memory, at most once a second, and act on what has changed.

        While calls wait none ends, so that no tick comes. Their failures and wakings come here.
        """
        change = self._guard.sample(now)
        if change == "begun":
            self._swept.on_pressure(now)
        elif change == "over":
            self._swept.on_relief(now)

    def tick(self, now: float) -> None:
        """Sample memory, sweep if a sweep is due, and say when to come again."""
        self.look(now)
        interval = self._interval
        # A clock set back by hours must not stop the sweeps for hours.
        if not self._sweep_at - interval <= now:
            self._sweep_at = now + interval
        if self.operations <= 0 or now >= self._sweep_at:
            self.operations = self._frequency
            self._sweep_at = now + interval
            self._swept.sweep(now)
        for clean_up in self._also:
            clean_up(now)
        self.due = now + min(_TICK_INTERVAL, interval)
