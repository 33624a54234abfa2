"""Prints the Pythons newer than the oldest supported one that are on this machine, one a line.

Looked for on the PATH (`python3.12` and so on), and among those that pyenv has.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

MINORS = (12, 13, 14)


def works(python: Path | str, minor: int) -> bool:
    """Whether it is what it is called, and can make virtual environments."""
    check = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
    done = subprocess.run([str(python), "-c", check], capture_output=True, check=False)
    return done.returncode == 0


def candidates(minor: int) -> list[Path | str]:
    """Where a Python of that version might be."""
    found: list[Path | str] = []
    on_path = shutil.which(f"python3.{minor}")
    if on_path:
        found.append(on_path)
    pyenv = shutil.which("pyenv")
    if pyenv:
        done = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False)
        versions = Path(done.stdout.strip()) / "versions"
        found += sorted(versions.glob(f"3.{minor}.*/bin/python3"))
    return found


def pythons() -> list[str]:
    """One for each version that there is."""
    return [
        str(working[0])
        for minor in MINORS
        if (working := [python for python in candidates(minor) if works(python, minor)])
    ]


if __name__ == "__main__":
    print("\n".join(pythons()))
