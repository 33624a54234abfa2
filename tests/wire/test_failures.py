"""Failures by their kind: what is retried, what is final, and what the caller gets in the end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import aiohttp
import pytest
import trustme
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
from aiohttp_adaptive_retry._http import release
from aiohttp_adaptive_retry.policy import FixedPolicy

from ..kit.calls import books, is_idle, plainly, retrying, tokens
from ..kit.clock import Clock
from ..kit.faults import Action, close, endless, garbage, hang, raw, redirect, reply, reset
from ..kit.fixtures import Open, Serve
from ..kit.resolvers import EverywhereHere

FAULTS = {
    "FIN": (close(), aiohttp.ServerDisconnectedError),
    "FIN at accept": (
        close(at_accept=True),
        aiohttp.ClientOSError | aiohttp.ServerDisconnectedError,
    ),
    "RST": (reset(), aiohttp.ClientOSError),
    "RST at accept": (reset(at_accept=True), aiohttp.ClientOSError),
    "garbage": (garbage(), aiohttp.ClientResponseError),
    "half a head": (
        raw(b"HTTP/1.1 200 OK\r\nContent-", then="close"),
        aiohttp.ServerDisconnectedError,
    ),
    "a head too long": (
        raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", then="close"),
        aiohttp.ClientResponseError,
    ),
}


@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=FAULTS)
async def test_what_the_network_does_to_a_request_is_retried(
    fault: Action, kind: Any, serve: Serve, open_session: Open
) -> None:
    """Two such failures are mended by the third attempt."""
    server = await serve(fault, fault, reply())
    session = open_session(retry := retrying(), limit=1)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert server.hits == 3
    assert sum(retry.snapshot().failures.values()) == 2
    books(retry, server.hits, retry_success=1)
    await is_idle(session)


@pytest.mark.parametrize(("fault", "kind"), FAULTS.values(), ids=FAULTS)
async def test_the_last_failure_is_the_one_aiohttp_alone_would_raise(
    fault: Action, kind: Any, serve: Serve, open_session: Open
) -> None:
    """When attempts run out, the caller catches the same type as without the middleware."""
    server = await serve(fault)
    session = open_session(retry := retrying(max_attempts=3), limit=1)
    with pytest.raises(aiohttp.ClientError) as caught:
        await session.get(server.url)
    assert server.hits == 3
    assert isinstance(caught.value, kind)
    # Which of its two errors aiohttp meets at a connection that is gone already is a race.
    if "|" not in str(kind):
        assert type(caught.value) is type(await plainly(server.url))
    books(retry, 3, failed_after_retry=1)
    await is_idle(session)


def _refusing() -> Iterator[str]:
    with socket.socket() as sock:
        # Bound and not listening: refused, and nobody else can have the port meanwhile.
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/"


refusing = pytest.fixture(_refusing)


async def test_a_refused_connection_is_retried(refusing: str, open_session: Open) -> None:
    """Refused three times: three attempts, and aiohttp's own error."""
    session = open_session(retry := retrying(max_attempts=3), limit=1)
    with pytest.raises(aiohttp.ClientConnectorError) as caught:
        await session.get(refusing)
    assert type(caught.value) is type(await plainly(refusing))
    assert retry.snapshot().failures == {"ClientConnectorError": 3}
    books(retry, 3, failed_after_retry=1)
    await is_idle(session)


class Resolver(EverywhereHere):
    """Knows no host; counts who asks."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.asked = 0
        self._hangs = hangs

    async def ports(self, port: int) -> Iterable[int]:
        self.asked += 1
        if self._hangs:
            await asyncio.Event().wait()
        raise OSError(None, "no such host")


def _connector(resolver: Resolver, **options: Any) -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=1, **options)


async def test_a_name_that_cant_be_resolved_is_retried(open_session: Open) -> None:
    """Each attempt asks the resolver again; in the end it is aiohttp's DNS error."""
    resolver = Resolver()
    retry = retrying(max_attempts=3)
    session = open_session(retry, connector=_connector(resolver))
    with pytest.raises(aiohttp.ClientConnectorDNSError):
        await session.get("http://nowhere.example/")
    assert resolver.asked == 3
    alone = await plainly("http://nowhere.example/", connector=_connector(Resolver()))
    assert type(alone) is aiohttp.ClientConnectorDNSError
    assert retry.snapshot().failures == {"ClientConnectorDNSError": 3}
    books(retry, 3, failed_after_retry=1)


