"""Servers that the application calls: they answer, fail and vanish as told, and count exactly."""

from __future__ import annotations

import http.server
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Upstream(http.server.ThreadingHTTPServer):
    """Answers 200, and 503 to a share of its requests; with a share of 1 it is an outage."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, share: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.share = share
        self.lock = threading.Lock()
        self.random = random.Random(7)
        self.received = 0
        self.answered_503 = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server_port

    @property
    def url(self) -> str:
        """What to call."""
        return f"http://127.0.0.1:{self.port}/items?token=secret"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.received += 1
            fails = server.random.random() < server.share
            server.answered_503 += fails
        self.send_response(503 if fails else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Nothing."""


@contextmanager
def upstream(share: float = 0.0) -> Iterator[Upstream]:
    """A server on loopback that fails to that share."""
    server = Upstream(share)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
