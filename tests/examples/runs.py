"""What these tests share: examples as processes, and a scripted server on loopback."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
#: No example of these tests takes longer; what does hangs.
TIMEOUT = 30


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


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def accepts(port: int) -> bool:
    """Whether somebody listens there by now."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ScriptedServer(http.server.ThreadingHTTPServer):
    """Answers with the scripted statuses in turn, then with 200; keeps what it received."""

    daemon_threads = True

    def __init__(self, statuses: tuple[int, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.statuses = list(statuses)
        self.lock = threading.Lock()
        #: (path, headers) of every request.
        self.received: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ScriptedServer

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.received.append((self.path, dict(self.headers)))
            status = self.server.statuses.pop(0) if self.server.statuses else 200
        body = f"answer {status}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Nothing."""


@contextmanager
def scripted(*statuses: int) -> Iterator[ScriptedServer]:
    """A server that answers `statuses`, one after the other, then 200."""
    server = ScriptedServer(statuses)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
