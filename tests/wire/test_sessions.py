"""The rest of aiohttp's client around it: hops, handshakes, traces, cookies, sockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import inspect
import io
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientMiddlewareType, web
from aiohttp.client_exceptions import UnixClientConnectorError
from aiohttp.test_utils import TestServer
from opentelemetry.instrumentation.aiohttp_client import create_trace_config
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

from ..kit.calls import books, is_idle, lavish, retrying
from ..kit.clock import Clock
from ..kit.faults import Action, Exchange, body_of, close, hundred, redirect, reply, reset
from ..kit.fixtures import Open, Serve

# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_each_hop_of_a_redirect_has_its_own_attempts(
    status: int, serve: Serve, open_session: Open
) -> None:
    """Three attempts at each of two hops, counted as two requests."""
    server = await serve(
        reply(503), reply(503), redirect("/there", status), reply(503), reply(503), reply()
    )
    session = open_session(retry := retrying(max_attempts=3))
    async with session.get(server.url / "here") as answer:
        assert (answer.status, answer.url.path) == (200, "/there")
        assert [hop.status for hop in answer.history] == [status]
    assert [request.path for request in server.requests] == ["/here"] * 3 + ["/there"] * 3
    books(retry, 6, retry_success=2)


async def test_a_redirect_to_another_origin_asks_that_origins_budget(
    serve: Serve, open_session: Open
) -> None:
    """A hop belongs to the origin that it goes to, once that is known."""
    other = await serve(reply(503), reply())
    server = await serve(redirect(str(other.url)))
    session = open_session(retry := retrying())
    origin = retry._registry.find(other.url)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert origin.proven
    assert {(origin.port, origin.window_length) for origin in retry.snapshot().origins} == {
        (server.url.port, 1),
        (other.url.port, 2),
    }
    books(retry, server.hits + other.hits, first_success=1, retry_success=1)


async def test_redirects_that_are_not_followed_are_answers(
    serve: Serve, open_session: Open
) -> None:
    """With `allow_redirects=False` there is one hop."""
    server = await serve(reply(503), redirect("/there"))
    session = open_session(retry := retrying())
    async with session.get(server.url, allow_redirects=False) as answer:
        assert answer.status == 302
    books(retry, server.hits, retry_success=1)


# WebSockets.


@pytest.mark.parametrize("failures", [[503, 503], [502], []])
async def test_a_websocket_handshake_is_retried_and_the_socket_works(
    failures: list[int], open_session: Open
) -> None:
    """After refusals the handshake succeeds, and what it made carries messages both ways."""
    keys: list[str] = []

    async def echo(request: web.Request) -> web.StreamResponse:
        keys.append(request.headers["Sec-WebSocket-Key"])
        if len(keys) <= len(failures):
            return web.Response(status=failures[len(keys) - 1])
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{message.data}!")
        return socket

    app = web.Application()
    app.router.add_get("/", echo)
    async with TestServer(app) as server:
        session = open_session(retry := retrying())
        async with session.ws_connect(server.make_url("/")) as socket:
            for number in range(3):
                await socket.send_str(str(number))
                assert await socket.receive_str() == f"{number}!"
    # The key is the request's, so it stays; the server accepts it all the same.
    assert len(keys) == len(failures) + 1
    assert len(set(keys)) == 1
    books(retry, len(keys), **{"retry_success" if failures else "first_success": 1})


async def test_a_websocket_handshake_that_fails_for_good(serve: Serve, open_session: Open) -> None:
    """aiohttp's own error, after all attempts, with the last status."""
    server = await serve(reply(503))
    session = open_session(retry := retrying(max_attempts=3), limit=1)
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await session.ws_connect(server.url)
    assert caught.value.status == 503
    assert server.hits == 3
    books(retry, 3, failed_after_retry=1)
    await is_idle(session)


