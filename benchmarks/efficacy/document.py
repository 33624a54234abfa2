"""EFFICACY.md: the table for people who read it on a page, from which README takes its figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cost.machine import kind, versions

from .conditions import CONDITIONS
from .registry import ADMITTING_BOUND, BOUND
from .report import summaries
from .runner import Cell

_TEXT = """\
# How well retry policies do

Written by `make efficacy`. Seeds {first} to {last}, none of which was used in tuning; each settles
every number of a world anew.

- machine: {machine}
- versions: {versions}

Value of a request = success - 0.1 x attempts - 0.25 x waiting / 10 s. Regret 0 is a clairvoyant
client that sends each call once when it comes and then retries with full knowledge of what was,
is and will be; 1 is the worse of never retrying and always retrying twice. Below 0 is what holding
first attempts back gains over that. `benchmarks/efficacy` has the simulator, and the source of each
policy's defaults.

## Regret

{regrets}

In the average what is below 0 counts as 0. *against admit* is the average regret against a client
that also chooses with full knowledge when, and whether, to send first attempts.

![regret of each policy in each condition](efficacy.png)

## Attempts per request while the fault lasts

{attempts}

## An outage over time

![attempts per second in an outage](outage.png)
"""


def write_document(path: Path, cells: Sequence[Cell], seeds: Sequence[int]) -> None:
    """Write the page of these results."""
    policies = [name for name in dict.fromkeys(c.policy for c in cells) if name != BOUND]
    conditions = list(dict.fromkeys(cell.condition for cell in cells))
    found = {(cell.condition, cell.policy): cell for cell in cells}
    summary = summaries(cells)
    rows = [
        (name, [f"{found[name, p].regret:.2f} ± {found[name, p].spread:.2f}" for p in policies])
        for name in conditions
        if name in CONDITIONS
    ]
    rows += [
        (f"**{label.replace('_', ' ')}**", [f"**{summary[p][label]:.2f}**" for p in policies])
        for label in ("average", "worst", "against_admit")
    ]
    rows += [
        (f"{name} (not averaged)", [f"{found[name, p].regret:.2f}" for p in policies])
        for name in conditions
        if name not in CONDITIONS
    ]
    senders = [name for name in policies if name != ADMITTING_BOUND]
    faulty = [
        (name, [f"{found[name, p].mean('fault_attempts'):.2f}" for p in senders])
        for name in conditions
        if found[name, senders[0]].values("fault_attempts")
    ]
    path.write_text(
        _TEXT.format(
            first=seeds[0],
            last=seeds[-1],
            machine=kind(),
            versions=", ".join(f"{name} {number}" for name, number in versions().items()),
            regrets=_table(policies, rows),
            attempts=_table(senders, faulty),
        ),
        encoding="utf-8",
    )


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(texts) + " |" for name, texts in rows]
    return "\n".join(lines)
