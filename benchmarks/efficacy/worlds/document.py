"""docs/WORLDS.md, written from the results of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cost.machine import kind, versions

from .plan import LOOPS
from .policies import PURSES, judged
from .report import HARM, HEADS, family_rows, harm, lost, rows, worst
from .results import Outcome

_SHOWN = (
    "ours",
    "ours_admit",
    "interactive",
    "batch",
    "eight_lines",
    "sixty_lines",
    "fixed3",
    "tenacity",
)
_OURS = ("ours", "ours_admit", "interactive", "batch")
_WORST = 3

_TEXT = """\
# Worlds drawn at random

Written by `make worlds`: worlds {first} to {last}, {machine}, {versions}.

Nothing in these worlds is nominal. Clients, load, service, queues, time-outs, patience and trouble
are drawn on logarithmic scales from wide ranges; one world in three has two kinds of trouble. In
open loops calls come whether or not others are answered; in closed loops 1 to 64 callers wait for
their answers and then think. All policies meet the same worlds with the same luck. One world alone:
`python -m benchmarks.efficacy.worlds --world NUMBER --loop open`.

**Value** of a call = success - 0.1 x attempts - 0.25 x waiting / L, in points of a hundredth. L is
the caller's *patience* (the call's deadline), a *second* (an interactive caller) or a *minute*
(a batch). Waiting is the time from a call's start to its end, except what its successful attempt
was being served.

**Harm** is what never retrying is better by. Columns: mean value; share of worlds with harm above
1 point; harm, 99th percentile and worst, and that world's number; success lost against never
retrying, 99th percentile and worst, and that world's number; distance behind the best known policy
of the same world, mean and 95th percentile; share of worlds in which a policy is the best known or
within half a point of it.

![harm of all policies, sorted](harm.png)

{tables}
## By kind of trouble

Mean value minus that of never retrying / mean distance behind the best known / share of worlds with
harm above 1 point.

{families}
## The worst worlds

{worst}"""


def write_document(path: Path, outcomes: Sequence[Outcome], policies: Sequence[str]) -> None:
    """Write the page of these results."""
    numbers = [one.number for one in outcomes]
    shown = [name for name in _SHOWN if name in policies]
    tables, families, worlds = [], [], []
    for loop in LOOPS:
        mine = [one for one in outcomes if one.loop == loop]
        if not mine:
            continue
        for purse in PURSES:
            tables.append(f"## {loop.capitalize()} loops, waiting paid by the {purse}\n")
            tables.append(_table(HEADS, rows(mine, policies, purse)) + "\n")
            kept = [name for name in shown if judged(name, purse)]
            families.append(f"### {loop.capitalize()} loops, waiting paid by the {purse}\n")
            families.append(_table(kept, family_rows(mine, kept, purse)) + "\n")
    for policy in [name for name in shown if name in _OURS]:
        for loop, purse, those in worst(outcomes, policy, _WORST):
            worlds.append(f"### {policy}, {loop} loops, waiting paid by the {purse}\n")
            those = [one for one in those if harm(one, policy, purse) > HARM]
            worlds += [
                f"- harm {harm(one, policy, purse):.1f}, success lost {lost(one, policy):.1f}:"
                f" {one.description}"
                for one in those
            ] or ["None with harm above 1 point."]
            worlds.append("")
    text = _TEXT.format(
        first=min(numbers),
        last=max(numbers),
        machine=kind(),
        versions=", ".join(f"{name} {number}" for name, number in versions().items()),
        tables="\n".join(tables),
        families="\n".join(families),
        worst="\n".join(worlds),
    )
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def _table(heads: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    made = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    made += [f"| {name} | " + " | ".join(texts) + " |" for name, texts in lines]
    return "\n".join(made)
