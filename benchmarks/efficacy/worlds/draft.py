"""A world in the making, and how its numbers are drawn."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from .plan import Errors, Limit, Loop, Outage, Scaling


@dataclass(slots=True)
class Draft:
    """What a world has so far. Troubles change it; ``make`` builds the world from it.

    Rates and loads are those of all clients together, before any trouble.
    """

    rng: random.Random
    loop: Loop
    horizon: float = 0.0
    rate: float = 0.0
    load: float = 0.0
    clients: int = 1
    servers: int = 1
    workers: int = 1
    service: float = 0.1
    warm: bool = True
    speeds: dict[int, list[tuple[float, float, float]]] = field(default_factory=dict)
    outages: list[tuple[int | None, Outage]] = field(default_factory=list)
    errors: list[tuple[int | None, Errors]] = field(default_factory=list)
    limit: Limit | None = None
    scaling: Scaling | None = None
    stale: list[tuple[float, int]] = field(default_factory=list)
    hopeless: float = 0.0
    # Factors of the load from a time to another, multiplied where they overlap.
    surges: list[tuple[float, float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def log(self, low: float, high: float) -> float:
        """Draw a number evenly on a logarithmic scale."""
        return math.exp(self.rng.uniform(math.log(low), math.log(high)))

    def whole(self, low: float, high: float) -> int:
        """Draw a whole number so."""
        return max(1, round(self.log(low, high)))

    def chance(self, share: float) -> bool:
        """Tell with this probability."""
        return self.rng.random() < share

    def begin(self) -> float:
        """Draw when trouble begins: at once in a cold world, else after a quiet stretch."""
        return self.rng.uniform(0.2, 0.5) * self.horizon if self.warm else 0.0

    def frame(self, length: float | None = None) -> tuple[float, float]:
        """Draw from when to when trouble lasts; an eighth of the time at least is left after it."""
        start = self.begin()
        most = 0.875 * self.horizon - start
        if length is None:
            length = self.log(0.05, 1.0) * most
        return start, start + min(length, most)

    def where(self, part: float = 0.3) -> int | None:
        """Draw whether one server has the trouble, or all (None)."""
        return self.rng.randrange(self.servers) if self.servers > 1 and self.chance(part) else None

    def slow(self, server: int | None, start: float, end: float, factor: float) -> None:
        """Let one server, or all, work at ``factor`` of the speed for a time."""
        for index in range(self.servers) if server is None else (server,):
            self.speeds.setdefault(index, []).append((start, end, factor))

    def note(self, text: str) -> None:
        """Add a phrase to the description."""
        self.notes.append(text)