async def test_a_websocket_handshake_over_a_lost_connection(
    serve: Serve, open_session: Open
) -> None:
    """A handshake that lost its connection is retried as any GET is."""

    async def accept(exchange: Exchange) -> bool:
        key = exchange.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        digest = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()  # noqa: S324
        head = "HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        await exchange.send(f"{head}Sec-WebSocket-Accept: {digest}\r\n\r\n".encode())
        # One text message, and the end.
        await exchange.send(b"\x81\x05hello\x88\x02\x03\xe8")
        await exchange.reader.read()
        return False

    server = await serve(close(), reset(), Action(accept))
    session = open_session(retry := retrying())
    async with session.ws_connect(server.url) as socket:
        assert await socket.receive_str() == "hello"
    books(retry, server.hits, retry_success=1)


# Traces.


def _counting(counts: Counter[str]) -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()

    def count(name: str) -> Any:
        async def signal(session: aiohttp.ClientSession, context: SimpleNamespace, _: Any) -> None:
            counts[name] += 1

        return signal

    for name in (
        "request_start",
        "request_end",
        "request_exception",
        "request_headers_sent",
        "connection_create_end",
        "connection_reuseconn",
    ):
        getattr(config, f"on_{name}").append(count(name))
    return config


async def test_trace_signals(serve: Serve, open_session: Open) -> None:
    """A call starts and ends once for aiohttp's traces; its requests are sent three times."""
    server = await serve(reply(503), reply(503), reply())
    counts: Counter[str] = Counter()
    session = open_session(retry := retrying(), trace_configs=[_counting(counts)])
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert counts == {
        "request_start": 1,
        "request_end": 1,
        "request_headers_sent": 3,
        "connection_create_end": 1,
        "connection_reuseconn": 2,
    }
    books(retry, 3, retry_success=1)


async def test_trace_signals_of_a_failed_call(serve: Serve, open_session: Open) -> None:
    """The exception is signalled once, and every attempt's connection is seen."""
    server = await serve(close())
    counts: Counter[str] = Counter()
    session = open_session(retry := retrying(max_attempts=3), trace_configs=[_counting(counts)])
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await session.get(server.url)
    assert counts == {
        "request_start": 1,
        "request_exception": 1,
        "request_headers_sent": 3,
        "connection_create_end": 3,
    }
    books(retry, server.hits, failed_after_retry=1)


@pytest.mark.skipif(
    "meter_provider" not in inspect.signature(create_trace_config).parameters,
    reason="this instrumentation takes no meter provider: pip install -c constraints.txt "
    "opentelemetry-instrumentation-aiohttp-client",
)
@pytest.mark.parametrize(
    ("script", "resends"),
    [([reply(503), reply(503), reply()], 2), ([reply()], None), ([close(), reply()], 1)],
    ids=["answers", "success", "FIN"],
)
async def test_opentelemetrys_instrumentation_sees_one_call(
    script: list[Action], resends: int | None, serve: Serve, open_session: Open
) -> None:
    """One CLIENT span and one duration for all attempts, one traceparent, and our resend count."""
    server = await serve(*script)
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers, meters = TracerProvider(shutdown_on_exit=False), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    traces = create_trace_config(tracer_provider=tracers, meter_provider=meters)
    session = open_session(retry := retrying(), trace_configs=[traces])
    async with session.get(server.url) as answer:
        assert answer.status == 200
    (span,) = spans.get_finished_spans()
    assert span.kind is SpanKind.CLIENT
    assert span.context is not None
    assert span.attributes is not None
    assert span.attributes.get("http.request.resend_count") == resends
    sent = {request.headers["traceparent"] for request in server.requests}
    assert len(server.requests) == len(script)
    assert len(sent) == 1
    assert f"{span.context.span_id:016x}" in sent.pop()
    data = reader.get_metrics_data()
    assert data is not None
    (duration,) = (
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if "duration" in metric.name
    )
    (point,) = duration.data.data_points
    assert point.count == 1  # type: ignore[union-attr]
    meters.shutdown()
    books(retry, len(script), **{"retry_success" if resends else "first_success": 1})


# Cookies.


