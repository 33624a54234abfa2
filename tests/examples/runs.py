"""Examples as processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..kit.processes import environment

EXAMPLES = Path(__file__).parents[2] / "examples"
#: No example of these tests takes longer; what does hangs.
TIMEOUT = 60


def command(name: str, *arguments: str) -> list[str]:
    """How an example is started."""
    return [sys.executable, str(EXAMPLES / name), *arguments]


def run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run an example to its end."""
    return subprocess.run(
        command(name, *arguments),
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )


@contextmanager
def started(name: str, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """An example that is still running; it is gone afterwards."""
    with subprocess.Popen(
        command(name, *arguments),
        env=environment(PYTHONUNBUFFERED="1", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        # A process group of its own, so that a test can press Ctrl-C.
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
