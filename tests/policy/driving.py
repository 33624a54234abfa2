"""Calls of one origin, driven as the middleware drives them, with nothing sent or awaited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._call import Call as Call
from aiohttp_adaptive_retry._call import CallDriver
from aiohttp_adaptive_retry._origin.counters import Faults
from aiohttp_adaptive_retry._origin.memory import MemoryGuard
from aiohttp_adaptive_retry._origin.origin import UserPolicy
from aiohttp_adaptive_retry._origin.registry import Registry
from aiohttp_adaptive_retry._origin.sweeper import Sweeper
from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry._policy.admission import AdmittingPolicy
from aiohttp_adaptive_retry._policy.protocol import Reason
from aiohttp_adaptive_retry._policy.tuning import Tuning
from aiohttp_adaptive_retry.policy import (
    Action,
    AttemptOutcome,
    FixedPolicy,
    Policy,
    Send,
    make_adaptive_policy,
)

from ..kit.clock import Clock

#: Makes a policy for one origin, from the configuration, the clock and a source of chance.
Factory = Callable[[AdaptiveConfig, Clock, Callable[[], float]], Policy]


def adaptive(config: AdaptiveConfig, clock: Clock, random: Callable[[], float]) -> Policy:
    """The policy that ships; with admission if the configuration says so."""
    return make_adaptive_policy(config, clock=clock, random=random)


def tuned(tuning: Tuning) -> Factory:
    """The policy that ships, with other constants."""

    def make(config: AdaptiveConfig, clock: Clock, random: Callable[[], float]) -> Policy:
        kind = AdmittingPolicy if config.admission else AdaptivePolicy
        return kind(config, clock(), random, tuning)

    return make


def fixed(config: AdaptiveConfig, clock: Clock, random: Callable[[], float]) -> Policy:
    """The fixed policy, with more attempts than the driver permits."""
    return UserPolicy(FixedPolicy(attempts=100, random=random))


def users(policy: Policy) -> Factory:
    """A policy of the user's own."""
    return lambda config, clock, random: UserPolicy(policy)


class Driving:
    """A driver, one origin, and the calls to it. An attempt that is permitted counts as sent."""

    def __init__(
        self, factory: Factory, *, chance: float | Callable[[], float] = 0.5, **fields: Any
    ) -> None:
        self.config = config = AdaptiveConfig(**fields)
        self.clock = clock = Clock()
        self.faults = Faults()
        self.fullness = 0.0
        guard = MemoryGuard(config, resident=lambda: 0, fullness=lambda: self.fullness)
        random = chance if callable(chance) else lambda: chance
        self.registry = registry = Registry(
            config, clock, self.faults, lambda name: factory(config, clock, random), guard
        )
        self.driver = CallDriver(
            config, registry.catalogue, guard, Sweeper(config, guard, registry), self.faults
        )
        self.origin = registry.find(URL("http://origin.example/"))
        self.counters = self.origin.counters
        self.policy = self.origin.policy

    @property
    def adaptive(self) -> AdaptivePolicy:
        """The policy, which is the one that ships."""
        assert isinstance(self.policy, AdaptivePolicy)
        return self.policy

    def begin(self, remaining: float | None = None) -> tuple[Call, Action]:
        """A new call, and what is to be done with it."""
        now = self.clock.now
        self.origin.begun += 1
        call = Call(self.origin, now, now)
        call.deadline = None if remaining is None else now + remaining
        return call, self._sent(call, self.driver.arrive(now, call))

    def sent(self, remaining: float | None = None) -> Call:
        """A new call whose first attempt is under way."""
        call, action = self.begin(remaining)
        assert isinstance(action, Send)
        return call

    def outcome(
        self, call: Call, outcome: AttemptOutcome, obstacle: Reason | None = None
    ) -> Action:
        """The attempt under way is over."""
        action = self.driver.outcome(self.clock.now, call, outcome, obstacle)
        return action if outcome.ok else self._sent(call, action)

    def wake(self, call: Call) -> Action:
        """The wait is over."""
        return self._sent(call, self.driver.wake(self.clock.now, call))

    def cancel(self, call: Call) -> None:
        """The call is cancelled."""
        self.driver.cancel(self.clock.now, call)

    def _sent(self, call: Call, action: Action) -> Action:
        if isinstance(action, Send):
            self.driver.sent(self.clock.now, call)
        return action

    @property
    def counted(self) -> dict[str, int]:
        """What the calls that are over came to."""
        names = (
            "first_success",
            "retry_success",
            "failed_without_retry",
            "failed_after_retry",
            "refused",
            "ignored",
        )
        counts = {name: getattr(self.counters, name) for name in names}
        return {name: count for name, count in counts.items() if count}
