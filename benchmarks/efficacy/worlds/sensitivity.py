"""``python -m benchmarks.efficacy.worlds.sensitivity``: every constant halved and doubled.

A constant that changes much is no constant but a rule that is wrong. Each field of the policy's
``Tuning`` is halved and doubled, one after the other; for each, what the mean value and the 99th
percentile of harm change by, on the purse of patience, in points.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry._policy.tuning import TUNING, Tuning

from ..ours import Ours
from ..policy import Clock, Rand
from ..registry import NONE
from .engine import simulate
from .make import make_random_world
from .plan import LOOPS, LoopKind
from .policies import find
from .report import percentile
from .results import result

_PURSE = "patience"
Values = dict[tuple[LoopKind, int], float]


def variants() -> list[tuple[str, Tuning]]:
    """Return every constant halved and doubled, by what was done; the first is as it ships."""
    found = [("as it ships", TUNING)]
    for field in fields(Tuning):
        value = getattr(TUNING, field.name)
        for factor in (0.5, 2.0):
            changed = type(value)(
                max(1, value * factor) if isinstance(value, int) else value * factor
            )
            found.append((f"{field.name} x {factor:g}", replace(TUNING, **{field.name: changed})))
    return found


def _values(tuning: Tuning | None, numbers: Sequence[int]) -> Values:
    class Varied(Ours):
        def __init__(self, clock: Clock, random: Rand) -> None:
            super().__init__(clock, random)
            assert tuning is not None
            self._origin.policy = AdaptivePolicy(self._config, clock(), random, tuning)

    factory = find(NONE) if tuning is None else Varied
    return {
        (loop, number): result(simulate(make_random_world(number, loop), factory)).value(_PURSE)
        for loop in LOOPS
        for number in numbers
    }


def table(numbers: Sequence[int], jobs: int) -> list[tuple[str, float, float, float, float]]:
    """Return what each change does to the mean and to harm, in open and in closed loops."""
    tried = variants()
    with ProcessPoolExecutor(jobs) as pool:
        tunings = [None, *(tuning for _, tuning in tried)]
        none, shipped, *others = pool.map(_values, tunings, [numbers] * len(tunings))
    rows = []
    for (name, _), values in zip(tried[1:], others, strict=True):
        cells: list[float] = []
        for loop in LOOPS:
            keys = [key for key in none if key[0] == loop]
            cells.append(statistics.fmean(values[key] - shipped[key] for key in keys))
            harm = [percentile([none[k] - of[k] for k in keys], 0.99) for of in (values, shipped)]
            cells.append(harm[0] - harm[1])
        rows.append((name, cells[0], cells[1], cells[2], cells[3]))
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it if a path is given. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficacy.worlds.sensitivity")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--document", type=Path, metavar="PATH", help="write a page there")
    options = parser.parse_args(arguments)
    numbers = range(options.first, options.first + options.count)
    rows = table(numbers, options.jobs)
    heads = ("constant", "open: mean", "harm, 99th", "closed: mean", "harm, 99th")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [
        f"| {name} | " + " | ".join(f"{cell:+.2f}" for cell in cells) + " |"
        for name, *cells in rows
    ]
    text = "\n".join(lines)
    print(text)
    if options.document is not None:
        about = (
            f"# Every constant halved and doubled\n\nWritten by `make sensitivity`, worlds "
            f"{numbers[0]} to {numbers[-1]}: what the mean value and the 99th percentile of harm "
            "change by, in points, where waiting is paid by the caller's patience. The goals are "
            "0.3 for the mean, and 1 for harm.\n\n"
        )
        options.document.write_text(about + text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
