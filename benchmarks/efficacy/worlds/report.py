"""Harm, distance behind the best known, and tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..registry import NONE
from .plan import LOOPS, LoopKind
from .policies import PURSES, judged
from .results import Outcome

HARM = 1.0
"""Harm above so many points counts."""

NEAR = 0.5
"""A policy that is behind the best known by so many points at most is as good."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one purse in one kind of loop. Points, except the shares."""

    mean: float
    harmed: float
    harm99: float
    worst: float
    worst_in: int
    lost99: float
    lost: float
    lost_in: int
    behind: float
    behind95: float
    near: float


def harm(one: Outcome, policy: str, purse: str) -> float:
    """Return what never retrying is better by in that world."""
    return one.results[NONE].value(purse) - one.results[policy].value(purse)


def lost(one: Outcome, policy: str) -> float:
    """Return by how many points fewer calls succeed than without retries."""
    return 100.0 * (one.results[NONE].success - one.results[policy].success)


def behind(one: Outcome, policy: str, purse: str) -> float:
    """Return what the best known policy of that world is better by."""
    best = max(found.value(purse) for found in one.results.values())
    return best - one.results[policy].value(purse)


def row(outcomes: Sequence[Outcome], policy: str, purse: str) -> Row:
    """Sum up one policy on one purse."""
    harms = [harm(one, policy, purse) for one in outcomes]
    losses = [lost(one, policy) for one in outcomes]
    behinds = [behind(one, policy, purse) for one in outcomes]
    worst = max(range(len(harms)), key=harms.__getitem__)
    most = max(range(len(losses)), key=losses.__getitem__)
    return Row(
        mean=statistics.fmean(one.results[policy].value(purse) for one in outcomes),
        harmed=statistics.fmean(value > HARM for value in harms),
        harm99=percentile(harms, 0.99),
        worst=harms[worst],
        worst_in=outcomes[worst].number,
        lost99=percentile(losses, 0.99),
        lost=losses[most],
        lost_in=outcomes[most].number,
        behind=statistics.fmean(behinds),
        behind95=percentile(behinds, 0.95),
        near=statistics.fmean(value <= NEAR for value in behinds),
    )


HEADS = (
    "mean", "harm>1", "harm99", "worst", "in", "lost99", "lost", "in", "behind", "beh95", "near",
)  # fmt: skip


def _texts(one: Row) -> list[str]:
    return [
        f"{one.mean:.1f}",
        f"{one.harmed:.1%}",
        f"{one.harm99:.1f}",
        f"{one.worst:.1f}",
        f"{one.worst_in}",
        f"{one.lost99:.1f}",
        f"{one.lost:.1f}",
        f"{one.lost_in}",
        f"{one.behind:.2f}",
        f"{one.behind95:.1f}",
        f"{one.near:.0%}",
    ]


def rows(
    outcomes: Sequence[Outcome], policies: Sequence[str], purse: str
) -> list[tuple[str, list[str]]]:
    """Return each judged policy's name and what the table says of it, below ``HEADS``."""
    return [(p, _texts(row(outcomes, p, purse))) for p in policies if judged(p, purse)]


def table(outcomes: Sequence[Outcome], policies: Sequence[str]) -> str:
    """Return one table for each kind of loop and purse."""
    lines = []
    for loop in LOOPS:
        mine = [one for one in outcomes if one.loop == loop]
        if not mine:
            continue
        for purse in PURSES:
            lines += [f"{loop} loops, {len(mine)} worlds, purse: {purse}"]
            lines += _layout(HEADS, rows(mine, policies, purse))
            lines.append("")
    return "\n".join(lines)


def families_table(outcomes: Sequence[Outcome], policies: Sequence[str]) -> str:
    """Return, per family: value minus that of never retrying / behind the best / harm > 1."""
    lines = []
    for loop in LOOPS:
        for purse in PURSES:
            mine = [one for one in outcomes if one.loop == loop]
            if not mine:
                continue
            lines += [f"{loop} loops, purse: {purse}; gain / behind / harm>1"]
            lines += _layout(policies, family_rows(mine, policies, purse))
            lines.append("")
    return "\n".join(lines)


def family_rows(
    outcomes: Sequence[Outcome], policies: Sequence[str], purse: str
) -> list[tuple[str, list[str]]]:
    """Return for each family of trouble: value minus that of never retrying / behind / harm > 1."""
    made = []
    for family in sorted({family for one in outcomes for family in one.families}):
        those = [one for one in outcomes if family in one.families]
        none = statistics.fmean(one.results[NONE].value(purse) for one in those)
        found = [row(those, policy, purse) for policy in policies]
        texts = [f"{one.mean - none:+.1f}/{one.behind:.1f}/{one.harmed:.0%}" for one in found]
        made.append((f"{family} ({len(those)})", texts))
    return made


def worst(
    outcomes: Sequence[Outcome], policy: str, count: int
) -> list[tuple[LoopKind, str, list[Outcome]]]:
    """Return the worlds in which a policy does the most harm, for each kind of loop and purse."""
    found = []
    for loop in LOOPS:
        mine = [one for one in outcomes if one.loop == loop]
        for purse in PURSES:
            if mine and judged(policy, purse):
                key = partial(harm, policy=policy, purse=purse)
                found.append((loop, purse, sorted(mine, key=key, reverse=True)[:count]))
    return found


def worst_text(outcomes: Sequence[Outcome], policy: str, count: int) -> str:
    """Return those worlds' descriptions, each with the harm and the success lost, in points."""
    lines = []
    for loop, purse, those in worst(outcomes, policy, count):
        lines.append(f"most harm of {policy} in {loop} loops, purse: {purse}")
        lines += [
            f"{harm(one, policy, purse):9.1f} lost {lost(one, policy):5.1f}  {one.description}"
            for one in those
        ]
    return "\n".join(lines)


def _layout(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    first = max(len(name) for name, _ in rows) + 1
    widths = [
        max(len(head), *(len(texts[index]) for _, texts in rows)) + 2
        for index, head in enumerate(heads)
    ]
    lines = [" " * first + "".join(h.rjust(w) for h, w in zip(heads, widths, strict=True))]
    for name, texts in rows:
        lines.append(
            name.ljust(first) + "".join(t.rjust(w) for t, w in zip(texts, widths, strict=True))
        )
    return lines


def loops_of(names: Sequence[str]) -> list[LoopKind]:
    """Return the kinds of loop of these names, in order."""
    return [loop for loop in LOOPS if loop in names]
