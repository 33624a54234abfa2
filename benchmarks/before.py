"""Whether a success is as fast as it was: ``python -m benchmarks.before REVISION...``.

The source of each revision and the present one take turns in processes of their own, under this
revision's benchmark. Reported is what a success costs over a bare handler, and the ratio of the
present to each of the others within a round, as median and quartiles. Where valgrind is, also the
instructions of a call, which do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .cost.figures import Spread, median_of_ratios
from .cost.in_process import BARE
from .cost.success import OURS

ROOT = Path(__file__).parents[1]
PRESENT = "present"
_CALLS = 20_000
# Two lengths, so that starting the process cancels.
_FEW, _MANY = 2_000, 6_000


def _unpacked(revision: str, folder: Path) -> Path:
    """The sources of a revision."""
    packed = subprocess.run(
        ["git", "archive", revision, "src"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    target = folder / revision.replace("/", "_")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(target, filter="data")
    return target / "src"


def _command(source: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join((str(source), str(ROOT)))}
    return [sys.executable, "-m", "benchmarks.cost.success", *arguments], variables


def _over_bare(source: Path) -> float:
    command, variables = _command(source, str(_CALLS))
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True
    )
    figures = json.loads(done.stdout)
    if not Path(figures["source"]).is_relative_to(source):
        raise RuntimeError(f"measured {figures['source']} instead of {source}")
    return float(figures[OURS] - figures[BARE])


def _instructions(source: Path, valgrind: str) -> float:
    """Instructions of one call through the middleware, the handler's own among them."""

    def total(calls: int) -> int:
        command, variables = _command(source, str(calls), "--only", OURS)
        done = subprocess.run(
            [valgrind, "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
            cwd=ROOT,
            # The same order of dictionaries and sets in every run.
            env={**variables, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
        found = re.search(r"Collected : (\d+)", done.stderr)
        if found is None:
            raise RuntimeError("valgrind counted nothing")
        return int(found[1])

    return (total(_MANY) - total(_FEW)) / (_MANY - _FEW)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.before", description=__doc__)
    parser.add_argument("revisions", nargs="+")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args(arguments)
    valgrind = shutil.which("valgrind")
    with tempfile.TemporaryDirectory(prefix="before-") as folder:
        sources = {name: _unpacked(name, Path(folder)) for name in options.revisions}
        sources[PRESENT] = ROOT / "src"
        figures: dict[str, list[float]] = {name: [] for name in sources}
        for number in range(options.rounds):
            names = list(sources)
            # The order rotates, because the first one has other neighbours than the last one.
            for name in names[number % len(names) :] + names[: number % len(names)]:
                figures[name].append(_over_bare(sources[name]))
        counts = {
            name: _instructions(source, valgrind) for name, source in sources.items() if valgrind
        }
    for name in sources:
        spread = Spread.of(figures[name])
        ratio = median_of_ratios(figures[PRESENT], figures[name])
        counted = f", {counts[name]:,.0f} instructions" if name in counts else ""
        print(
            f"{name}: {spread.median:.3f} µs over bare ({spread.low:.3f} to {spread.high:.3f})"
            f"{counted}; present / this {ratio:.3f}"
            + (f" by time, {counts[PRESENT] / counts[name]:.3f} by instructions" if counts else "")
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
