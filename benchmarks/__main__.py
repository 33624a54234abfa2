"""``python -m benchmarks``: what it costs, beside the alternatives; see ``--help``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cost.effort import Effort
    from .cost.result import Section

SECTIONS = ("in-process", "loopback", "scaling", "memory", "trouble")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. A goal that is missed is reported, and no error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="about half a minute, to see that everything runs"
    )
    parser.add_argument(
        "--only", type=_names, default=SECTIONS, metavar="A,B", help=f"of {','.join(SECTIONS)}"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="where the report goes (default: RESULTS.md beside this file, for a full run of all)",
    )
    options = parser.parse_args(arguments)
    for name in options.only:
        if name not in SECTIONS:
            parser.error(f"unknown section {name!r}; known: {', '.join(SECTIONS)}")

    # Not at the top: the child processes import this module too, and some measure memory.
    from .cost.effort import FULL, QUICK
    from .cost.report import in_markdown, in_plain_text

    effort = QUICK if options.quick else FULL
    out = options.out
    if out is None and not options.quick and set(options.only) == set(SECTIONS):
        out = Path(__file__).parent / "RESULTS.md"
    begun = time.perf_counter()
    sections = []
    for name in SECTIONS:
        if name in options.only:
            section = _section(name)(effort)
            print(in_plain_text(section), flush=True)
            sections.append(section)
    seconds = time.perf_counter() - begun
    print(f"{seconds:.0f} s", file=sys.stderr)
    if out is not None:
        out.write_text(in_markdown(sections, seconds, effort.name))
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _section(name: str) -> Callable[[Effort], Section]:
    from .cost.in_process import in_process
    from .cost.loopback import loopback
    from .cost.memory import memory
    from .cost.scaling import scaling
    from .cost.trouble import trouble

    sections = (in_process, loopback, scaling, memory, trouble)
    return dict(zip(SECTIONS, sections, strict=True))[name]


if __name__ == "__main__":
    sys.exit(main())
