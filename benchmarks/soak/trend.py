"""Whether a series grows: a rank test that noise does not fool, and a least growth that matters.

Samples of memory are far from normal: they jump when an arena is taken or given back, and
neighbours resemble each other. So the series is first cut into at most 20 blocks, each is replaced
by its median, which takes out jumps and most of the likeness, and then

- the Mann-Kendall test asks whether later blocks lie above earlier ones more often than chance has
  it (M. G. Kendall, Rank Correlation Methods, 1975), and
- the Theil-Sen slope, the median of the slopes between all pairs of blocks, says how much
  (P. K. Sen, JASA 63, 1968).

A series grows if chance would bring such a trend once in a thousand times *and* the growth over
the whole run is more than the least that matters. The first alone would report a kilobyte, the
second alone a single jump. With five series the test raises a false alarm in fewer than one run of
a hundred, the least growth aside.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

__all__ = ("Trend", "trend")

_BLOCKS = 20
_CHANCE = 0.001


@dataclass(frozen=True, slots=True)
class Trend:
    """`growth`: over the whole series, in its unit. `chance`: of such a trend without growth."""

    growth: float
    chance: float
    least: float

    @property
    def grows(self) -> bool:
        """Whether the series grows, by what chance can't explain and by what matters."""
        return self.chance < _CHANCE and self.growth > self.least


def trend(samples: Sequence[float], least: float) -> Trend:
    """Judge a series of equally spaced samples; `least` is the growth that matters.

    Raises:
        ValueError: fewer than 16 samples, from which nothing can be told.

    >>> trend([float(n) for n in range(100)], least=10).grows
    True
    >>> trend([5.0] * 100, least=10).grows
    False
    """
    if len(samples) < 16:
        raise ValueError(f"samples must be 16 or more, got {len(samples)}")
    count = min(_BLOCKS, len(samples))
    edges = [round(n * len(samples) / count) for n in range(count + 1)]
    blocks = [statistics.median(samples[begin:end]) for begin, end in pairwise(edges)]
    pairs = list(combinations(range(count), 2))
    score = sum((blocks[b] > blocks[a]) - (blocks[b] < blocks[a]) for a, b in pairs)
    ties = [blocks.count(value) for value in set(blocks)]
    variance = (
        count * (count - 1) * (2 * count + 5) - sum(t * (t - 1) * (2 * t + 5) for t in ties)
    ) / 18
    if score > 0 and variance > 0:
        # One-sided, with the correction for continuity; the normal is good from ten blocks on.
        chance = 0.5 * math.erfc((score - 1) / math.sqrt(2 * variance))
    else:
        chance = 1.0
    slope = statistics.median((blocks[b] - blocks[a]) / (b - a) for a, b in pairs)
    return Trend(slope * (count - 1), chance, least)
