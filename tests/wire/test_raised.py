"""Answers that come as exceptions are judged as answers; exceptions of others as the user says."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from ..kit.calls import books, retrying
from ..kit.clock import Clock
from ..kit.faults import Action, garbage, reply
from ..kit.fixtures import Open, Serve


async def strict(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """A middleware after ours that raises for a status."""
    response = await handler(request)
    if response.status >= 400:
        await response.read()
        response.raise_for_status()
    return response


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 418])
async def test_a_status_that_is_an_answer(status: int, serve: Serve, open_session: Open) -> None:
    """One request, and the exception for the caller; the origin is well."""
    server = await serve(reply(status))
    session = open_session(retry := retrying(), strict)
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        await session.get(server.url)
    assert caught.value.status == status
    assert retry.snapshot().failures == {}
    books(retry, server.hits, first_success=1)


@pytest.mark.parametrize(
    ("status", "line", "wait"),
    [
        (429, "Retry-After: 7", 7.0),
        (503, "retry-after-ms: 2000", 2.0),
        (403, "Retry-After: 3", 3.0),
    ],
)
async def test_a_wait_that_it_names(
    status: int, line: str, wait: float, serve: Serve, open_session: Open
) -> None:
    """It is heeded, and the failure is counted under the status."""
    server = await serve(reply(status, headers=f"{line}\r\n"), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock), strict)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert clock.waits == [pytest.approx(wait * 1.125)]
    assert retry.snapshot().failures == {str(status): 1}
    books(retry, 2, retry_success=1)


async def test_a_wait_that_is_too_long(serve: Serve, open_session: Open) -> None:
    """The exception is handed back at once."""
    server = await serve(reply(503, headers="Retry-After: 60\r\n"))
    session = open_session(retry := retrying(), strict)
    with pytest.raises(aiohttp.ClientResponseError):
        await session.get(server.url)
    assert retry.snapshot().suppressed == {"retry_after": 1}
    books(retry, server.hits, failed_without_retry=1)


async def test_a_retry_that_is_an_answer(serve: Serve, open_session: Open) -> None:
    """After a failure too an exception with another status ends the call, as a success."""
    server = await serve(reply(503), reply(404))
    session = open_session(retry := retrying(), strict)
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        await session.get(server.url)
    assert caught.value.status == 404
    books(retry, server.hits, retry_success=1)


@pytest.mark.parametrize(
    ("kind", "status", "requests"),
    [
        (aiohttp.ContentTypeError, 200, 1),
        (aiohttp.ContentTypeError, 503, 2),
        (aiohttp.WSServerHandshakeError, 404, 1),
        (aiohttp.WSServerHandshakeError, 503, 2),
        # Without a status of HTTP it is damage.
        (aiohttp.ClientResponseError, 0, 2),
    ],
)
async def test_other_exceptions_with_a_status(
    kind: Any, status: int, requests: int, serve: Serve, open_session: Open
) -> None:
    """Whatever the class is, the status decides."""

    async def raising(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        response.release()
        raise kind(response.request_info, (), status=status)

    server = await serve(reply())
    session = open_session(retry := retrying(max_attempts=2), raising)
    with pytest.raises(kind):
        await session.get(server.url)
    assert server.hits == requests
    outcome = "first_success" if requests == 1 else "failed_after_retry"
    books(retry, requests, **{outcome: 1})


async def test_an_answer_that_cant_be_parsed(serve: Serve, open_session: Open) -> None:
    """It has a status too, aiohttp's own 400, and is damage."""
    server = await serve(garbage(), reply())
    session = open_session(retry := retrying(), strict)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert retry.snapshot().failures == {"ClientResponseError": 1}
    books(retry, 2, retry_success=1)


# A proxy that refuses CONNECT says so in an exception as well.


@pytest.mark.parametrize("status", [429, 503])
async def test_a_proxy_that_names_a_wait(status: int, serve: Serve, open_session: Open) -> None:
    """It is heeded as an origin's."""
    proxy = await serve(reply(status, headers="Retry-After: 2\r\n"))
    clock = Clock()
    session = open_session(retry := retrying(clock, max_attempts=2))
    with pytest.raises(aiohttp.ClientHttpProxyError):
        await session.get("https://upstream.example/", proxy=proxy.url)
    assert clock.waits == [pytest.approx(2 * 1.125)]
    assert retry.snapshot().failures == {str(status): 2}
    books(retry, 2, failed_after_retry=1)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (reply(503, headers="Retry-After: 3600\r\n"), "retry_after"),
        (reply(503, headers="x-should-retry: false\r\n"), "not_retryable"),
        (reply(403, headers="RateLimit-Remaining: 0\r\n"), "limited"),
        (reply(403), "not_retryable"),
        (reply(407), "not_retryable"),
    ],
    ids=["a long wait", "a verdict", "a limit without an end", "403", "407"],
)
async def test_a_proxy_that_is_not_asked_again(
    fault: Action, reason: str, serve: Serve, open_session: Open
) -> None:
    """One CONNECT, and the error at once."""
    proxy = await serve(fault)
    session = open_session(retry := retrying())
    with pytest.raises(aiohttp.ClientHttpProxyError):
        await session.get("https://upstream.example/", proxy=proxy.url)
    assert retry.snapshot().suppressed == {reason: 1}
    books(retry, proxy.hits, failed_without_retry=1)


# Exceptions of the user's own.


class Busy(Exception):
    """Of an inner middleware."""


class Sub(Busy):
    """A class below."""


class Limited(aiohttp.ClientResponseError):
    """An answer, by a class of the user's own."""


def failing(*errors: Exception) -> Any:
    """A middleware that raises these in turn, and then sends."""
    left = list(errors)

    async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if left:
            raise left.pop(0)
        return await handler(request)

    return middleware


@pytest.mark.parametrize("error", [Busy(), Sub()], ids=["itself", "a class below"])
async def test_a_named_exception_is_retried(
    error: Exception, serve: Serve, open_session: Open
) -> None:
    """It counts as a transient failure under its name."""
    server = await serve(reply())
    session = open_session(retry := retrying(retry_exceptions=(Busy,)), failing(error))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert retry.snapshot().failures == {type(error).__name__: 1}
    books(retry, 2, retry_success=1)


async def test_a_named_exception_is_no_proof(serve: Serve, open_session: Open) -> None:
    """Nobody knows what an inner middleware has sent before it raised."""
    server = await serve(reply())
    session = open_session(retry := retrying(retry_exceptions=(Busy,)), failing(Busy()))
    with pytest.raises(Busy):
        await session.post(server.url)
    assert retry.snapshot().suppressed == {"not_idempotent": 1}
    books(retry, 1, failed_without_retry=1)


async def test_a_named_exception_with_a_status(serve: Serve, open_session: Open) -> None:
    """It is retried whatever its status is, and the wait that it names holds."""
    server = await serve(reply())
    clock = Clock()
    headers: Any = {"retry-after": "4"}
    info: Any = None
    error = Limited(info, (), status=420, headers=headers)
    session = open_session(retry := retrying(clock, retry_exceptions=[Limited]), failing(error))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert clock.waits == [pytest.approx(4 * 1.125)]
    books(retry, 2, retry_success=1)


async def test_everything_named_leaves_the_deadline(serve: Serve, open_session: Open) -> None:
    """A bare TimeoutError ends the call even if all exceptions are named."""
    server = await serve(reply())
    session = open_session(
        retry := retrying(retry_exceptions=(Exception,)), failing(TimeoutError())
    )
    with pytest.raises(TimeoutError):
        await session.get(server.url)
    assert server.hits == 0
    books(retry, 1, ignored=1)
