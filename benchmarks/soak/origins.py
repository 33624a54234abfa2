"""A server on loopback with many names: it answers, fails, hangs up and dawdles, by chance."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import random
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from ..resolver import AnyName

__all__ = ("Receiver", "origins")


async def _answer(request: web.BaseRequest) -> web.StreamResponse:
    await request.read()
    fate = random.random()
    if fate < 0.7:
        return web.Response(body=b"x" * random.randrange(2000))
    if fate < 0.85:
        return web.Response(status=random.choice((500, 502, 503)), body=b"y" * 20_000)
    if fate < 0.88:
        return web.Response(status=429, headers={"Retry-After": "1"})
    if fate < 0.91:
        return web.Response(status=404)
    if fate < 0.94:
        # Longer than anybody waits here.
        await asyncio.sleep(0.6)
        return web.Response()
    if request.transport is not None:
        with contextlib.suppress(OSError):
            request.transport.abort()
    return web.Response()


@asynccontextmanager
async def origins() -> AsyncIterator[int]:
    """The port of the running server."""
    runner = web.ServerRunner(web.Server(_answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


class Receiver:
    """A collector that starts and stops on one port; it counts all points that it gets."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.received = 0
        self._server: http.server.ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen, if it does not."""
        if self._server is not None:
            return
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received += 1
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Be gone."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def session(port: int, *middlewares: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
    """A session that finds every name."""
    return aiohttp.ClientSession(
        # aiohttp keeps an idle connection for each name; for a second here, so that a short run
        # warms up in time.
        connector=aiohttp.TCPConnector(
            resolver=AnyName(), use_dns_cache=False, limit=100, keepalive_timeout=1.0
        ),
        timeout=aiohttp.ClientTimeout(total=5.0, sock_read=0.5),
        middlewares=middlewares,
    )
