"""``python -m benchmarks.efficacy.worlds``: draw worlds, run and print; see ``--help``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ..registry import NONE
from .document import write_document
from .engine import simulate
from .make import make_random_world
from .picture import draw_harm
from .plan import LOOPS, LoopKind
from .policies import POLICIES, PURSES, find
from .report import families_table, loops_of, table, worst_text
from .results import result, run_worlds


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficacy.worlds")
    parser.add_argument("--first", type=int, default=0, help="the first number (default 0)")
    parser.add_argument("--count", type=int, default=100, help="how many (default 100)")
    parser.add_argument("--world", type=int, help="run this one alone and tell all of it")
    parser.add_argument("--loops", "--loop", type=_names, default=list(LOOPS), help="open,closed")
    parser.add_argument(
        "--policies", type=_names, default=list(POLICIES), help="a,b,c; package.module:Class too"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--families", action="store_true", help="print by kind of trouble too")
    parser.add_argument("--worst", type=int, default=0, help="print so many worlds of most harm")
    parser.add_argument("--of", default="ours", help="the policy for --worst (default ours)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all results there")
    parser.add_argument(
        "--document", type=Path, metavar="FOLDER", help="write WORLDS.md and harm.png there"
    )
    options = parser.parse_args(arguments)
    for name in options.policies:
        if ":" not in name and name not in POLICIES:
            parser.error(f"unknown name {name!r}; known: {', '.join(POLICIES)}")
    loops = loops_of(options.loops)
    policies = list(dict.fromkeys([NONE, *options.policies]))
    if options.worst and options.of not in policies:
        parser.error(f"{options.of!r} is not among the policies")
    if not loops or options.count < 1 or options.jobs < 1:
        parser.error("nothing to run")
    if options.world is not None:
        for loop in loops:
            print(alone(options.world, loop, policies))
        return 0
    begun = time.perf_counter()
    numbers = range(options.first, options.first + options.count)
    outcomes = run_worlds(numbers, loops, policies, options.jobs)
    print(table(outcomes, policies))
    if options.families:
        print(families_table(outcomes, policies))
    if options.worst:
        print(worst_text(outcomes, options.of, options.worst))
    print(f"{time.perf_counter() - begun:.0f} s", file=sys.stderr)
    if options.document is not None:
        options.document.mkdir(parents=True, exist_ok=True)
        write_document(options.document / "WORLDS.md", outcomes, policies)
        draw_harm(options.document / "harm.png", outcomes, policies)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    return 0


def alone(number: int, loop: LoopKind, policies: Sequence[str]) -> str:
    """Run one world and return all that there is to say about it."""
    world = make_random_world(number, loop)
    lines = [f"[{', '.join(world.families)}] {world.description}"]
    heads = [*PURSES, "success", "attempts", "waiting s"]
    lines.append(" " * 14 + "".join(head.rjust(10) for head in heads) + "  reasons")
    for name in policies:
        begun = time.perf_counter()
        tally = simulate(world, find(name))
        took = time.perf_counter() - begun
        one = result(tally)
        values = [f"{one.value(purse):.2f}" for purse in PURSES]
        values += [f"{one.success:.4f}", f"{one.attempts:.3f}", f"{one.waiting:.3f}"]
        reasons = ", ".join(f"{k} {v}" for k, v in sorted(tally.reasons.items()))
        text = "".join(value.rjust(10) for value in values)
        lines.append(f"{name.ljust(14)}{text}  {reasons}  ({took * 1e3:.0f} ms)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
