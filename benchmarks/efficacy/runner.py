"""Runs every policy through every condition and seed, on one or more processes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from itertools import repeat

from .clairvoyant import simulate_bound
from .conditions import make_world
from .engine import simulate
from .registry import ADMITTING_BOUND, BOUND, FIXED, NONE, POLICIES
from .scoring import LEAST_STAKE, Score, regret, score

METRICS = tuple(f.name for f in fields(Score))


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy in one condition: its scores by seed, and its regret.

    ``regret`` is of values pooled over the seeds, see ``scoring``; ``spread`` is the standard
    deviation over the seeds of (V_clairvoyant - V) by the same pooled denominator.
    ``regret_admit`` has the client that also chooses when to send first attempts as its zero.
    """

    condition: str
    policy: str
    scores: tuple[Score, ...]
    regret: float
    regret_admit: float
    spread: float

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds in which it is defined, else nan."""
        values = self.values(metric)
        return statistics.fmean(values) if values else math.nan

    def deviation(self, metric: str) -> float:
        """Return the standard deviation of a metric over the seeds, 0 for a single one."""
        values = self.values(metric)
        return statistics.stdev(values) if len(values) > 1 else 0.0

    def values(self, metric: str) -> list[float]:
        """Return the metric of each seed in which it is defined."""
        found = [float(getattr(one, metric)) for one in self.scores]
        return [value for value in found if not math.isnan(value)]


def run_world(condition: str, seed: int, policies: Sequence[str]) -> dict[str, Score]:
    """Return the scores of ``policies`` and of the bounds in one world."""
    world = make_world(condition, seed)
    scores = {name: score(simulate(world, POLICIES[name])) for name in policies}
    scores[ADMITTING_BOUND] = score(simulate_bound(world)[0])
    scores[BOUND] = score(simulate_bound(world, admission=False)[0])
    return scores


def run_all(
    conditions: Sequence[str], seeds: Iterable[int], policies: Sequence[str], jobs: int = 1
) -> list[Cell]:
    """Return one cell per condition and policy, in that order; the bounds are among the policies.

    ``none`` and ``fixed3`` are always run, as regret is measured against them.
    """
    names = list(dict.fromkeys([NONE, FIXED, *policies]))
    tasks = [(condition, seed) for condition in conditions for seed in seeds]
    firsts, seconds = [t[0] for t in tasks], [t[1] for t in tasks]
    if jobs == 1:
        results = list(map(run_world, firsts, seconds, repeat(names)))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            results = list(pool.map(run_world, firsts, seconds, repeat(names)))
    cells = []
    for condition in conditions:
        found = [r for t, r in zip(tasks, results, strict=True) if t[0] == condition]
        cells += _cells(condition, found, [*names, ADMITTING_BOUND, BOUND])
    return cells


def _cells(condition: str, found: list[dict[str, Score]], names: Iterable[str]) -> list[Cell]:
    def pooled(name: str) -> float:
        return statistics.fmean(scores[name].value for scores in found)

    best, none, fixed = pooled(BOUND), pooled(NONE), pooled(FIXED)
    beyond = pooled(ADMITTING_BOUND)
    stake = max(LEAST_STAKE, best - min(none, fixed))
    cells = []
    for name in names:
        single = [(scores[BOUND].value - scores[name].value) / stake for scores in found]
        cells.append(
            Cell(
                condition=condition,
                policy=name,
                scores=tuple(scores[name] for scores in found),
                regret=regret(pooled(name), best, none, fixed),
                regret_admit=regret(pooled(name), beyond, none, fixed),
                spread=statistics.stdev(single) if len(single) > 1 else 0.0,
            )
        )
    return cells
