"""The interface between the simulator and a retry policy.

One policy object belongs to one client, as it would in a process of its own; it sees nothing but
its own calls. All methods are synchronous and return at once.

A policy may keep what it needs per call in ``call.state``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

Clock = Callable[[], float]
"""Returns the simulated time, s."""

Rand = Callable[[], float]
"""Returns a uniform number from [0, 1)."""


@dataclass(slots=True)
class Send:
    """Put one attempt on the wire now."""


@dataclass(slots=True)
class Wait:
    """Do nothing for ``seconds`` s (>= 0), then ask ``wake``.

    A wait that ends at or after the deadline is cut there: the call fails, ``abandon`` is called.
    """

    seconds: float


@dataclass(slots=True)
class GiveUp:
    """End the call now as failed. ``reason`` is for people."""

    reason: str


Action = Send | Wait | GiveUp

SEND = Send()


@dataclass(slots=True)
class Outcome:
    """What one attempt brought.

    ``error`` is "" for a success, otherwise one of ``ERRORS``. ``latency`` is in seconds, from
    sending to knowing. ``retry_after`` is what the server asked for, s, or None.
    """

    ok: bool
    error: str
    latency: float
    retry_after: float | None = None


ERRORS = (
    "ConnectionRefused",
    "ServerDisconnected",
    "Timeout",
    "429",
    "500",
    "502",
    "503",
)
"""Every error that the simulated servers and network can produce."""


class Call:
    """One request of the caller, with all its attempts.

    ``started`` and ``deadline`` are simulated times, s; ``attempts`` counts those already sent.
    What follows ``state`` is the engine's own.
    """

    __slots__ = (
        "attempts",
        "client",
        "deadline",
        "hopeless",
        "id",
        "key",
        "started",
        "state",
        "wakes",
    )

    def __init__(
        self, ident: int, client: int, started: float, deadline: float, key: int, hopeless: bool
    ) -> None:
        self.id = ident
        self.client = client
        self.started = started
        self.deadline = deadline
        self.attempts = 0
        self.state: Any = None
        self.key = key
        self.hopeless = hopeless
        self.wakes = 0


class Policy(Protocol):
    """What decides about the calls of one client."""

    def arrive(self, now: float, call: Call) -> Action:
        """Decide before the first attempt."""

    def result(self, now: float, call: Call, outcome: Outcome) -> Action:
        """Decide after an attempt. After a success the answer is ignored."""

    def wake(self, now: float, call: Call) -> Action:
        """Decide when a ``Wait`` has run out."""

    def abandon(self, now: float, call: Call) -> None:
        """Learn that the deadline cut the call, during an attempt or a wait.

        The outcome of an attempt that was under way is never told.
        """


PolicyFactory = Callable[[Clock, Rand], Policy]
"""Makes the policy of one client."""