async def test_cookies_of_a_discarded_answer_are_dropped(serve: Serve, open_session: Open) -> None:
    """A limit, and aiohttp's: only what is handed back sets cookies, retries send none of it."""
    cookie = "Set-Cookie: {}=1; Path=/\r\n"
    server = await serve(
        reply(503, headers=cookie.format("discarded")), reply(headers=cookie.format("kept"))
    )
    jar = aiohttp.CookieJar(unsafe=True)
    session = open_session(retry := retrying(), cookie_jar=jar)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert [cookie.key for cookie in jar] == ["kept"]
    assert ["cookie" in request.headers for request in server.requests] == [False, False]
    books(retry, 2, retry_success=1)


async def test_cookies_of_the_last_failing_answer_are_kept(
    serve: Serve, open_session: Open
) -> None:
    """What is handed back is whole in this as well."""
    server = await serve(reply(503, headers="Set-Cookie: last=1; Path=/\r\n"))
    jar = aiohttp.CookieJar(unsafe=True)
    session = open_session(retrying(max_attempts=2), cookie_jar=jar)
    async with session.get(server.url) as answer:
        assert answer.status == 503
    assert [cookie.key for cookie in jar] == ["last"]


# Expect: 100-continue.


@pytest.mark.parametrize("by_header", [False, True], ids=["argument", "header"])
@pytest.mark.parametrize("body", ["bytes", "BytesIO"])
async def test_every_attempt_waits_for_its_100_continue(
    body: str, by_header: bool, serve: Serve, open_session: Open
) -> None:
    """A retry holds its body back as the first attempt did."""
    content = b"x" * 50_000
    premature: list[int] = []
    server = await serve(*(hundred(reply(status), premature) for status in (503, 503, 200)))
    session = open_session(retry := retrying())
    data = content if body == "bytes" else io.BytesIO(content)
    options: dict[str, Any] = (
        {"headers": {"Expect": "100-continue"}} if by_header else {"expect100": True}
    )
    async with session.put(server.url, data=data, **options) as answer:
        assert answer.status == 200
    assert premature == [0, 0, 0]
    assert server.bodies == [body_of(content)] * 3
    books(retry, 3, retry_success=1)


