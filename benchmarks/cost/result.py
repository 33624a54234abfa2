"""What a section of the benchmark comes to: tables, and goals beside the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .figures import Spread, ratio_of_medians, ratios

__all__ = ("Goal", "Section", "Table", "compared")


@dataclass(frozen=True)
class Goal:
    """A figure and what it should be."""

    what: str
    figure: float
    limit: float
    unit: str = ""
    #: Whether the limit is the least that is wanted, and not the most.
    at_least: bool = False
    #: The quartiles around the figure, where it is a median.
    quartiles: tuple[float, float] | None = None
    #: The same figure, worked out in another way that noise moves differently.
    second: float | None = None
    #: What a miss comes from, as far as it is known.
    why: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure is within the limit; a figure that is no number is not."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def compared(
    what: str, figures: Sequence[float], base: Sequence[float], limit: float, why: str = ""
) -> Goal:
    """A goal for the ratio of two variants: the median over the rounds in which both took turns.

    Noise comes in stretches that cover whole rounds, so a ratio within a round is free of most of
    it; the ratio of the two medians is told beside it.
    """
    spread = Spread.of(ratios(figures, base) or [float("nan")])
    return Goal(
        what,
        spread.median,
        limit,
        "x",
        quartiles=(spread.low, spread.high),
        second=ratio_of_medians(figures, base),
        why=why,
    )


@dataclass(frozen=True)
class Table:
    """A table as text."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass
class Section:
    """A part of the report."""

    title: str
    text: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
