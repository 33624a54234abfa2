"""A call's time counts from its start, whatever had passed before the middleware was reached."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from ..kit.calls import books, retrying
from ..kit.clock import Clock
from ..kit.faults import redirect, reply
from ..kit.fixtures import Open, Serve

#: A second for the call. The server asks for 0.7 of it, of which jitter makes 0.79.
TIMEOUT = aiohttp.ClientTimeout(total=1.0)
LATER = reply(503, b"later", headers="Retry-After: 0.7\r\n")
#: What passes before.
BEFORE = 0.35


async def slow(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """A middleware before ours that fetches a token."""
    await asyncio.sleep(BEFORE)
    return await handler(request)


async def plain(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """One that takes no time."""
    return await handler(request)


async def in_a_task(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """One that runs the chain in a task of its own, where nobody knows what has passed."""
    await asyncio.sleep(BEFORE)
    return await asyncio.get_running_loop().create_task(handler(request))  # type: ignore[arg-type]


def tracing() -> aiohttp.TraceConfig:
    """Trace callbacks that take as long."""

    async def wait(*_: Any) -> None:
        await asyncio.sleep(BEFORE)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(wait)
    return config


@pytest.mark.parametrize(
    ("before", "traces"), [([slow], []), ([], [tracing()])], ids=["middleware", "trace"]
)
@pytest.mark.parametrize("admission", [False, True])
async def test_what_passed_before_counts(
    before: Any, traces: Any, admission: bool, serve: Serve, open_session: Open
) -> None:
    """The wait would end after the deadline, so the server's answer is handed back at once."""
    server = await serve(LATER, reply())
    clock = Clock()
    retry = retrying(clock, admission=admission)
    session = open_session(*before, retry, trace_configs=traces, timeout=TIMEOUT)
    async with session.get(server.url) as answer:
        assert (answer.status, await answer.read()) == (503, b"later")
    assert clock.waits == []
    assert retry.snapshot().suppressed == {"deadline": 1}
    books(retry, server.hits, failed_without_retry=1)


@pytest.mark.parametrize(
    "before", [[], [plain], [in_a_task]], ids=["nobody", "a fast one", "a task of its own"]
)
async def test_without_it_there_is_time(before: Any, serve: Serve, open_session: Open) -> None:
    """The same wait is waited where nothing has passed, or where nobody knows what has."""
    server = await serve(LATER, reply())
    clock = Clock()
    session = open_session(*before, retry := retrying(clock), timeout=TIMEOUT)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert clock.waits == [pytest.approx(0.7 * 1.125)]
    books(retry, server.hits, retry_success=1)


async def test_a_call_without_a_limit(serve: Serve, open_session: Open) -> None:
    """There is nothing to count."""
    server = await serve(LATER, reply())
    timeout = aiohttp.ClientTimeout(total=None)
    session = open_session(slow, retry := retrying(), timeout=timeout)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    books(retry, server.hits, retry_success=1)


async def test_an_earlier_hop_counts(serve: Serve, open_session: Open) -> None:
    """What passed before the first hop is not forgotten at the second one."""
    server = await serve(redirect("/on"), LATER, reply())
    clock = Clock()
    passed = iter([slow, plain])

    async def first_slow(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await next(passed)(request, handler)

    session = open_session(first_slow, retry := retrying(clock), timeout=TIMEOUT)
    async with session.get(server.url) as answer:
        assert answer.status == 503
    assert clock.waits == []
    assert retry.snapshot().suppressed == {"deadline": 1}


async def test_a_call_inside_a_middleware_has_its_own_time(
    serve: Serve, open_session: Open
) -> None:
    """Of two calls, one inside of the other, each counts from its own start."""
    server = await serve(LATER, reply(), reply())
    clock = Clock()
    retry = retrying(clock)
    inner = open_session(retry, timeout=aiohttp.ClientTimeout(total=1.0))

    async def token(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await asyncio.sleep(BEFORE)
        async with inner.get(server.url) as answer:
            assert answer.status == 200
        return await handler(request)

    session = open_session(token, timeout=TIMEOUT)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert len(clock.waits) == 1