async def test_a_connect_timeout_is_retried(open_session: Open) -> None:
    """aiohttp's limit on connecting is an attempt's failure, not the call's end."""
    resolver = Resolver(hangs=True)
    timeout = aiohttp.ClientTimeout(connect=0.02)
    retry = retrying(max_attempts=3)
    session = open_session(retry, connector=_connector(resolver), timeout=timeout)
    with pytest.raises(aiohttp.ConnectionTimeoutError):
        await session.get("http://slow.example/")
    assert resolver.asked == 3
    alone = await plainly("http://slow.example/", timeout=timeout, connector=_connector(resolver))
    assert type(alone) is aiohttp.ConnectionTimeoutError
    books(retry, 3, failed_after_retry=1)
    await asyncio.sleep(0)


@pytest.fixture
def deaf() -> Iterator[str]:
    """A port that answers no SYN: its queue of connections is full."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        first.connect(("127.0.0.1", port))
        second.setblocking(False)
        second.connect_ex(("127.0.0.1", port))
        yield f"http://127.0.0.1:{port}/"


async def test_a_sock_connect_timeout_is_retried(deaf: str, open_session: Open) -> None:
    """The same for a host that takes no connection."""
    timeout = aiohttp.ClientTimeout(sock_connect=0.05)
    retry = retrying(max_attempts=3)
    session = open_session(retry, timeout=timeout, limit=1)
    with pytest.raises(aiohttp.ConnectionTimeoutError):
        await session.get(deaf)
    assert type(await plainly(deaf, timeout=timeout)) is aiohttp.ConnectionTimeoutError
    books(retry, 3, failed_after_retry=1)
    await is_idle(session)


async def test_a_sock_read_timeout_is_retried(serve: Serve, open_session: Open) -> None:
    """A server that says nothing for `sock_read` seconds has failed one attempt."""
    timeout = aiohttp.ClientTimeout(sock_read=0.05)
    server, other = await serve(hang()), await serve(hang(), reply())
    session = open_session(retry := retrying(max_attempts=3), timeout=timeout, limit=1)
    with pytest.raises(aiohttp.SocketTimeoutError):
        await session.get(server.url)
    async with session.get(other.url) as answer:
        assert answer.status == 200
    assert (server.hits, other.hits) == (3, 2)
    assert type(await plainly(server.url, timeout=timeout)) is aiohttp.SocketTimeoutError
    books(retry, 5, failed_after_retry=1, retry_success=1)
    await is_idle(session)


# What no retry mends.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that only we know."""
    return trustme.CA()


