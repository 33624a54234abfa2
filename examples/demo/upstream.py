"""The demo's fault-prone upstream: a real server, in a process of its own.

`running` starts this file as a child. The child prints its port, answers until its standard input
closes, and so ends with its parent however that one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator

from aiohttp import web

from phases import CLIENT_HEADER, PHASE_HEADER, PHASES, Schedule

#: Seconds to start in; a cold, busy machine takes a few.
START_TIMEOUT = 30.0
#: The share of faults that close the connection instead of answering 503.
CLOSED = 0.25


class Upstream:
    """Answers, fails as the schedule says, and counts what it receives."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._started: float | None = None
        #: Attempts by (client, phase in which its call began, phase in which it arrived).
        self._received: Counter[tuple[str, str, str]] = Counter()

    async def start(self, _: web.Request) -> web.Response:
        """Begin with the first phase."""
        self._started = time.monotonic()
        return web.Response()

    async def stats(self, _: web.Request) -> web.Response:
        """What was received so far."""
        return web.json_response([[*key, count] for key, count in self._received.items()])

    async def work(self, request: web.Request) -> web.Response:
        """What the clients ask for."""
        elapsed = 0.0 if self._started is None else time.monotonic() - self._started
        client = request.headers.get(CLIENT_HEADER, "?")
        called_in = request.headers.get(PHASE_HEADER, "?")
        self._received[client, called_in, self._schedule.at(elapsed).name] += 1
        await asyncio.sleep(random.uniform(0.005, 0.025))
        if random.random() >= self._schedule.faults(elapsed):
            return web.Response(text="ok\n")
        if random.random() < CLOSED and request.transport is not None:
            request.transport.close()
        return web.Response(status=503, text="unavailable\n")


async def serve(seconds: float) -> None:
    """Answer on a free port of loopback until standard input closes."""
    upstream = Upstream(Schedule(PHASES, seconds))
    app = web.Application()
    app.router.add_get("/work", upstream.work)
    app.router.add_post("/start", upstream.start)
    app.router.add_get("/stats", upstream.stats)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await _parent_gone()
    finally:
        await runner.cleanup()


async def _parent_gone() -> None:
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        # os.read and not sys.stdin: a thread inside the latter's lock breaks the exit.
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(gone.set)

    threading.Thread(target=watch, daemon=True).start()
    await gone.wait()


@contextlib.asynccontextmanager
async def running(seconds: float) -> AsyncIterator[str]:
    """The upstream in a child process, as its base URL. The child is gone afterwards.

    Raises:
        RuntimeError: it did not start.
    """
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(seconds),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        # Ctrl-C is for the parent alone, which still wants the child's numbers.
        start_new_session=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        try:
            line = await asyncio.wait_for(child.stdout.readline(), START_TIMEOUT)
        except TimeoutError:
            line = b""
        if not line.strip().isdigit():
            raise RuntimeError("the demo's upstream server did not start")
        yield f"http://127.0.0.1:{int(line)}"
    finally:
        child.stdin.close()
        try:
            await asyncio.wait_for(child.wait(), 3.0)
        except (TimeoutError, asyncio.CancelledError):
            child.kill()
            await child.wait()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
