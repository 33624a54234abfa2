"""examples/demo, as a process: in a pipe, in a terminal, against an address, interrupted."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from ..kit.agent import running_agent
from ..kit.http_server import ScriptedServer
from ..kit.processes import environment, free_port
from ..kit.waiting import eventually
from .runs import command, run, started

pytestmark = pytest.mark.wire

PHASES = ("healthy", "transient", "outage", "recovery")
CLIENTS = ("adaptive", "plain loop")


class Row(NamedTuple):
    """A line of the final table."""

    requests: int
    success: float
    attempts_per_request: float
    attempts_per_second: float
    milliseconds: float


def rows(output: str) -> dict[tuple[str, str], Row]:
    """The final table, by phase and client."""
    number = r"([\d.,]+)"
    found: dict[tuple[str, str], Row] = {}
    phase = ""
    for match in re.finditer(
        rf"(?m)^ (\w+)? +(adaptive|plain loop) +{number} +{number} % "
        rf"+{number} +{number} +{number} ms",
        output,
    ):
        phase = match[1] or phase
        values = [float(value.replace(",", "")) for value in match.groups()[2:]]
        found[phase, match[2]] = Row(int(values[0]), *values[1:])
    return found


@cache
def piped() -> subprocess.CompletedProcess[str]:
    """The shortest demo, run once for all tests that look at it."""
    # Even where colours are forced: a pipe gets none.
    return run("demo", "--seconds", "5", FORCE_COLOR="1")


def test_it_ends_well_and_quietly() -> None:
    """Exit code 0, and no warning, log line or traceback."""
    assert (piped().returncode, piped().stderr) == (0, "")


def test_a_pipe_gets_plain_lines() -> None:
    """About a line a second with all the numbers, and not one control character."""
    output = piped().stdout
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", output) == []
    lines = re.findall(
        r"(?m)^ *[\d.]+ s  (\w+) .*window \d+/\d+, cleanups \d+, budget [\d.]+/20, rss \d+ MiB$",
        output,
    )
    assert 4 <= len(lines) <= 7
    assert "Shortened for the demo: window" in output


def test_both_kinds_of_clients_get_the_same_traffic() -> None:
    """Every phase is shown, with equally many requests for both."""
    table = rows(piped().stdout)
    assert set(table) == {(phase, client) for phase in PHASES for client in CLIENTS}
    for phase in PHASES:
        assert table[phase, "adaptive"].requests == table[phase, "plain loop"].requests > 20


def test_when_all_is_well_nobody_retries() -> None:
    """In the healthy phase every call succeeds with about one attempt."""
    for client in CLIENTS:
        healthy = rows(piped().stdout)["healthy", client]
        # A call of its last moments may meet the first fault of the next phase.
        assert healthy.success >= 95
        assert 1.0 <= healthy.attempts_per_request <= 1.1


def test_transient_errors_are_mended() -> None:
    """One attempt in five fails, nearly every call of the middleware's succeeds."""
    transient = rows(piped().stdout)["transient", "adaptive"]
    # Without retries it would be 80 %. Those of the last moments meet the outage.
    assert transient.success >= 84
    assert transient.attempts_per_request > 1.05


def test_the_outage_is_not_made_worse() -> None:
    """The server counts at least three attempts a request from the loop, and a budget's from us."""
    table = rows(piped().stdout)
    ours, plain = table["outage", "adaptive"], table["outage", "plain loop"]
    assert plain.attempts_per_request > 2.5
    # One that fails, perhaps one that mends it after the outage, and what tokens could waste.
    assert ours.attempts_per_request <= 2 + 24 / ours.requests
    assert ours.attempts_per_second < plain.attempts_per_second * 0.6
    assert ours.success > plain.success + 20


def test_the_memory_is_bounded_and_swept() -> None:
    """The window ends within its bound, and clean-ups happened without anyone asking."""
    memory = re.search(
        r"Memory:\s+(\d+)\s+attempts\s+sent,\s+(\d+)\s+recorded,\s+(\d+)\s+of\s+at\s+most\s+"
        r"(\d+)\s+held\s+in\s+(\d+)\s+bytes,\s+(\d+)\s+dropped;\s+cleanups:\s+(\d+);",
        piped().stdout,
    )
    assert memory
    sent, recorded, held, limit, size, dropped, cleanups = map(int, memory.groups())
    assert held <= limit < recorded
    assert held + dropped == recorded
    # Not recorded is only what a call's deadline cut short; such a call has failed.
    calls = [row for (_, client), row in rows(piped().stdout).items() if client == "adaptive"]
    failed = sum(math.ceil(row.requests * (100.05 - row.success) / 100) for row in calls)
    assert sent - failed <= recorded <= sent, piped().stdout
    assert size <= limit * 10
    assert cleanups >= 5