def _server_side(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_tls_works_and_is_retried(
    authority: trustme.CA, serve: Serve, open_session: Open
) -> None:
    """Over TLS as over TCP: a 503 and a lost connection are mended."""
    server = await serve(reply(503), close(), reply(), tls=_server_side(authority, "127.0.0.1"))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    session = open_session(retry := retrying())
    async with session.get(server.url, ssl=trusting) as answer:
        assert answer.status == 200
    books(retry, server.hits, retry_success=1)


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"], ids=["unknown", "misnamed"])
async def test_a_certificate_that_is_not_trusted_is_not_retried(
    name: str, authority: trustme.CA, serve: Serve, open_session: Open
) -> None:
    """The next attempt would meet the same certificate: one connection, one attempt."""
    server = await serve(reply(), tls=_server_side(authority, name))
    trusting = ssl.create_default_context()
    if name != "127.0.0.1":
        authority.configure_trust(trusting)
    clock = Clock()
    session = open_session(retry := retrying(clock))
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await session.get(server.url, ssl=trusting)
    assert (server.connections, server.hits, clock.waits) == (1, 0, [])
    assert retry.snapshot().suppressed == {"not_retryable": 1}
    books(retry, 1, failed_without_retry=1)


async def test_a_wrong_fingerprint_is_not_retried(
    authority: trustme.CA, serve: Serve, open_session: Open
) -> None:
    """Neither is a certificate with another fingerprint than the caller asked for."""
    server = await serve(reply(), tls=_server_side(authority, "127.0.0.1"))
    session = open_session(retry := retrying())
    with pytest.raises(aiohttp.ServerFingerprintMismatch):
        await session.get(server.url, ssl=aiohttp.Fingerprint(bytes(32)))
    assert (server.connections, server.hits) == (1, 0)
    assert retry.snapshot().suppressed == {"not_retryable": 1}
    books(retry, 1, failed_without_retry=1)


async def test_another_middlewares_own_exception_passes_unchanged(
    serve: Serve, open_session: Open
) -> None:
    """What the network did not raise is not retried, and says nothing about the server."""
    server = await serve(reply())

    async def broken(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await handler(request)
        raise error

    error = LookupError("the middleware's own")
    session = open_session(retry := retrying(), broken)
    with pytest.raises(LookupError) as caught:
        await session.get(server.url)
    assert caught.value is error
    assert server.hits == 1
    assert retry.snapshot().failures == {}
    books(retry, 1, ignored=1)


# Out of a middleware's sight: aiohttp does these after it has returned.


async def test_a_body_that_breaks_later_is_the_callers_to_see(
    serve: Serve, open_session: Open
) -> None:
    """A limit: the middleware's work ends with the head; a body that breaks is not retried."""
    server = await serve(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", then="close"))
    session = open_session(retry := retrying())
    async with session.get(server.url) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()
    assert server.hits == 1
    books(retry, 1, first_success=1)


async def test_raise_for_status_sees_only_the_last_answer(serve: Serve, open_session: Open) -> None:
    """It is applied after the retries, and raises once, for what was handed back."""
    server = await serve(reply(503), reply(503), reply(502))
    session = open_session(retry := retrying(max_attempts=3), raise_for_status=True)
    with pytest.raises(aiohttp.ClientResponseError) as caught:
        await session.get(server.url)
    assert caught.value.status == 502
    assert server.hits == 3
    books(retry, 3, failed_after_retry=1)


async def test_raise_for_status_does_not_see_what_was_mended(
    serve: Serve, open_session: Open
) -> None:
    """A 503 that a retry mends raises nothing."""
    server = await serve(reply(503), reply())
    session = open_session(retry := retrying(), raise_for_status=True)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    books(retry, server.hits, retry_success=1)


async def test_too_many_redirects_are_the_callers_to_see(serve: Serve, open_session: Open) -> None:
    """A limit: aiohttp counts redirects after the middleware; every hop was a success to it."""
    server = await serve(redirect("/again"))
    session = open_session(retry := retrying())
    with pytest.raises(aiohttp.TooManyRedirects):
        await session.get(server.url, max_redirects=4)
    assert server.hits == 4
    books(retry, 4, first_success=4)


@pytest.mark.parametrize("url", ["http://", "ftp://127.0.0.1/", "nonsense"])
async def test_a_bad_url_never_comes_to_the_middleware(url: str, open_session: Open) -> None:
    """aiohttp rejects it before anything is sent or counted."""
    session = open_session(retry := retrying())
    with pytest.raises((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        await session.get(url)
    books(retry, 0)


# The deadline.


@pytest.fixture
def short() -> aiohttp.ClientTimeout:
    """A deadline that is real, and as short as can be told apart from at once."""
    return aiohttp.ClientTimeout(total=0.4)


async def test_a_total_timeout_while_waiting_for_an_answer_is_final(
    short: aiohttp.ClientTimeout, serve: Serve, open_session: Open
) -> None:
    """A bare TimeoutError is the caller's deadline: no retry after it, and no evidence."""
    server = await serve(hang())
    clock = Clock()
    session = open_session(retry := retrying(clock), timeout=short, limit=1)
    with pytest.raises(TimeoutError) as caught:
        await session.get(server.url)
    assert not isinstance(caught.value, aiohttp.ClientError)
    assert (server.hits, clock.waits) == (1, [])
    snapshot = retry.snapshot()
    assert snapshot.failures == {}
    assert snapshot.suppressed == {}
    books(retry, 1, ignored=1)
    await is_idle(session)


async def test_a_total_timeout_during_a_retry_is_final(
    short: aiohttp.ClientTimeout, serve: Serve, open_session: Open
) -> None:
    """The same in the second attempt: two hits, the token back, one failure (the 503)."""
    server = await serve(reply(503), hang())
    session = open_session(retry := retrying(), timeout=short, limit=1)
    with pytest.raises(TimeoutError) as caught:
        await session.get(server.url)
    assert not isinstance(caught.value, aiohttp.ClientError)
    assert server.hits == 2
    assert retry.snapshot().failures == {"503": 1}
    assert tokens(retry) == pytest.approx(4.0, abs=0.1)
    books(retry, 2, ignored=1)
    await is_idle(session)


async def test_a_total_timeout_while_connecting_is_final(
    short: aiohttp.ClientTimeout, open_session: Open
) -> None:
    """It comes as a cancellation there, and ends the call the same way."""
    resolver = Resolver(hangs=True)
    retry = retrying()
    session = open_session(retry, connector=_connector(resolver), timeout=short)
    with pytest.raises(TimeoutError) as caught:
        await session.get("http://slow.example/")
    assert not isinstance(caught.value, aiohttp.ClientError)
    assert resolver.asked == 1
    assert retry.snapshot().failures == {}
    books(retry, 1, ignored=1)
    await asyncio.sleep(0)


async def test_a_total_timeout_during_the_wait_is_final(
    short: aiohttp.ClientTimeout, serve: Serve, open_session: Open
) -> None:
    """The wait is cut short, nothing is sent after it, and the token comes back."""
    server = await serve(reply(503))
    clock = Clock()
    clock.meanwhile = asyncio.Event().wait
    session = open_session(retry := retrying(clock), timeout=short, limit=1)
    with pytest.raises(TimeoutError):
        await session.get(server.url)
    assert server.hits == 1
    assert retry.snapshot().failures == {"503": 1}
    assert tokens(retry) == pytest.approx(4.0, abs=0.1)
    books(retry, 1, ignored=1)
    await is_idle(session)


async def test_a_total_timeout_while_an_answer_is_let_go_of_is_final(
    short: aiohttp.ClientTimeout,
    serve: Serve,
    open_session: Open,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The deadline may come in the moment that a body is given to end; nothing is sent after it."""
    # So long a moment that the deadline is sure to come in it.
    monkeypatch.setattr(release, "_DRAIN_SECONDS", 60.0)
    server = await serve(endless(503), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock), timeout=short, limit=1)
    with pytest.raises(TimeoutError) as caught:
        await session.get(server.url)
    assert not isinstance(caught.value, aiohttp.ClientError)
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().failures == {"503": 1}
    assert tokens(retry) == pytest.approx(4.0, abs=0.1)
    books(retry, 1, ignored=1)
    await is_idle(session)


@pytest.mark.parametrize("where", ["session", "request", "number"])
async def test_a_wait_that_cannot_end_before_the_deadline_is_not_begun(
    where: str, serve: Serve, open_session: Open
) -> None:
    """The 503 is handed back at once, whole, whoever set the deadline."""
    server = await serve(reply(503, b"what it said", headers="Retry-After: 15\r\n"))
    clock = Clock()
    retry = retrying(clock)
    ten = aiohttp.ClientTimeout(total=10)
    options: dict[str, Any] = {}
    if where == "session":
        session = open_session(retry, timeout=ten)
    else:
        session = open_session(retry, timeout=aiohttp.ClientTimeout(total=1000))
        options["timeout"] = ten if where == "request" else aiohttp.ClientTimeout(10)
    async with session.get(server.url, **options) as answer:
        assert (answer.status, await answer.read()) == (503, b"what it said")
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"deadline": 1}
    assert tokens(retry) == 4.0
    books(retry, 1, failed_without_retry=1)


async def test_a_requests_own_longer_deadline_wins(serve: Serve, open_session: Open) -> None:
    """A request that may take longer than its session's default is retried accordingly."""
    server = await serve(reply(503), reply())
    clock = Clock()
    retry = retrying(clock)
    session = open_session(retry, timeout=aiohttp.ClientTimeout(total=10))
    for timeout in (aiohttp.ClientTimeout(total=1000), aiohttp.ClientTimeout(total=None)):
        server.script[server.hits :] = [reply(503, headers="Retry-After: 16\r\n"), reply()]
        async with session.get(server.url, timeout=timeout) as answer:
            assert answer.status == 200
    assert clock.waits == [18.0, 18.0]
    books(retry, 4, retry_success=2)


async def test_the_deadline_counts_what_the_call_has_used(serve: Serve, open_session: Open) -> None:
    """Two waits for 16 s fit into 40 s; the third one does not, and is not begun."""
    server = await serve(reply(503, headers="Retry-After: 16\r\n"))
    clock = Clock()
    retry = retrying(clock)
    session = open_session(retry, timeout=aiohttp.ClientTimeout(total=40))
    async with session.get(server.url) as answer:
        assert answer.status == 503
    assert (server.hits, clock.waits) == (3, [18.0, 20.0])
    assert retry.snapshot().suppressed == {"deadline": 1}
    books(retry, 3, failed_after_retry=1)


async def test_the_deadline_spans_redirects(serve: Serve, open_session: Open) -> None:
    """A second hop has what the first has left of the total, and not a total of its own."""
    later = "Retry-After: 16\r\n"
    server = await serve(
        reply(503, headers=later),
        redirect("/there"),
        reply(503, b"at the second hop", headers=later),
        reply(),
    )
    clock = Clock()
    retry = retrying(clock)
    session = open_session(retry, timeout=aiohttp.ClientTimeout(total=20))
    async with session.get(server.url) as answer:
        assert (answer.status, await answer.read()) == (503, b"at the second hop")
    assert (server.hits, clock.waits) == (3, [18.0])
    assert retry.snapshot().suppressed == {"deadline": 1}


async def test_an_exception_at_the_deadline_is_handed_on(serve: Serve, open_session: Open) -> None:
    """The same for a failure that is an exception, and a policy that heeds no deadline."""
    server = await serve(reset(), reset())
    clock = Clock()
    patient = FixedPolicy(base=30, cap=30, random=lambda: 0.5)
    retry = AdaptiveRetryMiddleware(
        policy=lambda origin: patient, clock=clock, sleep=clock.sleep, random=lambda: 0.5
    )
    session = open_session(retry, timeout=aiohttp.ClientTimeout(total=10))
    with pytest.raises(aiohttp.ClientOSError):
        await session.get(server.url)
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"deadline": 1}
    books(retry, 1, failed_without_retry=1)


@pytest.mark.parametrize("fault", [reply(503), reset()], ids=["answer", "exception"])
async def test_a_wait_of_our_own_leaves_time_for_the_attempt_after_it(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """However long the backoff: at most three quarters of what the call has left."""
    server = await serve(fault, reply())
    clock = Clock()
    retry = retrying(clock, backoff_base=30, backoff_cap=30)
    session = open_session(retry, timeout=aiohttp.ClientTimeout(total=10))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert len(clock.waits) == 1
    assert 5.0 <= clock.waits[0] <= 7.5
    books(retry, 2, retry_success=1)


# One attempt's own limit.


async def test_an_attempt_that_takes_too_long_is_retried(serve: Serve, open_session: Open) -> None:
    """`attempt_timeout` ends one attempt, and the next one may succeed."""
    server = await serve(hang(), hang(), reply())
    session = open_session(retry := retrying(attempt_timeout=0.2), limit=1)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert server.hits == 3
    books(retry, 3, retry_success=1)
    await is_idle(session)


async def test_when_every_attempt_takes_too_long_the_caller_catches_timeout_error(
    serve: Serve, open_session: Open
) -> None:
    """All attempts are made, and `except TimeoutError` works as it does with aiohttp's own."""
    server = await serve(hang())
    session = open_session(retry := retrying(attempt_timeout=0.05, max_attempts=3), limit=1)
    with pytest.raises(TimeoutError):
        await session.get(server.url)
    assert server.hits == 3
    books(retry, 3, failed_after_retry=1)
    await is_idle(session)


async def test_an_attempt_ends_with_the_head_of_its_answer(
    serve: Serve, open_session: Open
) -> None:
    """A body may take longer than `attempt_timeout`."""
    server = await serve(reply(200, b"slowly", split=0.15))
    session = open_session(retry := retrying(attempt_timeout=0.05))
    async with session.get(server.url) as answer:
        assert await answer.read() == b"slowly"
    books(retry, server.hits, first_success=1)


async def test_connecting_is_a_part_of_the_attempt(open_session: Open) -> None:
    """A name that takes for ever to resolve fails its attempt."""
    resolver = Resolver(hangs=True)
    retry = retrying(attempt_timeout=0.03, max_attempts=3)
    session = open_session(retry, connector=_connector(resolver))
    with pytest.raises(TimeoutError):
        await session.get("http://slow.example/")
    assert resolver.asked == 3
    books(retry, 3, failed_after_retry=1)
    await asyncio.sleep(0)


async def test_an_upload_that_takes_too_long_is_not_sent_again(
    serve: Serve, open_session: Open
) -> None:
    """An attempt cut off in the middle of a generator's upload can't be repeated."""
    server = await serve(hang(), reply())
    never = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"so far"
        await never.wait()
        yield b"never"

    session = open_session(retry := retrying(attempt_timeout=0.05), limit=1)
    with pytest.raises(TimeoutError):
        await session.put(server.url, data=stuck())
    assert server.hits == 1
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, 1, failed_without_retry=1)
    await is_idle(session)


async def test_the_deadline_is_told_apart_from_an_attempts_limit(
    short: aiohttp.ClientTimeout, serve: Serve, open_session: Open
) -> None:
    """With both set, the earlier deadline of the call is final and no evidence."""
    server = await serve(hang())
    session = open_session(retry := retrying(attempt_timeout=10), timeout=short, limit=1)
    with pytest.raises(TimeoutError) as caught:
        await session.get(server.url)
    assert not isinstance(caught.value, aiohttp.ClientError)
    assert server.hits == 1
    books(retry, 1, ignored=1)
    await is_idle(session)
