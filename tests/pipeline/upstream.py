"""Servers that the application calls: they answer, fail and vanish as told, and count exactly."""

from __future__ import annotations

import random

from ..kit.http_server import LoopbackServer, Request


class Upstream(LoopbackServer):
    """Answers 200, and 503 to a share of its requests; with a share of 1 it is an outage."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__()
        self.share = share
        self._random = random.Random(7)
        self.received = 0
        self.answered_503 = 0

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return self.server_port

    @property
    def url(self) -> str:
        """What to call."""
        return f"{super().url}/items?token=secret"

    def answer(self, request: Request, body: bytes) -> tuple[int, bytes]:
        self.received += 1
        fails = self._random.random() < self.share
        self.answered_503 += fails
        return 503 if fails else 200, b"ok"
