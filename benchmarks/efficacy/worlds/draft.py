"""A world in the making, and how its numbers are drawn."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Literal

from .plan import Errors, Limit, LoopKind, Outage, Scaling


@dataclass(slots=True)
class Draft:
    """What a world has so far. Troubles change it; ``make`` builds the world from it.

    ``rate`` and ``load`` are those of all clients together at the first site, before any trouble.
    """

    rng: random.Random
    loop: LoopKind
    warm: bool = True
    horizon: float = 0.0
    rate: float = 0.0
    load: float = 0.0
    clients: int = 1
    callers: int = 1  # of a closed loop
    together: int = 1  # callers per client
    think: float = 0.0
    share: float = 1.0  # of all calls that go to the first site
    servers: int = 1
    workers: int = 1
    service: float = 0.1
    latency: float = 0.001
    speeds: dict[int, list[tuple[float, float, float]]] = field(default_factory=dict)
    outages: list[tuple[int | None, Outage]] = field(default_factory=list)
    errors: list[tuple[int | None, Errors]] = field(default_factory=list)
    limit: Limit | None = None
    scaling: Scaling | None = None
    stale: list[tuple[float, int]] = field(default_factory=list)
    idle: float = 0.0
    hopeless: float = 0.0
    heavy: tuple[float, float] = (0.0, 1.0)  # share of requests, times the work
    # Factors of the load from a time to another, multiplied where they overlap.
    surges: list[tuple[float, float, float]] = field(default_factory=list)
    present: int = 0  # clients that are there at a time; 0: all
    bursts: tuple[float, float] = (0.0, 0.0)  # every, within
    families: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def log(self, low: float, high: float) -> float:
        """Draw a number evenly on a logarithmic scale."""
        return math.exp(self.rng.uniform(math.log(low), math.log(high)))

    def whole(self, low: float, high: float) -> int:
        """Draw a whole number, at least 1, evenly on a logarithmic scale."""
        return max(1, round(self.log(low, high)))

    def chance(self, share: float) -> bool:
        """Return True with this probability."""
        return self.rng.random() < share

    def frame(self, length: float | None = None) -> tuple[float, float]:
        """Draw from when to when trouble lasts.

        It begins at once in a cold world, else after a quiet stretch. An eighth of the time at
        least is left after it.
        """
        start = self.rng.uniform(0.2, 0.5) * self.horizon if self.warm else 0.0
        most = 0.875 * self.horizon - start
        if length is None:
            length = self.log(0.05, 1.0) * most
        return start, start + min(length, most)

    def stretch(self) -> tuple[float, float]:
        """Draw when trouble lasts: all the time, or for a while as `frame` says."""
        return (0.0, math.inf) if self.chance(0.5) else self.frame()

    def where(self, part: float) -> int | None:
        """Draw the one server that has the trouble, with this chance, else None for all."""
        return self.rng.randrange(self.servers) if self.servers > 1 and self.chance(part) else None

    def mode(self) -> Literal["refused", "silent", "503"]:
        """Draw how a server is of no use."""
        return self.rng.choice(("refused", "refused", "silent", "503"))

    def down(
        self,
        server: int | None,
        start: float,
        end: float,
        mode: Literal["refused", "silent", "503"],
    ) -> None:
        """Let one server, or all, be of no use."""
        says = None
        if mode == "503" and self.chance(0.3):
            says = float(self.whole(1.0, 300.0))
        self.outages.append((server, Outage(start, end, mode, says)))

    def slow(self, server: int | None, start: float, end: float, factor: float) -> None:
        """Let one server, or all, work at ``factor`` of the speed for a time."""
        for index in range(self.servers) if server is None else (server,):
            self.speeds.setdefault(index, []).append((start, end, factor))

    def surge(self, time: float) -> float:
        """Return the factor of the load at ``time``."""
        return math.prod(factor for start, end, factor in self.surges if start <= time < end)

    def note(self, text: str) -> None:
        """Add a phrase to the description."""
        self.notes.append(text)


def span(start: float, end: float) -> str:
    """Return a stretch of time in words."""
    return "all the time" if end == math.inf else f"{start:.1f} to {end:.1f} s"


def of(server: int | None) -> str:
    """Return the words for one server, or none for all."""
    return "" if server is None else " of one server"
