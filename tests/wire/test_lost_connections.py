"""Connections that were used before and are dead by now: told apart, and mended at once."""

from __future__ import annotations

import asyncio
import gc
import io
import ssl
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome

from ..chaos import tls
from ..kit.calls import books, retrying
from ..kit.clock import Clock
from ..kit.faults import Action as Does
from ..kit.faults import Exchange, close, hard_close, raw, reply, reset
from ..kit.fixtures import Open, Serve
from ..kit.policies import Listening
from ..kit.resolvers import EverywhereHere

LOST = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)


class Pool:
    """A server whose connections can all be dropped: each meets its end with its next request."""

    def __init__(self, end: str = "reset") -> None:
        self._end = end
        self._open: set[asyncio.StreamWriter] = set()
        self._stale: set[asyncio.StreamWriter] = set()
        #: How many requests have to be there before any of them is answered.
        self.together = 1
        self._waiting = 0
        self._all_here = asyncio.Event()

    def drop(self) -> None:
        """From now on the connections that are open are dead."""
        self._stale |= self._open

    def expect(self, calls: int) -> None:
        """Answer so many requests together, so that each has a connection of its own."""
        self.together, self._waiting, self._all_here = calls, 0, asyncio.Event()

    def action(self) -> Does:
        """What the server does with every request."""
        return Does(self._run)

    async def _run(self, exchange: Exchange) -> bool:
        writer = exchange.writer
        if writer in self._stale:
            if self._end == "reset":
                hard_close(exchange)
            return False
        self._open.add(writer)
        await exchange.read_body()
        self._waiting += 1
        if self._waiting >= self.together:
            self._all_here.set()
        await self._all_here.wait()
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True


def listening(
    policy: Listening, clock: Clock | None = None, **fields: Any
) -> AdaptiveRetryMiddleware:
    """A middleware whose policy is that one."""
    clock = clock or Clock()
    return AdaptiveRetryMiddleware(
        AdaptiveConfig(**fields), policy=policy, clock=clock, sleep=clock.sleep
    )


async def fetch(session: aiohttp.ClientSession, url: Any, method: str = "GET", **more: Any) -> int:
    """The status of one call whose answer is read."""
    async with session.request(method, url, **more) as answer:
        await answer.read()
        return answer.status


