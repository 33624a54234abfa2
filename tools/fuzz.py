"""Lets a coverage-guided fuzzer (atheris) find bytes that break a promise: `make fuzz`.

What it has found interesting is kept for the next time, outside the repository. A failure ends the
run with the bytes in a file beside the corpus.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .collector import cache

_ADVICE = (
    "there is no atheris for this Python: its wheels are for CPython 3.11 to 3.13 on Linux. "
    "The same targets run with Hypothesis in `make test`."
)


def _atheris() -> Any:
    try:
        return importlib.import_module("atheris")
    except ImportError:
        sys.exit(_ADVICE)


def fuzz(target: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process; does not return."""
    atheris = _atheris()
    with atheris.instrument_imports(include=["aiohttp_adaptive_retry"]):
        targets = importlib.import_module("tools.fuzz_targets")
    corpus.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            "-max_len=4096",
            f"-artifact_prefix={corpus.parent / target}-",
            "-print_final_stats=1",
            str(corpus),
        ],
        targets.TARGETS[target],
    )
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz all targets, each in a process of its own; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=15, help="for each target (default 15)")
    parser.add_argument("--target", help="only this one, in this process")
    options = parser.parse_args(arguments)
    if options.seconds < 1:
        parser.error(f"--seconds must be >= 1, got {options.seconds}")
    folder = cache() / "fuzz"
    if options.target:
        fuzz(options.target, options.seconds, folder / options.target)
        return 0
    _atheris()
    from .fuzz_targets import TARGETS

    broken = []
    for name in TARGETS:
        command = [sys.executable, "-m", "tools.fuzz", "--target", name]
        done = subprocess.run(
            [*command, "--seconds", str(options.seconds)],
            capture_output=True,
            text=True,
            check=False,
        )
        last = [line for line in done.stderr.splitlines() if line.startswith(("stat::", "Done"))]
        print(f"{name}: {'held' if done.returncode == 0 else 'BROKEN'}  {'; '.join(last[:3])}")
        if done.returncode:
            broken.append(name)
            print(done.stderr[-4000:], file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
