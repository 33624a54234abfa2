"""Callers that leave, and what is left behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from ..kit.calls import books, is_idle, retrying, tokens
from ..kit.clock import Clock
from ..kit.faults import Action, close, endless, hang, reply, reset
from ..kit.fixtures import Open, Serve
from ..kit.waiting import until


async def test_a_call_cancelled_during_its_wait(serve: Serve, open_session: Open) -> None:
    """It is ignored, its token comes back, and it holds nothing."""
    server = await serve(reply(503))
    clock = Clock()
    waiting = asyncio.Event()

    async def wait() -> None:
        waiting.set()
        await asyncio.Event().wait()

    clock.meanwhile = wait
    session = open_session(retry := retrying(clock), limit=1)
    call = asyncio.create_task(_get(session, server.url))
    await waiting.wait()
    assert tokens(retry) == pytest.approx(3.0, abs=0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert server.hits == 1
    assert tokens(retry) == pytest.approx(4.0, abs=0.1)
    assert retry.snapshot().failures == {"503": 1}
    books(retry, 1, ignored=1)
    await is_idle(session)


@pytest.mark.parametrize("failures", [0, 2])
async def test_a_call_cancelled_during_an_attempt(
    failures: int, serve: Serve, open_session: Open
) -> None:
    """The same for the first attempt and for a retry: no failure is recorded for it."""
    server = await serve(*[reply(503)] * failures, hang())
    session = open_session(retry := retrying(), limit=1)
    call = asyncio.create_task(_get(session, server.url))
    await until(lambda: server.hits > failures)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert server.hits == failures + 1
    assert sum(retry.snapshot().failures.values()) == failures
    # The retry that failed cost its token, the one that was cancelled did not.
    assert tokens(retry) == pytest.approx(4.0 - max(0, failures - 1), abs=0.1)
    books(retry, server.hits, ignored=1)
    await is_idle(session)


async def test_a_call_cancelled_while_it_lets_go_of_an_answer(
    serve: Serve, open_session: Open
) -> None:
    """In the moment that a body is given to come to its end, a cancellation is one too."""
    server = await serve(endless(503))
    clock = Clock()
    session = open_session(retry := retrying(clock), limit=1)
    call = asyncio.create_task(_get(session, server.url))
    await until(lambda: bool(retry.snapshot().failures))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (server.hits, clock.waits) == (1, [])
    assert tokens(retry) == pytest.approx(4.0, abs=0.1)
    books(retry, 1, ignored=1)
    await is_idle(session)


async def test_a_call_cancelled_while_an_answer_arrives(serve: Serve, open_session: Open) -> None:
    """An answer that may have to be kept is given a moment too; cancelled in it, it is let go of,
    and not left for the collector to find.
    """
    server = await serve(reply(503), endless(503))
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    session = open_session(retry := retrying(), limit=1)
    call = asyncio.create_task(_get(session, server.url))
    await until(lambda: server.hits == 2)
    # What the server sent second has come, and is waited for without a count of it yet.
    await asyncio.sleep(0.01)
    assert retry.snapshot().failures == {"503": 1}
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    del call
    gc.collect()
    assert complaints == []
    assert server.hits == 2
    books(retry, 2, ignored=1)
    await is_idle(session)


async def test_a_hundred_calls_cancelled_at_once(serve: Serve, open_session: Open) -> None:
    """Half of them waiting for an answer, half for a retry: all ignored, the pool whole."""
    server = await serve(hang())
    other = await serve(reply(429, headers="Retry-After: 1\r\n"))
    clock = Clock()
    clock.meanwhile = asyncio.Event().wait
    retry = retrying(clock, budget_initial=100, budget_capacity=100)
    session = open_session(retry, limit=100)
    calls = [asyncio.create_task(_get(session, url)) for url in (server.url, other.url) * 50]
    await until(lambda: server.hits == 50 and len(clock.waits) == 50)
    for call in calls:
        call.cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    assert {origin.budget_available for origin in retry.snapshot().origins} == {100}
    books(retry, 100, ignored=100)
    await is_idle(session)


async def test_a_session_closed_during_a_wait(serve: Serve, open_session: Open) -> None:
    """The call ends with what it has got; nothing is sent, and nothing is held against it."""
    server = await serve(reply(503, b"sorry"), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock))
    clock.meanwhile = session.close
    async with session.get(server.url) as answer:
        assert (answer.status, await answer.read()) == (503, b"sorry")
    assert (server.hits, len(clock.waits)) == (1, 1)
    assert retry.snapshot().failures == {"503": 1}
    books(retry, 1, ignored=1)


async def _get(session: aiohttp.ClientSession, url: Any) -> int:
    async with session.get(url) as answer:
        return answer.status


# Nothing of a call outlives it.


class Witness:
    """A middleware after ours that keeps weak references to all that passes."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Any]] = []

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        self.see(request)
        try:
            response = await handler(request)
        except Exception as error:
            self.see(error)
            raise
        self.see(response)
        return response

    def see(self, thing: Any) -> None:
        # A bare TimeoutError is among the few things that can't be referred to weakly.
        if type(thing) is not TimeoutError:
            self.seen.append(weakref.ref(thing))

    def alive(self) -> list[Any]:
        return [thing for thing in (ref() for ref in self.seen) if thing is not None]


