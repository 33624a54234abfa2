"""Rigs whose middlewares get parts of a test's own: a policy, a clock, a sleep, a provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.policy import (
    Action,
    AttemptOutcome,
    CallView,
    Policy,
    make_adaptive_policy,
)

from ..kit.clock import Clock
from ..kit.fakes import Rig, Step


def rig_with(
    script: Iterable[Step],
    parts: dict[str, Any],
    config: AdaptiveConfig | None = None,
    **fields: Any,
) -> Rig:
    """A rig whose middleware is made with these arguments in place of the usual ones."""
    rig = Rig(script)
    usual: dict[str, Any] = {
        "meter_provider": rig.provider,
        "clock": rig.clock,
        "sleep": rig.clock.sleep,
        "random": lambda: 0.5,
    }
    rig.middleware = AdaptiveRetryMiddleware(
        AdaptiveConfig(**fields) if config is None else config, **usual | parts
    )
    return rig


class Wrapped:
    """The adaptive policy as a user's own: the Protocol and nothing beside it.

    So it is asked about first attempts and told of every success at once.
    """

    def __init__(self, clock: Clock, **fields: Any) -> None:
        self.inner = make_adaptive_policy(AdaptiveConfig(**fields), clock=clock, random=lambda: 0.5)

    def arrive(self, now: float, call: CallView) -> Action:
        return self.inner.arrive(now, call)

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        return self.inner.outcome(now, call, outcome)

    def wake(self, now: float, call: CallView) -> Action:
        return self.inner.wake(now, call)

    def cancel(self, now: float, call: CallView) -> None:
        self.inner.cancel(now, call)


def one(policy: Policy) -> Callable[[str], Policy]:
    """A factory that gives the same policy for each origin."""
    return lambda origin: policy
