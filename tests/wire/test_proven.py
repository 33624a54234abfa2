"""A POST is sent again where it is proven that nobody has processed it, and nowhere else."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from ..kit.calls import books, retrying
from ..kit.clock import Clock
from ..kit.faults import Action, FaultServer, body_of, close, garbage, hang, raw, reply, reset
from ..kit.fixtures import Open, Serve
from ..kit.resolvers import EverywhereHere


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that refuses: bound and not listening, so that nobody else can have it."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Later(EverywhereHere):
    """Fails the first time, and leads to the server from then on."""

    def __init__(self, server: FaultServer, fail: Callable[[], Any]) -> None:
        self._server, self._fail = server, fail
        self.asked = 0

    async def ports(self, port: int) -> Iterable[int]:
        self.asked += 1
        if self.asked > 1:
            assert self._server.url.port is not None
            return (self._server.url.port,)
        found: Any = self._fail()
        ports: Iterable[int] = await found if hasattr(found, "__await__") else found
        return ports


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


async def _for_ever() -> Any:
    await asyncio.Event().wait()


def through(server: FaultServer, fail: Callable[[], Any], **options: Any) -> dict[str, Any]:
    """Options of a session whose first look-up fails so."""
    resolver = Later(server, fail)
    return {
        "connector": aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=1),
        **options,
    }


async def _parts() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"onetwo",
    "text": lambda: "onetwo",
    "a file": lambda: io.BytesIO(b"onetwo"),
    "a generator": _parts,
}


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
async def test_a_refused_connection(
    make: Callable[[], Any], nobody: int, serve: Serve, open_session: Open
) -> None:
    """The connection was never made: the POST arrives once, and whole."""
    server = await serve(reply())
    session = open_session(retry := retrying(), **through(server, lambda: (nobody,)))
    async with session.post("http://upstream.example/", data=make()) as answer:
        assert answer.status == 200
    assert server.bodies == [body_of(b"onetwo")]
    books(retry, 2, retry_success=1)


@pytest.mark.parametrize("method", ["PATCH", "LOCK"])
async def test_other_methods(method: str, nobody: int, serve: Serve, open_session: Open) -> None:
    """What is proven holds for any method."""
    server = await serve(reply())
    session = open_session(retry := retrying(), **through(server, lambda: (nobody,)))
    async with session.request(method, "http://upstream.example/") as answer:
        assert answer.status == 200
    books(retry, 2, retry_success=1)


async def test_a_resolver_that_fails(serve: Serve, open_session: Open) -> None:
    """Nobody was asked."""
    server = await serve(reply())
    later = raising(socket.gaierror(socket.EAI_AGAIN, "later"))
    session = open_session(retry := retrying(), **through(server, later))
    async with session.post("http://upstream.example/", data=b"x") as answer:
        assert answer.status == 200
    books(retry, 2, retry_success=1)


async def test_a_connect_timeout(serve: Serve, open_session: Open) -> None:
    """aiohttp's own limit on connecting."""
    server = await serve(reply())
    timeout = aiohttp.ClientTimeout(connect=0.05)
    session = open_session(retry := retrying(), **through(server, _for_ever, timeout=timeout))
    async with session.post("http://upstream.example/", data=b"x") as answer:
        assert answer.status == 200
    books(retry, 2, retry_success=1)


async def test_an_attempt_that_timed_out_while_it_connected(
    serve: Serve, open_session: Open
) -> None:
    """Our own limit: it ended before a byte was written."""
    server = await serve(reply())
    retry = retrying(attempt_timeout=0.05)
    session = open_session(retry, **through(server, _for_ever))
    async with session.post("http://upstream.example/", data=b"x") as answer:
        assert answer.status == 200
    books(retry, 2, retry_success=1)


async def test_an_attempt_that_timed_out_while_it_was_answered(
    serve: Serve, open_session: Open
) -> None:
    """The same limit proves nothing once the request was written."""
    server = await serve(hang(), reply())
    session = open_session(retry := retrying(attempt_timeout=0.1))
    with pytest.raises(aiohttp.ServerTimeoutError):
        await session.post(server.url, data=b"x")
    assert retry.snapshot().suppressed == {"not_idempotent": 1}
    books(retry, 1, failed_without_retry=1)


