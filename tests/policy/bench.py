"""The adaptive policy on a fake clock, asked about plain calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, Wait, make_adaptive_policy

from ..kit.clock import Clock

REFUSED = AttemptOutcome(False, "ClientConnectorError", no_response=True)
TIMED_OUT = AttemptOutcome(False, "ServerTimeoutError", no_response=True, overload=True)
ANSWERED = AttemptOutcome(False, "500")
OVERLOADED = AttemptOutcome(False, "503", overload=True)


def limited(retry_after: float | None = None) -> AttemptOutcome:
    """What a limiter answers."""
    return AttemptOutcome(False, "429", limited=True, retry_after=retry_after)


@dataclass(slots=True, eq=False)
class View:
    """A call with no more than the `CallView` of policies."""

    attempts: int = 0
    started: float = 0.0
    deadline: float | None = None
    state: Any = None


def parks(action: Action) -> bool:
    """Whether the call waits for news, and not for the moment of its retry."""
    return isinstance(action, Wait) and not action.committed


@dataclass
class Bench:
    """A policy, its clock, and chance as it is asked for."""

    fields: dict[str, Any] = field(default_factory=dict)
    chance: float = 0.5

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.config = AdaptiveConfig(**self.fields)
        self.policy: AdaptivePolicy = make_adaptive_policy(
            self.config, clock=self.clock, random=lambda: self.chance
        )

    @property
    def tokens(self) -> float:
        """What the budget holds now."""
        return self.policy.tokens_at(self.clock.now, 0)

    @property
    def state(self) -> str:
        """The origin's state now."""
        return self.policy.state(self.clock.now)

    def ok(self, count: int = 1, latency: float = 0.05, call: View | None = None) -> None:
        """Let attempts succeed, ten a second."""
        for _ in range(count):
            self.clock.now += 0.1
            outcome = AttemptOutcome(True, latency=latency)
            self.policy.outcome(self.clock.now, View() if call is None else call, outcome)

    def fail(self, outcome: AttemptOutcome = REFUSED, call: View | None = None) -> Action:
        """Let an attempt fail, of a new call if none is named."""
        return self.policy.outcome(self.clock.now, View() if call is None else call, outcome)

    def arrive(self, call: View | None = None, *, after: float = 0.0) -> Action:
        """Ask about a first attempt, so many seconds from now."""
        return self.policy.arrive(self.clock.now + after, View() if call is None else call)

    def down(self) -> None:
        """Bring an outage about."""
        self.ok(30)
        for _ in range(5):
            self.clock.now += 0.01
            self.fail(ANSWERED, call := View())
            self.policy.cancel(self.clock.now, call)
        assert self.state == "down"

    def wait(self, action: Action, call: View) -> Action:
        """Let the wait pass that was asked for, and ask again."""
        assert isinstance(action, Wait)
        self.clock.now += action.seconds
        return self.policy.wake(self.clock.now, call)
