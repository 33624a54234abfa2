"""A server that plays a script, a resolver that plays its part in it, and a caller in between.

An attempt takes one step of the script: in the resolver, at its connection or with its head,
whichever the step is about. What every attempt came to is noted by a middleware behind ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry._errors import error_name

from ..kit.clock import Clock
from ..kit.faults import Action, Exchange, FaultServer
from ..kit.resolvers import EverywhereHere
from . import tls
from .bodies import BODIES, Place
from .faults import ANSWERS, ENDLESS, OK, RETRIED, Fault, Script

__all__ = ("Attempt", "Call", "Ending", "World", "what_came_of")

#: Seconds for an attempt, or a call without the middleware, that would never end.
SOON = 0.1
#: Seconds for what must happen at once.
AT_ONCE = 20.0


class ScriptedServer(FaultServer):
    """A fault server whose script is names."""

    def __init__(self, names: Script) -> None:
        super().__init__()
        self.names = names

    def step(self) -> Fault:
        """What the next attempt will meet."""
        return ANSWERS[self.names[min(self.hits, len(self.names) - 1)]]

    def keeps_connection(self) -> bool:
        """Whether the next attempt may come on a connection that is open already."""
        return self.step().place == "request"

    async def _secure(self, writer: asyncio.StreamWriter) -> None:
        if self.step().place != "handshake":
            await super()._secure(writer)

    def _next(self) -> Action:
        action = self.step().action
        return Action(self._elsewhere, at_accept=True) if action is None else self._asked(action)

    @staticmethod
    async def _elsewhere(exchange: Exchange) -> bool:
        """A connection that nobody asked the resolver for."""
        raise AssertionError("this attempt was not to come here")

    @staticmethod
    def _asked(action: Action) -> Action:
        """Tell a client that waits for it to go on with its body first."""
        if action.at_accept:
            return action

        async def run(exchange: Exchange) -> bool:
            if "expect" in exchange.headers:
                await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return await action.run(exchange)

        return Action(run)


class ScriptedResolver(EverywhereHere):
    """Sends an attempt to the server, or to what the script has instead."""

    def __init__(self, server: ScriptedServer, nobody: int) -> None:
        self._server = server
        self._nobody = nobody

    async def ports(self, port: int) -> Iterable[int]:
        step = self._server.step()
        if step.place == "name":
            self._server.hits += 1
            if step.endless:
                await asyncio.Event().wait()
            if aiohttp.ClientConnectorDNSError in step.raises:
                raise OSError(None, "no such host")
            port = self._nobody
        return (port,)


@dataclass
class Attempt:
    """One attempt as a middleware behind ours saw it."""

    call: str
    #: By the fake clock, as is `until`.
    at: float
    #: A redirect leads to a path of its own.
    path: str
    #: Whether `attempt_timeout` may end it.
    limited: bool
    #: Whether its connection had been used before.
    reused: bool = False
    #: A status, or the exception; None while it is under way.
    came_to: int | BaseException | None = None
    until: float = math.inf

    @property
    def failure(self) -> str | None:
        """Under which name it is to be counted as a failure, if it is one."""
        end = self.came_to
        if isinstance(end, int):
            return str(end) if end in RETRIED else None
        if isinstance(end, asyncio.CancelledError):
            # Else the call's own deadline: who leaves is no matter of these worlds.
            return "ServerTimeoutError" if self.limited else None
        if isinstance(end, aiohttp.ClientError | ConnectionError):
            return error_name(end)
        return None


@dataclass
class Ending:
    """What a caller got: a status and what reading its body came to, or an exception."""

    status: int | None = None
    body: bytes | None = None
    unreadable: type[BaseException] | None = None
    error: BaseException | None = None
    #: When the call was made, by the fake clock.
    began: float = 0.0


@dataclass(frozen=True)
class Call:
    """What a caller asks for, in plain values."""

    method: str = "GET"
    body: str = "none"
    expect: bool = False
    total: float = 1000.0
    key: bool = False


@dataclass
class World:
    """A script, the server that plays it, and a session with our middleware, or without."""

    script: Script
    folder: Path
    alone: bool = False
    config: dict[str, Any] = field(default_factory=dict)
    random: Callable[[], float] = lambda: 0.5
    limit: int = 1
    keep_alive: bool = True
    tls: bool = False

    async def __aenter__(self) -> Self:
        self.clock = Clock()
        self.began = self.clock.now
        #: In the order in which they began, and in which they ended.
        self.attempts: list[Attempt] = []
        self.ended: list[Attempt] = []
        self._limited = self.config.get("attempt_timeout") is not None
        self._of_task: WeakKeyDictionary[asyncio.Task[Any], Attempt] = WeakKeyDictionary()
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_reuseconn.append(self._reuses)
        self.server = ScriptedServer(self.script)
        self._nobody = socket.socket()
        # Bound and not listening: refused, and nobody else can have the port meanwhile.
        self._nobody.bind(("127.0.0.1", 0))
        await self.server.listen(tls=tls.server_side() if self.tls else None)
        self.url = self.server.url.with_host(tls.HOST)
        self.retry = AdaptiveRetryMiddleware(
            AdaptiveConfig(**self.config),
            clock=self.clock,
            sleep=self.clock.sleep,
            random=self.random,
        )
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self.limit,
                resolver=ScriptedResolver(self.server, self._nobody.getsockname()[1]),
                use_dns_cache=False,
                family=socket.AF_INET,
                force_close=not self.keep_alive,
                ssl=tls.client_side(),
            ),
            middlewares=[self._witness] if self.alone else [self.retry, self._witness],
            trace_configs=[tracing],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.server.close()
        self._nobody.close()

    async def _witness(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        attempt = Attempt(
            request.headers["X-Call"], self.clock.now, request.url.path, self._limited
        )
        self.attempts.append(attempt)
        task = asyncio.current_task()
        assert task is not None
        self._of_task[task] = attempt
        try:
            response = await handler(request)
        except BaseException as error:
            self._note(attempt, error)
            raise
        self._note(attempt, response.status)
        return response

    def _note(self, attempt: Attempt, came_to: int | BaseException) -> None:
        attempt.came_to, attempt.until = came_to, self.clock.now
        self.ended.append(attempt)

    async def _reuses(self, *_: object) -> None:
        task = asyncio.current_task()
        if task is not None and task in self._of_task:
            self._of_task[task].reused = True

    async def call(self, call: Call, name: str = "0") -> Ending:
        """Make a call, and read what it is answered where that has an end."""
        began = self.clock.now
        ending = await self._call(call, name)
        ending.began = began
        return ending

    async def _call(self, call: Call, name: str) -> Ending:
        headers = {"X-Call": name}
        if call.key:
            headers["Idempotency-Key"] = name
        with contextlib.ExitStack() as closing:
            options = BODIES[call.body].make(Place(self.folder, closing))
            try:
                async with self.session.request(
                    call.method,
                    self.url,
                    headers=headers,
                    expect100=call.expect,
                    timeout=aiohttp.ClientTimeout(total=call.total),
                    **options,
                ) as response:
                    return await self._read(response)
            except Exception as error:
                return Ending(error=error)

    async def _read(self, response: ClientResponse) -> Ending:
        if ENDLESS in response.headers:
            return Ending(response.status)
        try:
            async with asyncio.timeout(AT_ONCE):
                return Ending(response.status, body=await response.read())
        except aiohttp.ClientError as error:
            return Ending(response.status, unreadable=type(error))

    async def is_free(self) -> bool:
        """Whether nothing holds a connection: as many as the limit can be had at once."""
        self.server.names = (OK,)
        async with asyncio.timeout(AT_ONCE):
            for _ in range(self.limit):
                async with self.session.get(
                    self.url, middlewares=(), timeout=aiohttp.ClientTimeout(total=None)
                ) as response:
                    if response.status != 200:
                        return False
        return True


def what_came_of(ending: Ending) -> tuple[int | None, type[BaseException] | None, object]:
    """What has to be the same with the middleware and without."""
    error = None if ending.error is None else type(ending.error)
    return ending.status, error, ending.body if ending.unreadable is None else ending.unreadable