async def warmed(session: aiohttp.ClientSession, pool: Pool, url: Any, connections: int) -> None:
    """Fill the session's pool with so many connections."""
    pool.expect(connections)
    await asyncio.gather(*(fetch(session, url) for _ in range(connections)))
    pool.expect(1)


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Without and with TLS."""
    return str(request.param)


@pytest.fixture
def place(scheme: str, serve: Serve, open_session: Open) -> Any:
    """Starts a server with a pool behind a name, and a session to it."""

    async def start(retry: AdaptiveRetryMiddleware, pool: Pool, **options: Any) -> Any:
        side: ssl.SSLContext | None = tls.server_side() if scheme == "https" else None
        server = await serve(pool.action(), tls=side)
        connector = aiohttp.TCPConnector(
            resolver=EverywhereHere(), ssl=tls.client_side(), limit=0, **options
        )
        session = open_session(retry, connector=connector)
        return server, session, server.url.with_host(tls.HOST)

    return start


# The whole pool is dropped.


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_fifty_calls_on_a_dropped_pool(place: Any, end: str) -> None:
    """Each is sent once more, at once, on a new connection; nobody waits for anything."""
    policy, clock, pool = Listening(), Clock(), Pool(end)
    retry = listening(policy, clock)
    server, session, url = await place(retry, pool)
    await warmed(session, pool, url, 50)
    pool.drop()
    statuses = await asyncio.gather(*(fetch(session, url) for _ in range(50)))
    assert statuses == [200] * 50
    assert clock.waits == []
    # Fifty to warm up, fifty that met dead connections, fifty that did not.
    assert server.hits == 150
    assert [outcome.reused_connection for outcome in policy.failures] == [True] * 50
    assert all(outcome.replayable for outcome in policy.failures)
    books(retry, 150, first_success=50, retry_success=50)


async def test_ten_callers_on_a_dropped_pool_of_fifty(place: Any) -> None:
    """A resend may meet another dead connection. After two of them the rest is given up, so no
    call needs more than three attempts."""
    policy, clock, pool = Listening(), Clock(), Pool()
    retry = listening(policy, clock, max_attempts=3)
    server, session, url = await place(retry, pool)
    await warmed(session, pool, url, 50)
    pool.drop()
    statuses = await asyncio.gather(*(fetch(session, url) for _ in range(10)))
    assert statuses == [200] * 10
    assert clock.waits == []
    assert len(policy.failures) <= 20
    assert server.hits == 50 + len(policy.failures) + 10


@pytest.mark.parametrize(("attempts", "lost"), [(2, 1), (3, 2), (5, 2)])
async def test_one_caller_meets_a_pool_of_dead_connections(
    place: Any, attempts: int, lost: int
) -> None:
    """The last attempt, and the third one, get a new connection. So what aiohttp alone would lose
    is mended, and the server receives no more than `max_attempts`."""
    policy, pool = Listening(), Pool()
    server, session, url = await place(listening(policy, max_attempts=attempts), pool)
    await warmed(session, pool, url, 10)
    pool.drop()
    assert await fetch(session, url) == 200
    assert server.hits == 10 + lost + 1
    assert [outcome.reused_connection for outcome in policy.failures] == [True] * lost


async def test_without_a_second_attempt_there_is_none(place: Any) -> None:
    """`max_attempts=1` is one request on the wire, also if aiohttp alone would mend the loss."""
    policy, pool = Listening(), Pool()
    retry = listening(policy, max_attempts=1)
    server, session, url = await place(retry, pool)
    await warmed(session, pool, url, 1)
    pool.drop()
    with pytest.raises(LOST):
        await fetch(session, url)
    assert server.hits == 2
    assert policy.failures == [
        policy.failures[0]._replace(reused_connection=True, replayable=False)
    ]
    assert retry.snapshot().suppressed == {"max_attempts": 1}


async def test_a_server_that_gives_up_for_good_gets_no_more_than_max_attempts(
    place: Any,
) -> None:
    """Each connection serves one request and dies with the second one, again and again."""
    policy, pool = Listening(), Pool()
    server, session, url = await place(listening(policy, max_attempts=3), pool)
    for _ in range(5):
        before = server.hits
        assert await fetch(session, url) == 200
        assert server.hits - before <= 3
        pool.drop()


async def test_the_shipped_policy_is_told_too(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of connections whose answers took the fast path."""
    told: list[AttemptOutcome] = []
    pool = Pool()
    retry = retrying()
    real = type(retry._driver).outcome

    def note(driver: Any, now: float, call: Any, outcome: AttemptOutcome, *more: Any) -> Action:
        told.append(outcome)
        return real(driver, now, call, outcome, *more)

    monkeypatch.setattr(type(retry._driver), "outcome", note)
    _, session, url = await place(retry, pool)
    await fetch(session, url)
    await warmed(session, pool, url, 20)
    (origin,) = retry._registry.listed()
    assert origin.window.fast_total >= 10
    pool.drop()
    calls = (fetch(session, url) for _ in range(20))
    await asyncio.gather(*calls, return_exceptions=True)
    assert [outcome.reused_connection for outcome in told if not outcome.ok] == [True] * 20


