"""Many worlds on one or more processes, and what they came to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

from ..scoring import ATTEMPT_COST
from .engine import Tally, simulate
from .make import make_random_world
from .plan import LoopKind
from .policies import PURSES, find

WAIT_COST = 0.25
"""Value of waiting for as long as a purse says."""


@dataclass(frozen=True, slots=True)
class Result:
    """One policy in one world: means per call. ``waiting`` in s, ``share`` in patiences."""

    success: float
    attempts: float
    waiting: float
    share: float

    def value(self, purse: str) -> float:
        """Return the value of a call on a purse, in points of a hundredth."""
        length = PURSES[purse]
        waited = self.share if length is None else self.waiting / length
        return 100.0 * (self.success - ATTEMPT_COST * self.attempts - WAIT_COST * waited)


@dataclass(frozen=True, slots=True)
class Outcome:
    """All policies in one world."""

    number: int
    loop: LoopKind
    families: tuple[str, ...]
    description: str
    results: dict[str, Result]


def result(tally: Tally) -> Result:
    """Return a run's means per call."""
    count = max(1, tally.calls)
    return Result(
        tally.succeeded / count, tally.attempts / count, tally.waiting / count, tally.share / count
    )


def run_world(number: int, loop: LoopKind, policies: Sequence[str]) -> Outcome:
    """Run policies through one world."""
    world = make_random_world(number, loop)
    results = {name: result(simulate(world, find(name))) for name in policies}
    return Outcome(number, loop, world.families, world.description, results)


def run_worlds(
    numbers: Iterable[int], loops: Sequence[LoopKind], policies: Sequence[str], jobs: int = 1
) -> list[Outcome]:
    """Run policies through all worlds of these numbers, in order."""
    tasks = [(number, loop) for loop in loops for number in numbers]
    first, second = [number for number, _ in tasks], [loop for _, loop in tasks]
    if jobs == 1:
        return list(map(run_world, first, second, repeat(policies)))
    with ProcessPoolExecutor(jobs) as pool:
        return list(pool.map(run_world, first, second, repeat(policies), chunksize=8))
