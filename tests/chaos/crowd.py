"""A thousand callers, a server that goes away and comes back, and what our code costs the loop."""

from __future__ import annotations

import asyncio
import gc
import linecache
import logging
import socket
import time
from asyncio import constants
from collections.abc import Awaitable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from ..kit.faults import FaultServer, reply
from ..kit.resolvers import EverywhereHere
from .tls import HOST

__all__ = ("Crowd", "Meter", "SlowCallbacks")


class _Measured:
    """Awaits something, and gives the processor time of each of its steps to `note`."""

    def __init__(self, work: Awaitable[Any], meter: Meter, ours: bool) -> None:
        self._work = work
        self._meter = meter
        self._ours = ours

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            began, others = time.thread_time(), self._meter.others
            try:
                awaited = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            finally:
                self._meter.note(self._ours, time.thread_time() - began, others)
            value, error = None, None
            try:
                value = yield awaited
            except BaseException as thrown:
                error = thrown


class Meter:
    """Processor time that a middleware takes by itself, step by step: what its handler, and the
    collector, take meanwhile is not counted. Time that the machine gave to others is not either.
    """

    def __init__(self, middleware: AdaptiveRetryMiddleware) -> None:
        self._middleware = middleware
        self._collecting = 0.0
        #: Seconds taken by handlers and by the collector.
        self.others = 0.0
        #: Seconds taken by the middleware in all, and in its longest step.
        self.total = self.longest = 0.0
        self.steps = 0

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async def measured(request: ClientRequest) -> ClientResponse:
            response: ClientResponse = await _Measured(handler(request), self, False)
            return response

        response: ClientResponse = await _Measured(self._middleware(request, measured), self, True)
        return response

    def note(self, ours: bool, seconds: float, others: float) -> None:
        """A step has ended that took so long, others' part in it included."""
        seconds -= self.others - others
        if not ours:
            self.others += seconds
            return
        self.steps += 1
        self.total += seconds
        self.longest = max(self.longest, seconds)

    def collecting(self, phase: str, _: dict[str, int]) -> None:
        """For `gc.callbacks`."""
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self.others += time.thread_time() - self._collecting

    def __enter__(self) -> Self:
        gc.callbacks.append(self.collecting)
        return self

    def __exit__(self, *_: object) -> None:
        gc.callbacks.remove(self.collecting)


class SlowCallbacks(logging.Handler):
    """What the loop's debug mode says of callbacks that took longer than 100 ms."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._patch = pytest.MonkeyPatch()

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())

    def __enter__(self) -> Self:
        self._loop.set_debug(True)
        # In debug mode the loop notes where each handle and future was made, and looks on the disk
        # whether the source has changed: many times as much work as all the rest.
        self._patch.setattr(constants, "DEBUG_STACK_DEPTH", 1)
        self._patch.setattr(linecache, "checkcache", lambda filename=None: None)
        self._loop.slow_callback_duration = 0.1
        logging.getLogger("asyncio").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("asyncio").removeHandler(self)
        self._loop.set_debug(False)
        self._patch.undo()


class _Switch(EverywhereHere):
    """Leads to the server, or to where nobody is."""

    def __init__(self, nobody: int) -> None:
        self._nobody = nobody
        self.up = True

    async def ports(self, port: int) -> Iterable[int]:
        return (port if self.up else self._nobody,)


@dataclass
class Crowd:
    """Callers of one server. What happens to it is counted from `begin` on."""

    config: AdaptiveConfig
    #: Since `begin`: attempts that were retries, by the tenth of a second; calls, and what came.
    calls: int = 0
    retries: int = 0
    successes: int = 0
    arrivals: dict[int, int] = field(default_factory=dict)
    #: Retries that began when the law of release did not allow them.
    unlawful: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)
    _began: float = 0.0
    _named: int = 0

    async def __aenter__(self) -> Self:
        self._nobody = socket.socket()
        self._nobody.bind(("127.0.0.1", 0))
        self.server = FaultServer(reply())
        await self.server.listen()
        self._url = self.server.url.with_host(HOST)
        self._switch = _Switch(self._nobody.getsockname()[1])
        self.retry = AdaptiveRetryMiddleware(self.config)
        self.meter = Meter(self.retry)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=100,
                resolver=self._switch,
                use_dns_cache=False,
                family=socket.AF_INET,
                force_close=True,
            ),
            middlewares=[self.meter, self._witness],
            # The longest for which a call's time is taken for the caller's word.
            timeout=aiohttp.ClientTimeout(total=60),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.server.close()
        self._nobody.close()

    @property
    def up(self) -> bool:
        """Whether the server can be reached."""
        return self._switch.up

    def begin(self, *, up: bool) -> None:
        """The server goes or comes; what is counted begins anew."""
        self._switch.up = up
        self.calls = self.retries = self.successes = 0
        self._began = time.monotonic()
        self.arrivals = {}

    def forget(self) -> None:
        """Let go of what is only kept for tests that look at it."""
        self.server.requests.clear()
        self.server.bodies.clear()

    async def call(self) -> int | str:
        """One call: a status, or the name of what was raised."""
        self._named += 1
        self.calls += 1
        try:
            async with self.session.get(
                self._url, headers={"X-Call": str(self._named)}
            ) as response:
                await response.read()
                return response.status
        except aiohttp.ClientError as error:
            return type(error).__name__

    @property
    def elapsed(self) -> float:
        """Seconds since `begin`."""
        return time.monotonic() - self._began

    async def _witness(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        name, tenth = request.headers["X-Call"], int(10 * self.elapsed)
        self.arrivals[tenth] = self.arrivals.get(tenth, 0) + 1
        if name in self._seen:
            self.retries += 1
            self._judge_release()
        self._seen.add(name)
        response = await handler(request)
        self.successes += response.status == 200
        return response

    def _judge_release(self) -> None:
        """Held calls are let go by successes: each lets go one, or one and a half.

        At most five more are under way: a small burst, and one that looks for itself.
        """
        if self.up and self.retries > 5 + 1.5 * self.successes:
            self.unlawful.append(
                f"{self.retries} after {self.successes} successes in {self.elapsed:.3f} s"
            )
