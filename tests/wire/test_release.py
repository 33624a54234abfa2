"""Connections: given back before the wait, shared by the attempts where that is cheap."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.http_exceptions import (
    ContentEncodingError,
    ContentLengthError,
    PayloadEncodingError,
    TransferEncodingError,
)

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.policy import FixedPolicy

from ..kit.calls import books, is_idle, lavish, retrying
from ..kit.clock import Clock
from ..kit.faults import Action, close, endless, raw, reply
from ..kit.fixtures import Open, Serve
from ..kit.resolvers import EverywhereHere

HUGE = b"x" * 5_000_000

#: Error answers of all shapes, and the connections that three attempts and their pool need.
SHAPES = {
    "no body": reply(503, b""),
    "small body": reply(503, b"try again"),
    "body in a later packet": reply(503, b"try again", split=0.01),
    "5 MB": reply(503, HUGE),
    "never ends": endless(503),
    "never comes": raw(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\n", then="hang"),
    "stops half way": raw(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nhalf", then="hang"),
    "breaks half way": raw(b"HTTP/1.1 503 No\r\nContent-Length: 100\r\n\r\nhalf", then="close"),
    "until the end of the connection": raw(b"HTTP/1.1 503 No\r\n\r\nall of it", then="close"),
    "chunks that are none": raw(
        b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnone!\r\n", then="close"
    ),
    "gzip that is none": raw(
        b"HTTP/1.1 503 No\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nnone!"
    ),
}


@pytest.mark.parametrize("failing", SHAPES.values(), ids=SHAPES)
async def test_no_connection_is_held_while_a_call_waits(
    failing: Action, serve: Serve, open_session: Open
) -> None:
    """A connector with one connection serves another request during the wait, and the retry."""
    server = await serve(failing, failing, reply(200, b"mended"))
    other = await serve(reply())
    clock = Clock()
    retry = retrying(clock)
    session = open_session(retry, limit=1)

    async def another_request() -> None:
        async with asyncio.timeout(5), session.get(other.url, middlewares=()) as answer:
            assert await answer.read() == b"ok"

    clock.meanwhile = another_request
    async with asyncio.timeout(10), session.get(server.url) as answer:
        assert (answer.status, await answer.read()) == (200, b"mended")
    assert (server.hits, other.hits, len(clock.waits)) == (3, 2, 2)
    books(retry, server.hits, retry_success=1)
    await is_idle(session)


async def test_an_unread_5mb_answer_does_not_block_its_own_retry(
    serve: Serve, open_session: Open
) -> None:
    """With one connection and nobody else, the retry of a 5 MB 503 goes out."""
    server = await serve(reply(503, HUGE), reply())
    session = open_session(retry := retrying(), limit=1)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert server.hits == 2
    books(retry, server.hits, retry_success=1)


@pytest.mark.parametrize("shape", ["no body", "small body", "body in a later packet"])
async def test_small_error_bodies_cost_no_new_connection(
    shape: str, serve: Serve, open_session: Open
) -> None:
    """Three attempts share one connection where the error's body is small and near."""
    server = await serve(SHAPES[shape], SHAPES[shape], reply())
    session = open_session(retry := retrying())
    async with session.get(server.url) as answer:
        assert await answer.read() == b"ok"
    assert (server.hits, server.connections) == (3, 1)
    books(retry, server.hits, retry_success=1)


async def test_a_huge_error_body_is_not_read(serve: Serve, open_session: Open) -> None:
    """5 MB are not downloaded for the sake of a connection: each attempt has a new one."""
    # More than the kernel's buffers between the two hold, so that what was not read stays behind.
    huge = HUGE * 4
    server = await serve(reply(503, huge), reply(503, huge), reply())
    session = open_session(retry := retrying())
    async with session.get(server.url) as answer:
        assert await answer.read() == b"ok"
    assert (server.hits, server.connections) == (3, 3)
    assert server.cut == 2
    books(retry, server.hits, retry_success=1)


async def test_answers_that_never_end_leave_no_connection_behind(
    serve: Serve, open_session: Open
) -> None:
    """Thirty calls at once, each with two bodies that never complete: the pool is whole after.

    Each to an origin of its own, since thirty failures of one in a row are an outage.
    """
    server = await serve(*[SHAPES["never comes"]] * 60, reply())
    connector = aiohttp.TCPConnector(limit=30, resolver=EverywhereHere(), family=socket.AF_INET)
    session = open_session(retry := lavish(max_attempts=9), connector=connector)

    async def call(number: int) -> int:
        async with session.get(server.url.with_host(f"h{number}.test")) as answer:
            return answer.status

    assert await asyncio.gather(*(call(number) for number in range(30))) == [200] * 30
    assert server.hits == 90
    # All first attempts were in flight together.
    books(retry, 90, retry_success=30)
    await is_idle(session)


@pytest.mark.parametrize("body", [b"", b"the last word", HUGE], ids=["none", "small", "5 MB"])
async def test_the_last_answer_is_handed_back_unread(
    body: bytes, serve: Serve, open_session: Open
) -> None:
    """When attempts run out the caller reads the last answer, whole, as if there was no retry."""
    server = await serve(reply(503, b"the first"), reply(503, body, headers="X-Number: 2\r\n"))
    session = open_session(retry := retrying(max_attempts=2), limit=1)
    async with session.get(server.url) as answer:
        assert answer.status == 503
        assert answer.headers["X-Number"] == "2"
        assert await answer.read() == body
    assert server.hits == 2
    books(retry, server.hits, failed_after_retry=1)
    await is_idle(session)