async def test_an_upload_that_was_refused_before_it_was_asked_for(
    serve: Serve, open_session: Open
) -> None:
    """A 503 instead of 100 Continue took nothing from a generator: its retry sends all of it."""

    async def refuse(exchange: Exchange) -> bool:
        await exchange.send(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        return False

    premature: list[int] = []
    server = await serve(Action(refuse), hundred(reply(), premature))
    session = open_session(retry := retrying())

    async def chunks() -> Any:
        for _ in range(10):
            yield b"x" * 1000

    async with session.put(server.url, data=chunks(), expect100=True) as answer:
        assert answer.status == 200
    assert server.bodies == [body_of(b"x" * 10_000)]
    books(retry, 2, retry_success=1)


# Where the middleware stands.


async def test_a_requests_own_middlewares_replace_the_sessions(
    serve: Serve, open_session: Open
) -> None:
    """`middlewares=()` switches retries off for one request, and that request is not counted."""
    server = await serve(reply(503))
    session = open_session(retry := retrying(max_attempts=2))
    async with session.get(server.url, middlewares=()) as answer:
        assert answer.status == 503
    assert server.hits == 1
    books(retry, 0)
    async with session.get(server.url) as answer:
        assert answer.status == 503
    assert server.hits == 3
    books(retry, 2, failed_after_retry=1)


async def test_a_requests_own_middleware_may_be_ours(serve: Serve, open_session: Open) -> None:
    """On a session without it, one request can have it."""
    server = await serve(reply(503), reply())
    retry = retrying()
    async with open_session().get(server.url, middlewares=[retry]) as answer:
        assert answer.status == 200
    books(retry, 2, retry_success=1)


def test_a_middleware_is_hashable() -> None:
    """Later aiohttp caches the chain by middleware: each is itself and nothing else."""
    first, second = AdaptiveRetryMiddleware(), AdaptiveRetryMiddleware()
    chain: ClientMiddlewareType = first
    assert {first: 1, second: 2}[first] == 1
    assert len({first, second, chain}) == 2


async def test_a_relative_url(serve: Serve, open_session: Open) -> None:
    """With a session's `base_url` a path is enough; it is one origin with the full one."""
    server = await serve(reply(503), reply())
    session = open_session(retry := retrying(), base_url=server.url)
    async with session.get("some/where") as answer:
        assert answer.status == 200
    async with session.get(server.url / "else") as answer:
        assert answer.status == 200
    assert [request.path for request in server.requests] == ["/some/where"] * 2 + ["/else"]
    (origin,) = retry.snapshot().origins
    assert (origin.host, origin.port, origin.window_length) == ("127.0.0.1", server.url.port, 3)
    books(retry, 3, retry_success=1, first_success=1)


async def test_a_unix_socket(tmp_path: Path, serve: Serve, open_session: Open) -> None:
    """Over a unix socket all is the same: answers and losses. A missing one fails at once."""
    server = await serve(reply(503), close(), reply(), path=tmp_path / "socket")
    retry = retrying()
    session = open_session(retry, connector=aiohttp.UnixConnector(str(tmp_path / "socket")))
    async with session.get("http://localhost/path") as answer:
        assert answer.status == 200
    missing = open_session(retry, connector=aiohttp.UnixConnector(str(tmp_path / "missing")))
    with pytest.raises(UnixClientConnectorError):
        await missing.get("http://localhost/path")
    assert server.hits == 3
    assert retry.snapshot().failures == {
        "503": 1,
        "ServerDisconnectedError": 1,
        "UnixClientConnectorError": 1,
    }
    assert retry.snapshot().suppressed == {"not_retryable": 1}
    books(retry, 4, retry_success=1, failed_without_retry=1)


async def test_urls_of_one_origin_share_it(serve: Serve, open_session: Open) -> None:
    """Path, query, fragment and credentials make no second origin."""
    server = await serve(reply())
    session = open_session(retry := retrying())
    for url in (
        server.url,
        server.url / "a" / "b",
        server.url.with_query("q=1"),
        server.url.with_fragment("f"),
        server.url.with_user("u").with_password("p"),
    ):
        async with session.get(url) as answer:
            assert answer.status == 200
    assert len(retry.snapshot().origins) == 1
    assert "u:p" not in repr(retry.snapshot())
    books(retry, 5, first_success=5)


# Concurrency.


async def test_thousands_of_requests_at_once(serve: Serve, open_session: Open) -> None:
    """Two thousand calls on one session, a third of them failing first: every one is counted."""

    async def every_third(exchange: Exchange) -> bool:
        # No 503: calls wait for their turn here, and that would speak of overload.
        return await reply(500 if exchange.server.hits % 3 == 0 else 200).run(exchange)

    server = await serve(Action(every_third))
    session = open_session(retry := lavish(max_attempts=50), limit=64)

    async def call() -> int:
        async with session.get(server.url) as answer:
            await answer.read()
            return answer.status

    assert await asyncio.gather(*(call() for _ in range(2000))) == [200] * 2000
    requests = retry.snapshot().requests
    # Of any three hits one fails, and 2000 succeed: what the server saw says how many there were.
    assert server.hits == 2999
    assert sum(retry.snapshot().failures.values()) == 999
    assert requests.retry_success > 500
    books(
        retry,
        2999,
        first_success=requests.first_success,
        retry_success=2000 - requests.first_success,
    )
    await is_idle(session)


async def test_many_origins_at_once(serve: Serve, open_session: Open) -> None:
    """Calls to twenty origins at the same time keep twenty budgets and windows."""
    servers = [await serve(*[reply(503)] * number, reply()) for number in range(5) for _ in "1234"]
    clock = Clock()
    session = open_session(retry := retrying(clock))

    async def call(url: Any) -> int:
        async with session.get(url) as answer:
            return answer.status

    assert await asyncio.gather(*(call(server.url) for server in servers)) == [200] * 20
    lengths = {origin.port: origin.window_length for origin in retry.snapshot().origins}
    assert lengths == {server.url.port: server.hits for server in servers}
    books(retry, sum(server.hits for server in servers), first_success=4, retry_success=16)
