"""A registry with its sweeper on a fake clock, in a process whose size a test sets."""

from __future__ import annotations

from typing import Any

from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._call import CallDriver
from aiohttp_adaptive_retry._origin.counters import Faults
from aiohttp_adaptive_retry._origin.memory import MemoryGuard
from aiohttp_adaptive_retry._origin.registry import Registry
from aiohttp_adaptive_retry._origin.sweeper import Sweeper
from aiohttp_adaptive_retry.policy import Policy, make_adaptive_policy

from ..kit.clock import Clock

MIB = 1024 * 1024


class Table:
    """A registry that is used as the middleware uses it, without requests."""

    def __init__(self, **fields: Any) -> None:
        self.clock = Clock()
        self.resident = 200
        config, faults = AdaptiveConfig(**fields), Faults()

        def make_policy(origin: str) -> Policy:
            self.made.append(origin)
            return make_adaptive_policy(config, clock=self.clock, random=lambda: 0.5)

        #: The names of the origins that policies were made for.
        self.made: list[str] = []
        guard = MemoryGuard(config, resident=lambda: self.resident * MIB, fullness=lambda: 0.0)
        self.registry = Registry(config, self.clock, faults, make_policy, guard)
        self.counters = self.registry.counters
        self.sweeper = Sweeper(config, guard, self.registry)
        # The driver says when the sweeper ticks.
        self._driver = CallDriver(config, self.registry.catalogue, guard, self.sweeper, faults)

    def use(self, url: str, code: int = 0) -> None:
        """One call to an origin, from start to end."""
        origin = self.registry.find(URL(url))
        origin.begun += 1
        if not code and not origin.settled:
            self.registry.settle(origin, URL(url), "", 200, by_name=True)
        origin.window.append(self.clock.now, code)
        origin.ended += 1
        self._driver.count(self.clock.now, origin)

    @property
    def hosts(self) -> list[str]:
        return [origin.host for origin in self.registry.listed()]
