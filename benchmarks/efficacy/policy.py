"""What the simulator adds to `aiohttp_adaptive_retry.policy`: its calls, and its errors.

One policy object belongs to one client, as it would in a process of its own; it sees nothing but
its own calls. A `Wait` that ends at or after the deadline is cut there: the call fails, and the
policy's `cancel` is called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp_adaptive_retry.policy import AttemptOutcome, Policy

Clock = Callable[[], float]
"""Returns the simulated time, s."""

Rand = Callable[[], float]
"""Returns a uniform number from [0, 1)."""

PolicyFactory = Callable[[Clock, Rand], Policy]
"""Makes the policy of one client."""

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


def failure(error: str, latency: float, retry_after: float | None = None) -> AttemptOutcome:
    """Return the outcome of a failed attempt, as the middleware classifies what `error` stands for.

    ``latency`` is in seconds, from sending to knowing; ``retry_after`` is what the server asked
    for, s.
    """
    return AttemptOutcome(
        False,
        error,
        latency,
        no_response=error in ("ConnectionRefused", "Timeout"),
        overload=error in ("Timeout", "503"),
        limited=error == "429",
        retry_after=retry_after,
    )


def timed_out(outcome: AttemptOutcome) -> bool:
    """Tell whether an attempt failed by a time-out, simulated or real."""
    return outcome.no_response and outcome.overload


class Call:
    """One request of the caller, with all its attempts: the ``CallView`` of policies.

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
