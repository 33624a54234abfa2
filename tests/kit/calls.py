"""Middlewares on a fake clock, and what must hold after calls through them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from .clock import Clock
from .faults import Action, Exchange, FaultServer


def retrying(
    clock: Clock | None = None, *, random: Callable[[], float] = lambda: 0.5, **config: Any
) -> AdaptiveRetryMiddleware:
    """A middleware on a fake clock, which affords four retries of an origin that is new."""
    clock = Clock() if clock is None else clock
    config.setdefault("budget_initial", 4.0)
    return AdaptiveRetryMiddleware(
        AdaptiveConfig(**config), clock=clock, sleep=clock.sleep, random=random
    )


def lavish(clock: Clock | None = None, **config: Any) -> AdaptiveRetryMiddleware:
    """A middleware whose budget never is what ends a call."""
    return retrying(clock, budget_capacity=1e6, budget_initial=1e6, **config)


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
