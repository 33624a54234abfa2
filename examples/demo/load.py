"""The demo's clients: the middleware, the plain loop, and the traffic that both get.

The traffic is an open loop: calls begin at a fixed rate whether or not earlier ones have ended, as
users do who don't know of each other. So a client that retries more really loads the server more.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from phases import ADAPTIVE, CLIENT_HEADER, PHASE_HEADER, PLAIN, Schedule

#: The sessions' total timeout in seconds. For the middleware it bounds a call with its retries.
CALL_TIMEOUT = 10.0
# Enough of an answer; a page of many megabytes, several times a second, is no gentle visitor's.
_MOST_BYTES = 1 << 20
# A machine that was asleep does not get all the calls that it missed at once.
_LONGEST_CATCH_UP = 0.5


@dataclass
class Calls:
    """The calls of one kind of client that began in one phase."""

    begun: int = 0
    ended: int = 0
    succeeded: int = 0
    #: All calls that ended, together.
    seconds: float = 0.0


Send = Callable[[str], Awaitable[bool]]


def adaptive_client(session: aiohttp.ClientSession, url: str, *, marked: bool = True) -> Send:
    """A call through a session that has the middleware: it just asks.

    `marked` calls say whose they are, for the demo's server to count.
    """

    async def send(phase: str) -> bool:
        headers = _headers(ADAPTIVE, phase) if marked else None
        async with session.get(url, headers=headers) as response:
            await _read(response)
            return response.status < 500

    return send


def plain_client(session: aiohttp.ClientSession, url: str) -> Send:
    """The loop that everyone writes: three attempts, a short wait that doubles."""

    async def send(phase: str) -> bool:
        for attempt in range(3):
            if attempt:
                await asyncio.sleep(0.1 * 2 ** (attempt - 1))
            try:
                async with session.get(url, headers=_headers(PLAIN, phase)) as response:
                    await _read(response)
                    if response.status < 500:
                        return True
            except aiohttp.ClientError:
                continue
        return False

    return send


async def _read(response: aiohttp.ClientResponse) -> None:
    length = 0
    async for chunk in response.content.iter_chunked(65_536):
        length += len(chunk)
        if length >= _MOST_BYTES:
            return


def _headers(client: str, phase: str) -> dict[str, str]:
    return {CLIENT_HEADER: client, PHASE_HEADER: phase}


class Load:
    """Calls of every client at the same moments, and what became of them.

    Args:
        clients: how each kind of client sends one call; True for a success.
        schedule: for which phase a call counts.
        rate: calls a second for each kind.
    """

    def __init__(self, clients: dict[str, Send], schedule: Schedule, rate: float) -> None:
        self.clients = clients
        self.schedule = schedule
        self.rate = rate
        #: By client and phase.
        self.calls: defaultdict[tuple[str, str], Calls] = defaultdict(Calls)
        #: The newest kind of error that a call ended with, if any.
        self.newest_error: str | None = None
        self._started: float | None = None
        self._running: set[asyncio.Task[None]] = set()

    @property
    def elapsed(self) -> float:
        """Seconds since the first call was due."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    async def run(self) -> None:
        """Begin calls until the schedule's time is over."""
        self._started = time.monotonic()
        due = 0.0
        while due < self.schedule.seconds:
            late = self.elapsed - due
            if late < 0:
                await asyncio.sleep(-late)
            elif late > _LONGEST_CATCH_UP:
                due = self.elapsed
            phase = self.schedule.at(due).name
            for client, send in self.clients.items():
                task = asyncio.create_task(self._call(client, phase, send))
                # The loop itself holds tasks only weakly.
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            due += 1 / self.rate

    async def drain(self, seconds: float) -> None:
        """Give calls in flight so many seconds to end, then cancel them."""
        if self._running and seconds > 0:
            await asyncio.wait(self._running, timeout=seconds)
        left = tuple(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _call(self, client: str, phase: str, send: Send) -> None:
        calls = self.calls[client, phase]
        calls.begun += 1
        began = time.monotonic()
        succeeded = False
        try:
            succeeded = await send(phase)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.newest_error = type(error).__name__
        calls.ended += 1
        calls.succeeded += succeeded
        calls.seconds += time.monotonic() - began