async def test_a_proxy_that_refuses_the_connection(
    nobody: int, serve: Serve, open_session: Open
) -> None:
    """The request never left."""
    proxy = await serve(reply())
    session = open_session(retry := retrying(), **through(proxy, lambda: (nobody,)))
    posted = session.post("http://127.0.0.1:9/", data=b"x", proxy="http://proxy.example:3128")
    async with posted as answer:
        assert answer.status == 200
    books(retry, 2, retry_success=1)


@pytest.mark.parametrize(
    "fault", [reply(502), reply(429), close(), reset()], ids=["502", "429", "FIN", "RST"]
)
async def test_a_proxy_that_refuses_the_tunnel(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """By an answer or without one: the request would have gone through the tunnel."""
    proxy = await serve(fault)
    session = open_session(retry := retrying(max_attempts=2))
    with pytest.raises(aiohttp.ClientError):
        await session.post("https://upstream.example/", data=b"x", proxy=proxy.url)
    assert [request.method for request in proxy.requests] == ["CONNECT"] * 2
    books(retry, 2, failed_after_retry=1)


WORDS = {
    "425": (425, ""),
    "429": (429, ""),
    "429 with a wait": (429, "Retry-After: 1"),
    "503 with a wait": (503, "Retry-After: 1"),
    "503 that says at once": (503, "Retry-After: 0"),
    "503 with milliseconds": (503, "retry-after-ms: 100"),
    "a verdict": (500, "x-should-retry: true"),
    "a verdict over the status": (409, "Stripe-Should-Retry: true"),
    "Envoy's limit": (503, "x-envoy-ratelimited: true"),
    "Finagle's nack": (503, "finagle-http-nack: true"),
}


@pytest.mark.parametrize(("status", "line"), WORDS.values(), ids=WORDS)
async def test_a_server_that_says_so(
    status: int, line: str, serve: Serve, open_session: Open
) -> None:
    """It has not processed the request, or wants it again."""
    server = await serve(reply(status, headers=f"{line}\r\n" if line else ""), reply())
    session = open_session(retry := retrying())
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 200
    assert server.bodies == [body_of(b"x")] * 2
    books(retry, 2, retry_success=1)


@pytest.mark.parametrize(("status", "line"), WORDS.values(), ids=WORDS)
async def test_a_server_that_says_so_by_an_exception(
    status: int, line: str, serve: Serve, open_session: Open
) -> None:
    """The same where a later middleware raises for the status."""

    async def strict(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        response.raise_for_status()
        return response

    server = await serve(reply(status, headers=f"{line}\r\n" if line else ""), reply())
    session = open_session(retry := retrying(), strict)
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 200
    books(retry, 2, retry_success=1)


DOUBTS: dict[str, Action] = {
    "500": reply(500),
    "500 with a wait": reply(500, headers="Retry-After: 1\r\n"),
    "502": reply(502),
    "503": reply(503),
    "503 with garbage": reply(503, headers="Retry-After: soon\r\n"),
    "503 with a limit's end": reply(
        503, headers="X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: 1\r\n"
    ),
    "504": reply(504),
    "408": reply(408),
    "529": reply(529),
    "403 that limits": reply(403, headers="Retry-After: 1\r\n"),
    "FIN": close(),
    "FIN at accept": close(at_accept=True),
    "RST": reset(),
    "garbage": garbage(),
    "half a head": raw(b"HTTP/1.1 200 OK\r\nContent-", then="close"),
}


@pytest.mark.parametrize("fault", DOUBTS.values(), ids=DOUBTS)
@pytest.mark.parametrize("body", [None, b"x"], ids=["without a body", "with a body"])
async def test_a_doubt_is_no_proof(
    fault: Action, body: bytes | None, serve: Serve, open_session: Open
) -> None:
    """One request, and what came of it for the caller."""
    server = await serve(fault, reply())
    clock = Clock()
    session = open_session(retry := retrying(clock))
    try:
        async with session.post(server.url, data=body) as answer:
            assert answer.status != 200
    except aiohttp.ClientError:
        pass
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"not_idempotent": 1}
    books(retry, 1, failed_without_retry=1)


async def test_a_verdict_against_it(serve: Serve, open_session: Open) -> None:
    """Nobody has read the request, and nobody wants it."""
    server = await serve(reply(429, headers="x-should-retry: false\r\n"), reply())
    session = open_session(retry := retrying())
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 429
    assert retry.snapshot().suppressed == {"not_retryable": 1}
    books(retry, server.hits, failed_without_retry=1)


async def test_resend_never(nobody: int, serve: Serve, open_session: Open) -> None:
    """Whoever wants no second copy at all gets none, proven or not; a key is another matter."""
    server = await serve(reply(429), reply(), reply(429), reply())
    session = open_session(retry := retrying(resend="never"))
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 429
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 200
    async with session.post(server.url, headers={"Idempotency-Key": "k"}) as answer:
        assert answer.status == 200
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.post(f"http://127.0.0.1:{nobody}/", data=b"x")
    assert retry.snapshot().suppressed == {"not_idempotent": 2}
    books(retry, 5, failed_without_retry=2, first_success=1, retry_success=1)


async def test_a_body_that_is_spent_is_not_sent_again(serve: Serve, open_session: Open) -> None:
    """What is proven brings no body back."""
    server = await serve(reply(429), reply())
    session = open_session(retry := retrying())
    async with session.post(server.url, data=_parts()) as answer:
        assert answer.status == 429
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, server.hits, failed_without_retry=1)


