"""``python -m benchmarks.wire``: run and print; see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from . import alone
from .driver import run
from .report import in_plain_text, write_document
from .scenarios import SCENARIOS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wire", description=__doc__)
    parser.add_argument(
        "--scenarios",
        type=lambda text: text.split(","),
        default=list(SCENARIOS),
        metavar="A,B",
        help=f"of {','.join(SCENARIOS)}",
    )
    parser.add_argument("--document", type=Path, metavar="PATH", help="write a page there")
    options = parser.parse_args(arguments)
    for name in options.scenarios:
        if name not in SCENARIOS:
            parser.error(f"unknown scenario {name!r}; known: {', '.join(SCENARIOS)}")
    runs = []
    for name in options.scenarios:
        results = run(SCENARIOS[name])
        print(in_plain_text(results), flush=True)
        runs.append(results)
    if options.document is not None:
        rows = asyncio.run(alone.run())
        print(alone.in_plain_text(rows))
        write_document(options.document, runs, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