@pytest.mark.parametrize("body", [b"", b"the only word", HUGE], ids=["none", "small", "5 MB"])
async def test_an_answer_that_is_not_retried_is_handed_back_unread(
    body: bytes, serve: Serve, open_session: Open
) -> None:
    """A refusal to retry hands back what the server said, at once and whole."""
    server = await serve(reply(503, body))
    clock = Clock()
    session = open_session(retry := retrying(clock), limit=1)
    async with session.post(server.url, data=b"x") as answer:
        assert (answer.status, await answer.read()) == (503, body)
    assert (server.hits, clock.waits) == (1, [])
    books(retry, server.hits, failed_without_retry=1)
    await is_idle(session)


async def test_the_answer_of_a_call_that_is_given_up_is_handed_back_unread(
    serve: Serve, open_session: Open
) -> None:
    """Without a retry nothing is waited for, and the answer is whole."""
    server = await serve(reply(503, HUGE))
    clock = Clock()
    retry = AdaptiveRetryMiddleware(
        policy=lambda origin: FixedPolicy(attempts=1), clock=clock, sleep=clock.sleep
    )
    session = open_session(retry, limit=1)
    async with session.get(server.url) as answer:
        assert (answer.status, await answer.read()) == (503, HUGE)
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"max_attempts": 1}
    books(retry, server.hits, failed_without_retry=1)


async def test_a_head_request_is_retried_on_its_one_connection(
    serve: Serve, open_session: Open
) -> None:
    """A Content-Length without a body, as HEAD has it, is not waited for."""
    server = await serve(reply(503, b"no such body"), reply())
    session = open_session(retry := retrying())
    async with session.head(server.url) as answer:
        assert answer.status == 200
    assert (server.hits, server.connections) == (2, 1)
    books(retry, server.hits, retry_success=1)


async def test_a_failed_attempt_leaves_no_connection_either(
    serve: Serve, open_session: Open
) -> None:
    """Connections that the server ended are out of the pool before the wait."""
    server = await serve(close(), close(), close())
    session = open_session(retry := retrying(max_attempts=3), limit=1)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await session.get(server.url)
    assert server.hits == 3
    books(retry, server.hits, failed_after_retry=1)
    await is_idle(session)


#: What a body has been seen to end with, and what it never should.
BODY_ERRORS: list[Exception] = [
    TransferEncodingError("zz"),
    ContentLengthError("too short"),
    ContentEncodingError("no gzip"),
    PayloadEncodingError("broken"),
    aiohttp.ClientPayloadError("not completed"),
    aiohttp.ServerDisconnectedError(),
    aiohttp.SocketTimeoutError("too slow"),
    ConnectionResetError(104, "reset"),
    ValueError("a digit is none"),
    RuntimeError("anything at all"),
    EOFError(),
]


@pytest.mark.parametrize("error", BODY_ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("in_trouble", [False, True])
@pytest.mark.parametrize("later", [False, True])
async def test_a_body_that_is_thrown_away_never_replaces_the_answer(
    error: Exception, in_trouble: bool, later: bool, serve: Serve, open_session: Open
) -> None:
    """Whatever reading raises, the call is retried as without a body, and ends with its answer."""
    unfinished = raw(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\nhalf", then="hang")
    server = await serve(*[close()] * 4 * in_trouble, unfinished)

    async def breaking(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if later:
            asyncio.get_running_loop().call_later(0.01, response.content.set_exception, error)
        else:
            response.content.set_exception(error)
        return response

    session = open_session(retry := lavish(max_attempts=2), breaking)
    for _ in range(2 * in_trouble):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await session.get(server.url)
    hits = server.hits
    answer = await session.get(server.url)
    assert answer.status == 503
    assert server.hits == hits + 2
    assert retry.snapshot().faults == 0
    answer.release()


def test_the_same_with_the_parser_in_python() -> None:
    """A chunk that is none, in a packet of its own: the caller gets the 503, and not its body."""
    script = """
import asyncio, aiohttp
from aiohttp.http_parser import HttpResponseParser, HttpResponseParserPy
from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
assert HttpResponseParser is HttpResponseParserPy
hits = 0

async def broken(reader, writer):
    global hits
    await reader.readuntil(b"\\r\\n\\r\\n")
    hits += 1
    writer.write(b"HTTP/1.1 503 No\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
    await writer.drain()
    await asyncio.sleep(0.01)
    writer.write(b"zz\\r\\nhello\\r\\n0\\r\\n\\r\\n")
    await reader.read()
    writer.close()

async def main():
    server = await asyncio.start_server(broken, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    retry = AdaptiveRetryMiddleware(AdaptiveConfig(max_attempts=2, backoff_base=0.01))
    async with aiohttp.ClientSession(middlewares=[retry]) as session:
        async with session.get(f"http://127.0.0.1:{port}/") as answer:
            print(answer.status, hits)
    server.close()

asyncio.run(main())
"""
    environment = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("503 2\n", "")
