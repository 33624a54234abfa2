"""A threaded HTTP server on loopback, and one that answers a script of statuses."""

from __future__ import annotations

import http.server
import threading
from abc import abstractmethod
from typing import Any, Self

Request = http.server.BaseHTTPRequestHandler


class LoopbackServer(http.server.ThreadingHTTPServer):
    """Listens on a free port, and serves as long as its `with` block runs.

    A subclass says in `answer` what a request gets. Connections are kept alive.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._one_at_a_time = threading.Lock()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self.server_port}"

    @abstractmethod
    def answer(self, request: Request, body: bytes) -> tuple[int, bytes]:
        """Status and body for a request. Called for one request at a time."""

    def not_understood(self) -> None:
        """Called for what arrived and is no HTTP."""

    def answered(self, request: Request, body: bytes) -> tuple[int, bytes]:
        """The answer, while no other request is answered."""
        with self._one_at_a_time:
            return self.answer(request, body)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackServer

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, received: bytes) -> None:
        status, body = self.server.answered(self, received)
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, *args: Any, **kwargs: Any) -> None:
        self.server.not_understood()
        super().send_error(*args, **kwargs)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Nothing."""


class ScriptedServer(LoopbackServer):
    """Answers with the scripted statuses in turn, then with 200; keeps what it received."""

    def __init__(self, *statuses: int) -> None:
        super().__init__()
        self._statuses = list(statuses)
        #: (path, headers) of every request.
        self.received: list[tuple[str, dict[str, str]]] = []

    def answer(self, request: Request, body: bytes) -> tuple[int, bytes]:
        self.received.append((request.path, dict(request.headers)))
        status = self._statuses.pop(0) if self._statuses else 200
        return status, f"answer {status}\n".encode()
