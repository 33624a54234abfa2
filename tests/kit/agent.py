"""A telemetry agent that nobody here wrote, as the receiver of what the examples export."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .processes import accepts, environment, free_port
from .waiting import eventually


class Agent:
    """A running agent: where it listens, and what it has received."""

    def __init__(self, grpc: int, http: int, log: Path) -> None:
        self._ports = {"grpc": grpc, "http/protobuf": http}
        self._log = log

    def variables(self, protocol: str) -> dict[str, str]:
        """The environment that sends metrics here."""
        return {
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._ports[protocol]}",
        }

    @property
    def log(self) -> str:
        """All that it wrote: every metric it received, in words."""
        return self._log.read_text()

    def values(self, metric: str, attribute: str) -> dict[str, int]:
        """The newest values of a counter by one of its attributes."""
        values: dict[str, int] = {}
        for block in re.split(r"(?m)^Metric #\d+$", self.log):
            if f"-> Name: {metric}\n" not in block:
                continue
            for point in re.split(r"(?m)^NumberDataPoints #\d+$", block)[1:]:
                name = re.search(rf"-> {re.escape(attribute)}: Str\((.*)\)", point)
                value = re.search(r"(?m)^Value: (\d+)", point)
                if name and value:
                    values[name[1]] = int(value[1])
        return values


def binary() -> Path:
    """The agent's program, from the wheel `rotel`; a skip with the way to it otherwise."""
    found = importlib.util.find_spec("rotel")
    program = Path(found.origin).parent / "rotel-agent" if found and found.origin else None
    if program is None or not program.exists():
        reason = "no telemetry agent here: pip install rotel"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@contextmanager
def running_agent(folder: Path, show: str = "metrics") -> Iterator[Agent]:
    """An agent on free ports, with all its files in `folder`; it is gone afterwards.

    `show` is what it writes down: metrics or traces.
    """
    program = binary()
    grpc, http, log = free_port(), free_port(), folder / "agent.out"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [
                str(program),
                "start",
                f"--otlp-grpc-endpoint=127.0.0.1:{grpc}",
                f"--otlp-http-endpoint=127.0.0.1:{http}",
                f"--pid-file={folder / 'agent.pid'}",
                f"--log-file={folder / 'agent.log'}",
                "--exporter=blackhole",
                f"--debug-log={show}",
                "--debug-log-verbosity=detailed",
            ],
            env=environment(),
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        ) as process,
    ):
        try:
            assert eventually(lambda: accepts(grpc) and accepts(http)), log.read_text()
            yield Agent(grpc, http, log)
        finally:
            process.kill()