OUTCOMES = {
    "success": [reply()],
    "mended answer": [reply(503), reply(503), reply()],
    "mended loss": [close(), reset(), reply()],
    "answers": [reply(503)],
    "huge answers": [reply(503, bytes(5_000_000))],
    "lost": [close()],
    "reset": [reset()],
    "deadline": [hang()],
}


@pytest.mark.parametrize("script", OUTCOMES.values(), ids=OUTCOMES)
@pytest.mark.parametrize("attempts", [1, 3])
async def test_nothing_of_a_call_outlives_it(
    attempts: int, script: list[Action], serve: Serve, open_session: Open
) -> None:
    """Requests, responses and exceptions can be collected as soon as the call is over."""
    server = await serve(*script)
    witness = Witness()
    session = open_session(retry := retrying(max_attempts=attempts), witness, limit=1)

    async def call() -> None:
        try:
            timeout = aiohttp.ClientTimeout(total=0.1 if script is OUTCOMES["deadline"] else 1000)
            async with session.put(server.url, data=b"x" * 1000, timeout=timeout) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            witness.see(error)

    await call()
    # Two turns of the loop, in which transports and tasks that have ended say so.
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert len(witness.seen) >= server.hits
    assert witness.alive() == []
    snapshot = retry.snapshot()
    assert snapshot.faults == 0
    assert sum(snapshot.attempts.values()) == server.hits


@pytest.mark.parametrize("fault", [close(), reset()], ids=["FIN", "RST"])
async def test_nothing_is_left_of_a_call_that_aiohttp_never_runs_again(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """After a generator's upload aiohttp's second run never comes; nothing is kept for it."""
    server = await serve(fault)
    witness = Witness()
    session = open_session(retry := retrying(), witness, limit=1)

    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 1000

    async def call() -> None:
        try:
            await session.put(server.url, data=chunks())
        except aiohttp.ClientError as error:
            witness.see(error)

    await call()
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert len(witness.seen) == 3
    assert witness.alive() == []
    books(retry, server.hits, failed_without_retry=1)


async def test_no_reference_cycle_holds_a_failed_call(serve: Serve, open_session: Open) -> None:
    """Not even until the next collection: what the middleware holds, it lets go by itself."""
    server = await serve(reply(503))
    witness = Witness()
    session = open_session(retrying(max_attempts=2), witness, limit=1)

    async def call() -> None:
        async with session.get(server.url) as answer:
            await answer.read()

    gc.collect()
    gc.disable()
    try:
        await call()
        for _ in range(3):
            await asyncio.sleep(0)
        assert len(witness.seen) == 4
        assert witness.alive() == []
    finally:
        gc.enable()


async def test_a_wait_holds_neither_exception_nor_connection(
    serve: Serve, open_session: Open
) -> None:
    """During it the last exception has let go of what it met, and the last response too.

    Both may be wanted yet, if the session is closed meanwhile.
    """
    server = await serve(reply(503, bytes(300_000)), close(), reset(), reply())
    witness = Witness()
    clock = Clock()
    left: list[str] = []

    async def look() -> None:
        await asyncio.sleep(0)
        gc.collect()
        for thing in witness.alive():
            # aiohttp's request refers to its last response until it has another.
            assert isinstance(thing, ClientRequest | ClientResponse | aiohttp.ClientError)
            if isinstance(thing, ClientResponse):
                assert thing.connection is None
            if isinstance(thing, aiohttp.ClientError):
                assert thing.__traceback__ is None
            left.append(type(thing).__name__)

    clock.meanwhile = look
    session = open_session(retry := retrying(clock), witness)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert len(clock.waits) == 3
    assert "ClientRequest" in left
    books(retry, 4, retry_success=1)
