"""What a waiting call keeps: no head, no bomb; and nothing of an answer outlives its call."""

from __future__ import annotations

import asyncio
import gc
import gzip
import weakref
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
from aiohttp_adaptive_retry._http.kept import KEPT_BYTES

from ..kit.calls import retrying
from ..kit.clock import Clock
from ..kit.faults import Action, Exchange, close, raw, redirect, reply
from ..kit.fixtures import Open, Serve

PATIENT: dict[str, Any] = {"hold_cap": 60.0, "hold_share": 0.7, "budget_initial": 20.0}


class Witness:
    """A middleware after ours that remembers, weakly, what its attempts brought."""

    def __init__(self) -> None:
        self.brought: list[weakref.ref[BaseException | ClientResponse]] = []

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        try:
            response = await handler(request)
        except aiohttp.ClientError as error:
            self.brought.append(weakref.ref(error))
            raise
        self.brought.append(weakref.ref(response))
        return response

    def alive(self) -> list[BaseException | ClientResponse]:
        """What is still there."""
        gc.collect()
        return [there for ref in self.brought if (there := ref()) is not None]


def cut_head(size: int) -> Action:
    """A head with a cookie, of about that size, that breaks off before its end."""

    async def run(exchange: Exchange) -> bool:
        lines = "".join(f"X-{number}: {'y' * 3900}\r\n" for number in range(size // 4000))
        head = f"HTTP/1.1 200 OK\r\nSet-Cookie: CANARY=1\r\n{lines}Content-Le"
        await exchange.send(head.encode())
        return False

    return Action(run)


async def ending(session: aiohttp.ClientSession, url: Any) -> BaseException | int:
    """What one call comes to."""
    try:
        async with session.get(url) as answer:
            return answer.status
    except aiohttp.ClientError as error:
        return error.with_traceback(None)


@pytest.mark.parametrize("size", [0, 40_000, 200_000])
async def test_no_head_is_kept_while_a_call_waits(
    size: int, serve: Serve, open_session: Open
) -> None:
    """A broken head's exception is gone before the wait; the caller gets the last one whole."""
    server = await serve(cut_head(size))
    clock, witness = Clock(), Witness()
    session = open_session(retrying(clock, **PATIENT), witness)
    kept: list[int] = []

    async def look() -> None:
        kept.append(len(witness.alive()))

    clock.meanwhile = look
    error = await ending(session, server.url)
    assert kept == [0] * len(clock.waits)
    assert kept
    assert isinstance(error, aiohttp.ServerDisconnectedError)


async def test_no_large_answer_is_kept_while_a_call_waits(serve: Serve, open_session: Open) -> None:
    """An answer with a small body and a large head is let go of, or handed back at once."""
    headers = "".join(f"X-{number}: {'y' * 3900}\r\n" for number in range(10))
    server = await serve(reply(503, b"no", headers=headers))
    clock, witness = Clock(), Witness()
    session = open_session(retrying(clock, **PATIENT), witness)
    kept: list[int] = []

    async def look() -> None:
        kept.append(len(witness.alive()))

    clock.meanwhile = look
    for _ in range(8):
        assert await ending(session, server.url) == 503
    assert kept == [0] * len(clock.waits)
    assert kept


def gzipped(body: bytes) -> tuple[str, bytes]:
    return "gzip", gzip.compress(body, 9)


def deflated(body: bytes) -> tuple[str, bytes]:
    return "deflate", zlib.compress(body, 9)


def plain(body: bytes) -> tuple[str, bytes]:
    return "identity", body


@pytest.mark.parametrize("encode", [gzipped, deflated, plain])
@pytest.mark.parametrize("size", [10, 15_000, 17_000, 250_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_an_answer_is_kept_by_what_it_is_in_memory(
    encode: Callable[[bytes], tuple[str, bytes]],
    size: int,
    chunked: bool,
    serve: Serve,
    open_session: Open,
) -> None:
    """However small it was on the wire, what is large when decoded is not kept through a wait.

    The answer that the caller gets in the end can be read whole.
    """
    coding, data = encode(b"\0" * size)
    if chunked:
        length, data = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    else:
        length = f"Content-Length: {len(data)}"
    head = f"HTTP/1.1 503 No\r\nContent-Encoding: {coding}\r\n{length}\r\n\r\n".encode()
    server = await serve(*[close()] * 3, raw(head + data))
    clock, witness = Clock(), Witness()
    retry = retrying(clock, **PATIENT)
    session = open_session(retry, witness)
    kept: list[int] = []

    async def look() -> None:
        there = witness.alive()
        kept.extend(
            answer.content.total_bytes for answer in there if isinstance(answer, ClientResponse)
        )
        assert retry._registry.waiting.bytes <= KEPT_BYTES * retry._registry.waiting.count

    clock.meanwhile = look
    answers = []
    for _ in range(4):
        try:
            async with session.get(server.url) as answer:
                answers.append(await answer.read())
        except aiohttp.ClientConnectionError:
            pass
    assert clock.waits
    assert all(count <= KEPT_BYTES for count in kept)
    assert answers
    assert set(answers) == {b"\0" * size}


LOSSES = {"closed": close(), "head cut": cut_head(8_000)}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_note_between_two_runs_ends_with_its_call(
    loss: Action, attempts: int, serve: Serve, open_session: Open
) -> None:
    """aiohttp runs the chain twice; afterwards nothing is left, though no other call comes."""
    server = await serve(loss)
    witness = Witness()
    retry = retrying(max_attempts=attempts)
    session = open_session(retry, witness)
    for _ in range(20):
        error = await ending(session, server.url)
        assert isinstance(error, aiohttp.ServerDisconnectedError)
        del error
    # The loop's present step still holds the last one.
    await asyncio.sleep(0)
    assert witness.alive() == []
    await asyncio.sleep(0)
    assert not retry._runs.noted


async def test_a_note_whose_second_run_never_comes_ends_with_its_call(
    serve: Serve, open_session: Open
) -> None:
    """A middleware before ours has an answer of its own; a redirect is not followed."""
    server = await serve(close(), redirect("/elsewhere"))

    async def forgiving(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        try:
            return await handler(request)
        except aiohttp.ClientError:
            raise aiohttp.ClientError("translated") from None

    retry = retrying(max_attempts=1)
    session = open_session(forgiving, retry)
    error = await ending(session, server.url)
    assert str(error) == "translated"
    del error
    async with session.get(server.url, allow_redirects=False) as answer:
        assert answer.status == 302
        assert answer.history == ()
    gc.collect()
    await asyncio.sleep(0)
    assert not retry._runs.noted


async def test_the_error_after_two_runs_has_its_cause(serve: Serve, open_session: Open) -> None:
    """It is of the same type, with the same arguments and cause as aiohttp alone raises."""
    reset_by_peer = ConnectionResetError(104, "Connection reset by peer")

    async def losing(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        error = aiohttp.ClientOSError(104, "Connection reset by peer")
        error.add_note("told")
        raise error from reset_by_peer

    server = await serve(reply())
    retry = retrying(max_attempts=1)
    error = await ending(open_session(retry, losing), server.url)
    assert type(error) is aiohttp.ClientOSError
    assert (error.errno, error.strerror) == (104, "Connection reset by peer")
    assert error.__notes__[0] == "told"
    assert type(error.__cause__) is ConnectionResetError
    assert error.__cause__.args == reset_by_peer.args
    assert server.hits == 0


async def test_many_large_heads_leave_no_memory(serve: Serve, open_session: Open) -> None:
    """A hundred calls with heads of 100 kB that break off: at no time are two of them kept."""
    server = await serve(cut_head(100_000))
    clock, witness = Clock(), Witness()
    retry: AdaptiveRetryMiddleware = retrying(clock, **PATIENT)
    session = open_session(retry, witness, limit=1)
    alive: list[int] = []

    async def look() -> None:
        alive.append(len(witness.alive()))

    clock.meanwhile = look
    for _ in range(20):
        await asyncio.gather(*(ending(session, server.url) for _ in range(5)))
    assert max(alive) <= 5
    assert witness.alive() == []