async def test_a_middleware_that_has_sent_it_before(serve: Serve, open_session: Open) -> None:
    """A refused connection proves nothing if the same request was answered just before."""
    server = await serve(reply(500), reply(200))

    async def twice(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        response = await handler(request)
        if response.status == 500:
            response.release()
            raise aiohttp.ClientConnectorError(request.connection_key, OSError(111, "refused"))
        return response

    session = open_session(retry := retrying(), twice)
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.post(server.url, data=b"x")
    assert server.hits == 1
    assert retry.snapshot().suppressed == {"not_idempotent": 1}


class ProxyError(Exception):
    """As python-socks raises it."""


class ProxyConnectionError(OSError):
    """As python-socks raises it."""


class ProxyTimeoutError(TimeoutError):
    """As python-socks raises it."""


class Socks(aiohttp.TCPConnector):
    """A connector whose proxy fails the first time, as aiohttp_socks does."""

    def __init__(self, error: Exception) -> None:
        super().__init__(limit=1)
        self._error: Exception | None = error

    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> Any:
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return await super()._wrap_create_connection(*args, **kwargs)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("error", "named", "counted"),
    [
        (ProxyConnectionError(111, "refused"), (), "ProxyConnectionError"),
        # aiohttp makes its own of all time-outs of a connector.
        (ProxyTimeoutError("slow"), (), "ConnectionTimeoutError"),
        (ProxyError("general failure"), (ProxyError,), "ProxyError"),
    ],
    ids=["refused", "slow", "named"],
)
async def test_a_connector_of_another_make(
    method: str, error: Exception, named: Any, counted: str, serve: Serve, open_session: Open
) -> None:
    """Its errors are transient, and prove that nothing was written."""
    server = await serve(reply())
    retry = retrying(retry_exceptions=named)
    session = open_session(retry, connector=Socks(error))
    async with session.request(method, server.url) as answer:
        assert answer.status == 200
    assert retry.snapshot().failures == {counted: 1}
    books(retry, 2, retry_success=1)


async def test_an_exception_that_nobody_named(serve: Serve, open_session: Open) -> None:
    """It passes unchanged, and is no evidence."""
    server = await serve(reply())
    session = open_session(retry := retrying(), connector=Socks(ProxyError("general failure")))
    with pytest.raises(ProxyError):
        await session.get(server.url)
    books(retry, 1, ignored=1)
