"""``python -m benchmarks.efficacy``: run and print; see ``--help``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .conditions import ALL
from .document import write_document
from .pictures import draw_outage, draw_regrets
from .registry import POLICIES
from .report import as_json, details, regret_table
from .runner import run_all


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficacy", description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="how many seeds (default 4)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--policies", type=_names, default=list(POLICIES), help="a,b,c")
    parser.add_argument("--conditions", type=_names, default=list(ALL), help="a,b,c")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--details", action="store_true", help="print all metrics too")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all results there")
    parser.add_argument(
        "--document", type=Path, metavar="FOLDER", help="write EFFICACY.md and its pictures there"
    )
    options = parser.parse_args(arguments)
    for known, asked in ((POLICIES, options.policies), (ALL, options.conditions)):
        for name in asked:
            if name not in known:
                parser.error(f"unknown name {name!r}; known: {', '.join(known)}")
    if options.seeds < 1 or options.jobs < 1 or not options.policies or not options.conditions:
        parser.error("nothing to run")
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    begun = time.perf_counter()
    cells = run_all(options.conditions, seeds, options.policies, options.jobs)
    if options.details:
        print(details(cells))
    print(f"regret, 0 clairvoyant, 1 worst of none and fixed3; seeds {seeds[0]} to {seeds[-1]}")
    print(regret_table(cells))
    print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)
    if options.document is not None:
        options.document.mkdir(parents=True, exist_ok=True)
        write_document(options.document / "EFFICACY.md", cells, seeds)
        draw_regrets(options.document / "efficacy.png", cells)
        draw_outage(options.document / "outage.png", seeds[0])
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(cells, seeds), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
