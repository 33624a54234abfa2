"""Medians, spreads, ratios, and rounds in which all variants take turns.

Noise on a shared machine comes in stretches of seconds. Variants that are measured one after the
other meet different noise; variants that take turns within each round meet the same, and the ratio
within a round is steadier than either of its two figures. The order rotates, so that none always
runs behind the same neighbour's leftovers in the caches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

__all__ = (
    "Samples",
    "Spread",
    "interleaved",
    "median_of_ratios",
    "minus",
    "ratio_of_medians",
    "ratios",
)

#: One figure per round, by variant; round n of one belongs to round n of the others.
Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of one figure or more.

        >>> Spread.of([1.0, 2.0, 3.0, 4.0, 5.0])
        Spread(median=3.0, low=2.0, high=4.0)
        """
        if len(figures) < 2:
            return cls(figures[0], figures[0], figures[0])
        low, _, high = quantiles(figures, n=4, method="inclusive")
        return cls(median(figures), low, high)


def minus(figures: Sequence[float], base: Sequence[float]) -> list[float]:
    """What each round costs above another variant in the same round."""
    return [figure - other for figure, other in zip(figures, base, strict=True)]


def ratio_of_medians(figures: Sequence[float], base: Sequence[float]) -> float:
    """Median over median; noise that hits one variant alone moves it little."""
    return median(figures) / median(base)


def median_of_ratios(figures: Sequence[float], base: Sequence[float]) -> float:
    """Median of the ratios within each round; noise that comes in stretches cancels."""
    return median(ratios(figures, base) or [float("nan")])


def ratios(figures: Sequence[float], base: Sequence[float]) -> list[float]:
    """The ratio within each round.

    A round whose base came out at or below zero, which only noise does, is left out.
    """
    return [figure / other for figure, other in zip(figures, base, strict=True) if other > 0.0]


async def interleaved(
    variants: Mapping[str, Callable[[], Awaitable[float]]], rounds: int
) -> Samples:
    """Measure each variant once per round, in an order that rotates and turns round."""
    names = list(variants)
    samples: Samples = {name: [] for name in names}
    # What a first run pays once (caches, connections, specialised bytecode) is no cost per call.
    for name in names:
        await variants[name]()
    for number in range(rounds):
        start = number % len(names)
        order = names[start:] + names[:start]
        for name in order if number % 2 else reversed(order):
            samples[name].append(await variants[name]())
    return samples
