"""``python -m benchmarks.wire.alone``: one caller or a few, on real sockets, in small troubles.

The simulated worlds and the other scenarios have crowds. Here a caller waits for its answer before
it calls again, as scripts and workers do: beside no retries at all and the loop that everyone
writes, for requests that hang, a server that restarts, one that is dead, a pool of connections that
is dropped, and errors that can't mend.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Final

import aiohttp

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

__all__ = ("POLICIES", "Row", "in_plain_text", "run", "table")

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
# A request that hangs: longer than anybody waits.
_FOR_EVER: Final = 60.0

#: Makes a GET by one policy: true if it succeeded. Arguments: a session, the URL, and the seconds
#: that an attempt may take.
Get = Callable[[aiohttp.ClientSession, str, float | None], Awaitable[bool]]


async def _once(session: aiohttp.ClientSession, url: str, timeout: float | None) -> bool:
    try:
        async with asyncio.timeout(timeout), session.get(url) as response:
            await response.read()
            return response.status < 500
    except (aiohttp.ClientError, TimeoutError):
        return False


async def _loop(session: aiohttp.ClientSession, url: str, timeout: float | None) -> bool:
    """Three attempts, 0.1 and 0.2 seconds between them."""
    for attempt in range(3):
        if attempt:
            await asyncio.sleep(0.1 * attempt)
        if await _once(session, url, timeout):
            return True
    return False


async def _ours(session: aiohttp.ClientSession, url: str, timeout: float | None) -> bool:
    # The middleware has the limit of an attempt.
    return await _once(session, url, None)


NONE, LOOP, OURS = "no retries", "plain loop", "ours"
POLICIES: Final[dict[str, Get]] = {NONE: _once, LOOP: _loop, OURS: _ours}


@contextlib.asynccontextmanager
async def _session(
    policy: str, total: float | None, attempt_timeout: float | None = None, path: str | None = None
) -> AsyncIterator[tuple[aiohttp.ClientSession, AdaptiveRetryMiddleware]]:
    middleware = AdaptiveRetryMiddleware(AdaptiveConfig(attempt_timeout=attempt_timeout))
    async with aiohttp.ClientSession(
        middlewares=[middleware] if policy == OURS else [],
        connector=aiohttp.UnixConnector(path) if path else aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=total) if total else aiohttp.client.DEFAULT_TIMEOUT,
    ) as session:
        yield session, middleware


@dataclass(slots=True)
class Server:
    """Answers 200, counts requests, and can hang, be gone, or drop its connections."""

    hangs: Callable[[], bool] = lambda: False
    received: int = 0
    _listening: socket.socket = field(default_factory=socket.socket)
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def __post_init__(self) -> None:
        # Bound and not listening yet: the port is ours, and connections are refused.
        self._listening.bind(("127.0.0.1", 0))
        self._listening.setblocking(False)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}/"

    async def start(self) -> None:
        """Take connections from now on."""
        self._server = await asyncio.start_server(self._serve, sock=self._listening)

    async def stop(self) -> None:
        """Be gone; connections too."""
        self.drop()
        if self._server is not None:
            self._server.close()
        self._listening.close()

    def drop(self) -> None:
        """Reset all connections."""
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        # Cancelled at the end of all, which `asyncio.streams` would log.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.received += 1
                await asyncio.sleep(_FOR_EVER if self.hangs() else 0.005)
                writer.write(_OK)
                await writer.drain()
        writer.close()


@dataclass(frozen=True, slots=True)
class Row:
    """What one policy made of one trouble. Seconds; `attempts` is 0 where nobody counted them."""

    trouble: str
    policy: str
    calls: int
    succeeded: int
    mean: float
    attempts: int
    most_in_flight: int = 1


async def hangs(policy: str, share: float, callers: int, calls: int) -> Row:
    """So many callers, each of whose requests hangs by chance; 0.5 s an attempt, three a call."""
    chance = random.Random(7)
    server = Server(hangs=lambda: chance.random() < share)
    await server.start()
    took: list[float] = []
    good = 0
    async with _session(policy, 3.0, attempt_timeout=0.5) as (session, _):

        async def caller() -> None:
            nonlocal good
            for _ in range(calls // callers):
                begun = time.monotonic()
                succeeded = await POLICIES[policy](session, server.url, 0.5)
                good += succeeded
                took.append(time.monotonic() - begun)

        await asyncio.gather(*(caller() for _ in range(callers)))
    await server.stop()
    name = f"{share:.0%} of requests hang, callers: {callers}"
    return Row(name, policy, len(took), good, fmean(took), server.received)


async def restarts(policy: str, seconds: float, warm: bool, callers: int) -> Row:
    """Lone callers, each with a session and a server of its own that refuses for so long."""

    async def one() -> tuple[bool, float]:
        server = Server()
        async with _session(policy, 3.0) as (session, _):
            if warm:
                before = Server()
                await before.start()
                for _ in range(20):
                    await POLICIES[policy](session, before.url, None)
                await before.stop()
            starting = asyncio.get_running_loop().call_later(
                seconds, lambda: started.append(asyncio.ensure_future(server.start()))
            )
            started: list[asyncio.Future[None]] = []
            begun = time.monotonic()
            good = await POLICIES[policy](session, server.url, None)
            took = time.monotonic() - begun
            starting.cancel()
            for future in started:
                await future
        await server.stop()
        return good, took

    ended = await asyncio.gather(*(one() for _ in range(callers)))
    name = f"a restart of {seconds:g} s, total=3" + (", called before" if warm else "")
    good = sum(succeeded for succeeded, _ in ended)
    return Row(name, policy, callers, good, fmean(took for _, took in ended), 0)


async def dead(policy: str, calls: int) -> Row:
    """One call after the other to a server that is gone, by a caller who has two seconds."""
    server = Server()
    took = []
    async with _session(policy, 2.0) as (session, middleware):
        for _ in range(calls):
            begun = time.monotonic()
            await POLICIES[policy](session, server.url, None)
            took.append(time.monotonic() - begun)
    await server.stop()
    attempts = sum(middleware.snapshot().attempts.values()) if policy == OURS else 0
    name = "a dead origin, total=2, one call after the other, from the sixth on"
    return Row(name, policy, calls, 0, fmean(took[5:]), attempts)


async def dead_at_rate(policy: str, rate: float, seconds: float) -> Row:
    """Calls that don't wait for each other, to a server that is gone; each has two seconds."""
    server = Server()
    in_flight = most = 0
    took: list[float] = []
    async with _session(policy, 2.0) as (session, middleware):

        async def call() -> None:
            nonlocal in_flight, most
            in_flight += 1
            most = max(most, in_flight)
            begun = time.monotonic()
            await POLICIES[policy](session, server.url, None)
            took.append(time.monotonic() - begun)
            in_flight -= 1

        calls = []
        for _ in range(int(rate * seconds)):
            calls.append(asyncio.ensure_future(call()))
            await asyncio.sleep(1.0 / rate)
        await asyncio.gather(*calls)
    await server.stop()
    attempts = sum(middleware.snapshot().attempts.values()) if policy == OURS else 0
    name = f"the same, {rate:g} calls a second"
    return Row(name, policy, len(took), 0, fmean(took), attempts, most)


