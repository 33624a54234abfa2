"""``python -m benchmarks.soak``: run, judge, write; exit code 1 if anything grows."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .driver import soak
from .report import draw, verdict, write


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default 5)")
    parser.add_argument("--folder", type=Path, help="for samples and picture (default: a new one)")
    parser.add_argument("--picture", type=Path, help="where the picture goes instead")
    parser.add_argument("--leak", action="store_true", help="keep every exception, to be noticed")
    options = parser.parse_args(arguments)
    if not options.minutes >= 0.1:
        parser.error(f"--minutes must be >= 0.1, got {options.minutes}")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    result = soak(options.minutes * 60.0, leak=options.leak)
    write(folder / "soak.csv", result)
    draw(options.picture or folder / "soak.png", result)
    print(verdict(result))
    print(f"samples: {folder / 'soak.csv'}")
    return int(any(found.grows for found in result.trends().values()))


if __name__ == "__main__":
    sys.exit(main())
