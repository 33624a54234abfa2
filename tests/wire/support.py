"""What the tests of this folder share: a clock that nobody waits for, and books that must agree."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from .faults import Action, Exchange, FaultServer

Serve = Callable[..., Awaitable[FaultServer]]
Open = Callable[..., aiohttp.ClientSession]


class FakeTime:
    """A clock that only a wait moves on; waits are recorded and over at once."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        #: What happens during a wait, if anything does.
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)
        if self.meanwhile is not None:
            await self.meanwhile()


class EverywhereHere(AbstractResolver):
    """All names are this machine's: one server, as many origins as wanted."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing to close."""


def retrying(
    time: FakeTime | None = None, *, random: Callable[[], float] = lambda: 0.5, **config: Any
) -> AdaptiveRetryMiddleware:
    """A middleware on a fake clock."""
    time = FakeTime() if time is None else time
    return AdaptiveRetryMiddleware(
        AdaptiveConfig(**config), clock=time.clock, sleep=time.sleep, random=random
    )


def lavish(time: FakeTime | None = None, **config: Any) -> AdaptiveRetryMiddleware:
    """A middleware whose budget never is what ends a call."""
    return retrying(time, budget_capacity=1e6, budget_initial=1e6, **config)


def books(retry: AdaptiveRetryMiddleware, sent: int, **outcomes: int) -> None:
    """The counters say what the servers received, and each call is counted once, as this.

    `sent` is what all servers received together (attempts that no server could receive included).
    """
    snapshot = retry.snapshot()
    requests = snapshot.requests
    assert snapshot.faults == 0
    assert sum(snapshot.attempts.values()) == sent
    counted = {
        name: getattr(requests, name)
        for name in (
            "first_success",
            "retry_success",
            "failed_without_retry",
            "failed_after_retry",
            "refused",
            "ignored",
        )
        if getattr(requests, name)
    }
    assert counted == outcomes
    assert snapshot.attempts["original"] == requests.total - requests.refused
    assert [origin.in_flight for origin in snapshot.origins] == [0] * len(snapshot.origins)
    # Each call that ends in failure says once why it was not retried (again).
    failed = requests.failed_without_retry + requests.failed_after_retry
    assert sum(snapshot.suppressed.values()) == failed
    # An attempt is a success, a failure or, as the last of its call, ignored.
    succeeded = requests.first_success + requests.retry_success
    assert sum(snapshot.failures.values()) >= sent - succeeded - requests.ignored
    assert sum(snapshot.failures.values()) <= sent - succeeded


def tokens(retry: AdaptiveRetryMiddleware) -> float:
    """What is left in the budget of the one origin."""
    (origin,) = retry.snapshot().origins
    return origin.budget_available


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until it holds; it must within five seconds."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came true")


async def is_idle(session: aiohttp.ClientSession) -> None:
    """No call holds a connection: as many as the connector's limit can be had at once."""
    assert session.connector is not None
    limit = session.connector.limit
    everybody = asyncio.Event()

    async def wait_for_everybody(exchange: Exchange) -> bool:
        if exchange.server.hits == limit:
            everybody.set()
        await everybody.wait()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    server = FaultServer(Action(wait_for_everybody))
    await server.listen()

    async def once() -> bytes:
        async with session.get(server.url, middlewares=()) as answer:
            return await answer.read()

    try:
        async with asyncio.timeout(5):
            assert await asyncio.gather(*(once() for _ in range(limit))) == [b"ok"] * limit
        assert server.connections == limit
    finally:
        await server.close()


async def plainly(url: URL | str, method: str = "GET", **options: Any) -> BaseException:
    """What aiohttp alone raises here."""
    connector = options.pop("connector", None)
    timeout = options.pop("timeout", aiohttp.ClientTimeout(total=10))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        try:
            async with session.request(method, url, **options):
                raise AssertionError("this was to fail")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return error