def test_the_middlewares_own_books_are_whole() -> None:
    """Nothing went wrong inside the middleware."""
    assert "Faults" not in piped().stdout


def test_a_terminal_gets_a_live_view() -> None:
    """In a terminal of 80 by 24 the panel is drawn in place, is whole, and the table follows."""
    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with subprocess.Popen(
        command("demo", "--seconds", "5"),
        env=environment(TERM="xterm-256color"),
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(terminal)
        written = b""
        # The end of a terminal is an error on Linux and an empty read elsewhere.
        with contextlib.suppress(OSError):
            while piece := os.read(main, 65_536):
                written += piece
        os.close(main)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(10) == 0
    output = written.decode()
    # Lines are drawn over, and the cursor that was hidden is back.
    assert output.count("\x1b[1A") > 100
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output).replace("\r", "")
    for phase in PHASES:
        assert f" {phase.upper()} " in text
    assert "attempts per second (at the server)" in text
    # The panel's last line, in every frame: rich cuts off what does not fit.
    assert text.count("Shortened for the demo") > 10
    assert set(rows(text)) == {(phase, client) for phase in PHASES for client in CLIENTS}


def test_a_real_address_is_asked_gently_and_metrics_are_shipped(tmp_path: Path) -> None:
    """With --url a few unmarked requests a second go there; what was sent is what is exported."""
    with running_agent(tmp_path) as agent, ScriptedServer(200, 503) as server:
        done = run(
            "demo",
            "--seconds",
            "5",
            "--url",
            f"{server.url}/page",
            **agent.variables("http/protobuf"),
        )
        assert (done.returncode, done.stderr) == (0, "")
        received = server.received
        attempts = ("adaptive_retry.attempts", "adaptive_retry.attempt.type")
        assert eventually(lambda: sum(agent.values(*attempts).values()) == len(received))
        assert agent.values(*attempts)["retry"] == 1
        assert "service.name: Str(adaptive-retry-demo)" in agent.log
    assert 8 <= len(received) <= 17
    assert {path for path, _ in received} == {"/page"}
    assert not any(name.startswith("X-Demo") for _, headers in received for name in headers)
    assert "Metrics go to http://127.0.0.1:" in done.stdout
    assert "plain loop" not in done.stdout
    assert rows(done.stdout)["live", "adaptive"].success == 100


def test_an_address_that_is_dead_fails_the_demo() -> None:
    """Nothing got through: exit code 1, and why, without what stands in the URL's path."""
    port = free_port()
    done = run("demo", "--seconds", "5", "--url", f"http://127.0.0.1:{port}/secret")
    assert done.returncode == 1
    assert f"The demo failed: no request to http://127.0.0.1:{port} got through" in done.stderr
    assert "ClientConnectorError" in done.stderr
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_shows_the_table_and_leaves_nobody_behind(number: signal.Signals) -> None:
    """Ctrl-C after a second: the table so far, exit code 0, and the server's process is gone."""
    with started("demo", "--seconds", "60") as process:
        assert process.stdout is not None
        while " req/s" not in process.stdout.readline():
            assert process.poll() is None
        children = psutil.Process(process.pid).children()
        # As a terminal does it: to the whole group.
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert rows(output)["healthy", "adaptive"].success == 100
    assert len(children) == 1
    assert not children[0].is_running()


def test_a_killed_demo_takes_its_server_along() -> None:
    """Even when nothing can be cleaned up, the server's process ends by itself."""
    with started("demo", "--seconds", "60") as process:
        assert process.stdout is not None
        while " req/s" not in process.stdout.readline():
            assert process.poll() is None
        (child,) = psutil.Process(process.pid).children()
        process.kill()
        process.communicate(timeout=10)
    try:
        assert eventually(lambda: not child.is_running() or child.status() == "zombie")
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--seconds", "4"), "must be from 5 to 86400 seconds, got 4"),
        (("--seconds", "nan"), "must be from 5 to 86400 seconds, got nan"),
        (("--seconds", "inf"), "must be from 5 to 86400 seconds, got inf"),
        (("--seconds", "soon"), "must be from 5 to 86400 seconds, got soon"),
        (("--url", "example.org"), "must be an http:// or https:// URL, got 'example.org'"),
        (("--url", "file:///etc/hosts"), "must be an http:// or https:// URL"),
        (("--url", "http://[x"), "must be an http:// or https:// URL"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[str, ...], complaint: str) -> None:
    """Exit code 2, with the argument and its value, before anything is started."""
    done = run("demo", *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert complaint in done.stderr
    assert done.stdout == ""


def test_a_wrong_protocol_fails_before_the_demo() -> None:
    """A collector that can't be spoken to is a mistake in the set-up, told at once."""
    done = run(
        "demo",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318",
        OTEL_EXPORTER_OTLP_PROTOCOL="udp",
    )
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in done.stderr