async def dropped(policy: str, connections: int) -> Row:
    """A pool of connections is dropped, and so many calls come at once."""
    server = Server()
    await server.start()
    async with _session(policy, 10.0) as (session, _):
        get = POLICIES[policy]
        await asyncio.gather(*(get(session, server.url, None) for _ in range(connections)))
        server.drop()
        server.received = 0
        begun = time.monotonic()
        good = await asyncio.gather(*(get(session, server.url, None) for _ in range(connections)))
        took = time.monotonic() - begun
    await server.stop()
    name = f"{connections} pooled connections are dropped, and so many calls come"
    return Row(name, policy, connections, sum(good), took, server.received)


async def cannot_mend(policy: str, url: str, path: str | None = None, calls: int = 5) -> Row:
    """Errors that no retry mends: a name that does not exist, a socket file that is missing."""
    took = []
    attempts = 0
    for _ in range(calls):
        async with _session(policy, None, path=path) as (session, middleware):
            begun = time.monotonic()
            await POLICIES[policy](session, url, None)
            took.append(time.monotonic() - begun)
            attempts += sum(middleware.snapshot().attempts.values())
    name = "a missing socket file" if path else "a name that does not exist"
    return Row(name, policy, calls, 0, median(took), attempts)


async def run(calls: int = 400, restarting: int = 12) -> list[Row]:
    """Run all policies through all troubles. Some 100 seconds with these numbers."""
    rows = []
    for policy in POLICIES:
        rows.append(await hangs(policy, 0.05, 1, calls))
        rows.append(await hangs(policy, 0.2, 4, calls))
        rows.append(await restarts(policy, 0.3, False, restarting))
        rows.append(await restarts(policy, 0.3, True, restarting))
        rows.append(await restarts(policy, 1.0, False, restarting))
        rows.append(await restarts(policy, 1.0, True, restarting))
        rows.append(await dead(policy, 30))
        rows.append(await dead_at_rate(policy, 50.0, 6.0))
        rows.append(await dropped(policy, 50))
        rows.append(await cannot_mend(policy, "http://no-such-host.invalid/"))
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "missing.sock")
            rows.append(await cannot_mend(policy, "http://localhost/", path))
    return rows


_HEADS: Final = ("trouble", "policy", "succeeded", "mean time", "attempts a call", "most in flight")


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The rows as texts, the policies of each trouble together."""
    found: list[tuple[str, ...]] = [_HEADS]
    for trouble in dict.fromkeys(row.trouble for row in rows):
        for row in rows:
            if row.trouble == trouble:
                attempts = f"{row.attempts / row.calls:.2f}" if row.attempts else ""
                in_flight = str(row.most_in_flight) if row.most_in_flight > 1 else ""
                succeeded = f"{row.succeeded} of {row.calls}"
                took = f"{row.mean:.3f} s"
                found.append((trouble, row.policy, succeeded, took, attempts, in_flight))
    return found


def in_plain_text(rows: Sequence[Row]) -> str:
    """The table for the terminal."""
    cells = table(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


if __name__ == "__main__":
    print(in_plain_text(asyncio.run(run())))
    sys.exit(0)
