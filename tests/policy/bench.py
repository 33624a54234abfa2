"""The adaptive policy on a fake clock, asked about plain calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry._policy.admission import AdmittingPolicy
from aiohttp_adaptive_retry._policy.tuning import TUNING, Tuning
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, GiveUp, Wait

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


def holds(action: Action) -> bool:
    """Whether the call waits for news, and not for the moment of its retry."""
    return isinstance(action, Wait) and not action.committed


@dataclass
class Bench:
    """A policy, its clock, and chance as it is asked for."""

    fields: dict[str, Any] = field(default_factory=dict)
    chance: float = 0.5
    tuning: Tuning = TUNING

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.config = AdaptiveConfig(**self.fields)
        kind = AdmittingPolicy if self.config.admission else AdaptivePolicy
        self.policy = kind(self.config, self.clock.now, lambda: self.chance, self.tuning)

    @property
    def tokens(self) -> float:
        """What the flow of retries holds now."""
        return self.policy.tokens_at(self.clock.now, 0)

    @property
    def state(self) -> str:
        """The origin's state now."""
        return self.policy.state(self.clock.now)

    def view(self, time: float | None = None) -> View:
        """A call that has so much time."""
        return View(1, self.clock.now, None if time is None else self.clock.now + time)

    def ok(self, count: int = 1, latency: float = 0.05, call: View | None = None) -> None:
        """Let attempts succeed, ten a second."""
        for _ in range(count):
            self.clock.now += 0.1
            outcome = AttemptOutcome(True, latency=latency)
            self.policy.outcome(self.clock.now, View() if call is None else call, outcome)

    def fail(self, outcome: AttemptOutcome = REFUSED, call: View | None = None) -> Action:
        """Let an attempt fail, of a new call if none is named."""
        return self.policy.outcome(self.clock.now, View() if call is None else call, outcome)

    def lose(self, outcome: AttemptOutcome = REFUSED, count: int = 1) -> None:
        """Let calls fail that can't be sent again, a hundred a second."""
        for _ in range(count):
            self.clock.now += 0.01
            self.fail(outcome._replace(replayable=False))

    def serial(self) -> None:
        """Let it be known that callers wait for their answers before they call again."""
        for _ in range(8):
            self.ok(5)
            self.fail(ANSWERED, call := View())
            self.clock.now += 2.0
            self.policy.cancel(self.clock.now, call)
        self.ok()
        assert self.policy.callers.wait

    def congest(self) -> None:
        """Let successes become slow."""
        self.ok(100)
        self.ok(40, latency=0.5)
        assert self.state == "congested"

    def arrive(self, call: View | None = None, *, after: float = 0.0) -> Action:
        """Ask about a first attempt, so many seconds from now."""
        return self.policy.arrive(self.clock.now + after, View() if call is None else call)

    def down(self, age: float = 0.05) -> None:
        """Bring an outage about, so many seconds old."""
        self.ok(30)
        self.lose(ANSWERED, 5)
        self.clock.now += age - 0.04
        assert self.state == "down"

    def wake(self, action: Action, call: View) -> Action:
        """Let the wait pass that was asked for, and ask again."""
        assert isinstance(action, Wait)
        self.clock.now += action.seconds
        return self.policy.wake(self.clock.now, call)

    def held(self, action: Action, call: View) -> tuple[float, Action]:
        """For how long a call is held, and what is to be done then."""
        began = self.clock.now
        for _ in range(10_000):
            if not holds(action):
                return self.clock.now - began, action
            action = self.wake(action, call)
        raise AssertionError("held for ever")


def reason(action: Action) -> str:
    """Why a call was given up; else nothing."""
    return action.reason if isinstance(action, GiveUp) else ""