async def test_nothing_is_held(place: Any) -> None:
    """The connection that was lost is gone when its call is over."""
    policy, pool = Listening(), Pool()
    seen: list[weakref.ref[Any]] = []

    async def look(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        try:
            return await handler(request)
        except LOST:
            seen.append(weakref.ref(cast(Any, request.response)._protocol))
            raise

    _, session, url = await place(listening(policy), pool)
    await warmed(session, pool, url, 1)
    pool.drop()
    session._middlewares = (*session._middlewares, look)
    assert await fetch(session, url) == 200
    await asyncio.sleep(0)
    gc.collect()
    assert [ref() for ref in seen] == [None]


# What is none.


@pytest.mark.parametrize("fault", [close(), reset()], ids=["FIN", "RST"])
async def test_a_new_connection_that_is_lost(fault: Does, serve: Serve, open_session: Open) -> None:
    """It says that the server has trouble, however often that happens."""
    policy, clock = Listening(), Clock()
    server = await serve(fault)
    session = open_session(listening(policy, clock, max_attempts=3))
    for _ in range(2):
        with pytest.raises(LOST):
            await fetch(session, server.url)
    assert server.hits == 6
    assert not any(outcome.reused_connection for outcome in policy.failures)
    assert clock.waits == [1.0] * 4


@pytest.mark.parametrize("fault", [close(), reset()], ids=["FIN", "RST"])
async def test_a_new_connection_next_to_used_ones(
    fault: Does, serve: Serve, open_session: Open
) -> None:
    """A used connection that is dead, and then a new one that is lost as well: each for itself."""
    policy = Listening()
    server = await serve(reply(), fault, fault, reply())
    session = open_session(listening(policy))
    await fetch(session, server.url)
    await fetch(session, server.url)
    assert [outcome.reused_connection for outcome in policy.failures] == [True, False]
    assert (server.hits, server.connections) == (4, 3)


async def test_a_connection_that_brought_a_failure_was_used(
    serve: Serve, open_session: Open
) -> None:
    """A 503 is an answer. Its connection is used for the retry, and lost then."""
    policy = Listening()
    server = await serve(reply(503), close(), reply())
    session = open_session(listening(policy))
    assert await fetch(session, server.url) == 200
    assert [(o.error_type, o.reused_connection) for o in policy.failures] == [
        ("503", False),
        ("ServerDisconnectedError", True),
    ]
    assert (server.hits, server.connections) == (3, 2)


async def test_an_answer_that_breaks_off(serve: Serve, open_session: Open) -> None:
    """Half a head on a used connection is the server's failure: an answer had begun."""
    policy = Listening()
    server = await serve(reply(), raw(b"HTTP/1.1 200 OK\r\nConte", then="close"), reply())
    session = open_session(listening(policy))
    await fetch(session, server.url)
    await fetch(session, server.url)
    assert [outcome.reused_connection for outcome in policy.failures] == [False]


async def test_a_body_that_cant_be_read(serve: Serve, open_session: Open) -> None:
    """The caller's own file is no lost connection, though aiohttp reports it as if it were."""
    policy = Listening()
    server = await serve(reply())
    session = open_session(listening(policy, max_attempts=2))
    await fetch(session, server.url)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError(5, "Input/output error")

    with pytest.raises(aiohttp.ClientError):
        await fetch(session, server.url, "PUT", data=broken())
    assert not any(outcome.reused_connection for outcome in policy.failures)


# Requests that may not be sent again.


async def test_a_post_is_not_sent_again(serve: Serve, open_session: Open) -> None:
    """Nobody knows what the server did with it; with an Idempotency-Key that does not matter."""
    policy = Listening()
    retry = listening(policy)
    server = await serve(reply(), reset(), reply(), reset(), reply())
    session = open_session(retry)
    await fetch(session, server.url)
    with pytest.raises(LOST):
        await fetch(session, server.url, "POST", data=b"x")
    assert server.hits == 2
    assert retry.snapshot().suppressed == {"not_idempotent": 1}
    await fetch(session, server.url)
    headers = {"Idempotency-Key": "k"}
    assert await fetch(session, server.url, "POST", data=b"x", headers=headers) == 200
    assert server.hits == 5
    assert [(o.reused_connection, o.replayable) for o in policy.failures] == [
        (True, False),
        (True, True),
    ]


BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"x" * 900_000,
    "file": lambda: io.BytesIO(b"x" * 900_000),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_an_upload_on_a_dead_connection(place: Any, body: Callable[[], Any]) -> None:
    """It is lost while the body is written, which aiohttp reports in another way; the whole body
    arrives the second time."""
    policy, pool = Listening(), Pool()
    server, session, url = await place(listening(policy), pool)
    await warmed(session, pool, url, 1)
    pool.drop()
    assert await fetch(session, url, "PUT", data=body()) == 200
    assert [outcome.reused_connection for outcome in policy.failures] == [True]
    assert server.bodies[-1].size == 900_000
    assert server.bodies[-1].complete
