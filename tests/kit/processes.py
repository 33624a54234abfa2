"""What tests that start processes need: an environment for the child, and ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would steer an example from outside."""
    steering = ("OTEL_", "PYTHONWARNINGS", "FORCE_COLOR", "COLUMNS", "LINES", "NO_COLOR")
    kept = {
        name: value
        for name, value in os.environ.items()
        # The OTLP exporter over HTTP heeds proxies, which know nothing of our loopback.
        if not name.startswith(steering) and not name.lower().endswith("_proxy")
    }
    # A warning in an example is an error, as it is in a test.
    return kept | {"PYTHONWARNINGS": "error"} | variables


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether somebody listens there by now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def printed_by(script: str, **variables: str) -> list[str]:
    """Run a script in a process of its own to its end; the lines that it printed."""
    done = subprocess.run(
        # Python 3.12 warns of forks beside threads, which some scripts are about.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        cwd=ROOT,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
