"""Text: plain columns for the terminal, Markdown for the file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from . import machine
from .result import Goal, Section, Table

__all__ = ("in_markdown", "in_plain_text")

_GOALS = ("goal", "figure", "should be", "quartiles of rounds", "of medians", "")


def in_plain_text(section: Section) -> str:
    """A section for the terminal."""
    parts = [section.title, "=" * len(section.title), ""]
    for table in section.tables:
        parts += [table.caption, *_aligned(table), ""]
    parts += _aligned(_goals(section.goals))
    parts += _reasons(section.goals)
    return "\n".join([*parts, ""])


def in_markdown(sections: Sequence[Section], seconds: float, effort: str) -> str:
    """The whole report as a file."""
    every = [goal for section in sections for goal in section.goals]
    met = sum(goal.met for goal in every)
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions().items())
    parts = [
        "# What it costs",
        "",
        "Written by `make bench` (`python -m benchmarks`); not to be edited.",
        "",
        f"- date: {datetime.now(UTC):%Y-%m-%d}",
        f"- machine: {machine.kind()}",
        f"- versions: {versions}",
        f"- run: {effort}, {seconds / 60:.1f} minutes",
        f"- goals met: {met} of {len(every)}",
        "",
    ]
    if effort != "full":
        parts += ["**A quick run shows that everything runs; its figures are noise.**", ""]
    for section in sections:
        parts += [f"## {section.title}", "", section.text, ""]
        for table in [*section.tables, _goals(section.goals)]:
            parts += [f"### {table.caption}", "", *_markdown(table), ""]
        parts += _reasons(section.goals)
    return "\n".join(parts).rstrip() + "\n"


def _goals(goals: Sequence[Goal]) -> Table:
    return Table("Goals", _GOALS, [_goal(goal) for goal in goals])


def _reasons(goals: Sequence[Goal]) -> list[str]:
    """Why goals were missed, where that is known."""
    lines = [f"- Missed: {goal.what}: {goal.why}" for goal in goals if goal.why and not goal.met]
    return [*lines, ""] if lines else []


def _goal(goal: Goal) -> tuple[str, ...]:
    unit = f" {goal.unit}" if goal.unit else ""
    return (
        goal.what,
        f"{goal.figure:.3f}{unit}",
        f"{'at least' if goal.at_least else 'at most'} {goal.limit:g}{unit}",
        "" if goal.quartiles is None else "{:.3f} to {:.3f}".format(*goal.quartiles),
        "" if goal.second is None else f"{goal.second:.3f}{unit}",
        "met" if goal.met else "MISSED",
    )


def _aligned(table: Table) -> list[str]:
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _markdown(table: Table) -> list[str]:
    rule = ["---", *["---:"] * (len(table.header) - 1)]
    return ["| " + " | ".join(line) + " |" for line in [table.header, rule, *table.rows]]
