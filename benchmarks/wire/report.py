"""Tables of the runs, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cost.machine import kind, versions

from .alone import Row, table
from .driver import Result

__all__ = ("in_plain_text", "write_document")

_HEADS = (
    "policy",
    "calls that succeed",
    "attempts per call",
    "in the trouble",
    "95 % end within",
    "most attempts in 0.1 s, before",
    "after",
    "received by the servers",
)

# How long after its end a crowd that waited may come, seconds.
_AFTER = 3.0

_TEXT = """\
# The same on the wire

Written by `make bench`. One run of each condition with real sessions against real servers on
loopback, all policies beside each other: the same calls at the same moments, {calls} calls a second
from {clients} clients for each policy, each policy with servers of its own.

- machine: {machine}
- versions: {versions}

The plain loop makes three attempts, one and two seconds apart, aiohttp_retry has its own defaults,
and so has ours. Every call has ten seconds, every attempt 1.5 s until its answer. *In the trouble*
is attempts sent while it lasted for each call begun in it. Attempts are counted where they are sent
and, beside it, by the servers; they differ only where connections are refused, since then nobody is
there to count.
"""

_ALONE = """\
Callers who wait for their answers before they call again. The plain loop makes three attempts here,
0.1 and 0.2 seconds apart. Times are means over calls; for the errors that can't mend, medians.
"""


def row(result: Result) -> tuple[str, ...]:
    """What one policy did, as texts in the order of the heads."""
    scenario = result.scenario
    return (
        result.policy,
        f"{100 * result.success:.1f} %",
        f"{result.amplification:.2f}",
        f"{result.amplification_in(scenario.lead, scenario.over):.2f}",
        f"{result.slowest:.2f} s",
        str(result.peak(0.0, scenario.lead)),
        str(result.peak(scenario.over, scenario.over + _AFTER)),
        f"{len(result.received)} of {len(result.sent)}",
    )


def in_plain_text(results: Sequence[Result]) -> str:
    """One scenario for the terminal."""
    rows = [_HEADS, *map(row, results)]
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(_HEADS))]
    lines = [f"{results[0].scenario.name}: {results[0].scenario.text}"]
    for name, *cells in rows:
        texts = "".join(
            cell.rjust(width + 2) for cell, width in zip(cells, widths[1:], strict=True)
        )
        lines.append("  " + name.ljust(widths[0]) + texts)
    return "\n".join(lines) + "\n"


def write_document(path: Path, runs: Sequence[Sequence[Result]], rows: Sequence[Row] = ()) -> None:
    """All scenarios as a page, and what callers who are alone met."""
    scenario = runs[0][0].scenario
    parts = [
        _TEXT.format(
            calls=f"{scenario.rate:g}",
            clients=scenario.clients,
            machine=kind(),
            versions=", ".join(f"{name} {number}" for name, number in versions().items()),
        )
    ]
    for results in runs:
        lines = [f"## {results[0].scenario.name}", "", results[0].scenario.text, ""]
        lines += ["| " + " | ".join(_HEADS) + " |", "|---" * len(_HEADS) + "|"]
        lines += ["| " + " | ".join(row(result)) + " |" for result in results]
        parts.append("\n".join(lines) + "\n")
    if rows:
        heads, *cells = table(rows)
        lines = ["## One caller or a few", "", _ALONE, "| " + " | ".join(heads) + " |"]
        lines += ["|---" * len(heads) + "|", *("| " + " | ".join(line) + " |" for line in cells)]
        parts.append("\n".join(lines) + "\n")
    path.write_text("\n".join(parts), encoding="utf-8")
