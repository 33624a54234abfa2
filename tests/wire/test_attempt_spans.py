"""A span for every attempt, and every server's span under its attempt's: on real connections.

The server here is traced too: it continues the trace that each request's headers bring.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from random import Random
from typing import Any

import aiohttp
import pytest
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.instrumentation.aiohttp_client import (
    AioHttpClientInstrumentor,
    create_trace_config,
)
from opentelemetry.instrumentation.utils import (
    suppress_http_instrumentation,
    suppress_instrumentation,
)
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, OriginUnavailable

from ..kit.calls import books
from ..kit.clock import Clock
from ..kit.faults import Action, Exchange, FaultServer, close, hang, redirect, reply, reset
from ..kit.fixtures import Open, Serve
from ..kit.waiting import until


class Traced:
    """Spans of a client and of the servers it asks, in memory."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self.spans = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = self.provider.get_tracer("test")
        self.clock = Clock()

    def retrying(self, **config: Any) -> AdaptiveRetryMiddleware:
        """A middleware on a fake clock, which affords four retries of an origin that is new."""
        config.setdefault("budget_initial", 4.0)
        return AdaptiveRetryMiddleware(
            AdaptiveConfig(attempt_spans=True, **config),
            tracer_provider=self.provider,
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: 0.5,
        )

    def official(self) -> aiohttp.TraceConfig:
        """OpenTelemetry's own instrumentation, as `AioHttpClientInstrumentor` attaches it."""
        return create_trace_config(tracer_provider=self.provider)

    def served(self, action: Action) -> Action:
        """The same, with a SERVER span that continues the trace in the request's headers."""

        async def run(exchange: Exchange) -> bool:
            remote = propagate.extract(exchange.headers, context=context.Context())
            span = self.tracer.start_span("serve", remote, kind=SpanKind.SERVER)
            try:
                return await action.run(exchange)
            finally:
                span.end()

        return Action(run)

    def finished(self, kind: SpanKind) -> list[ReadableSpan]:
        """Of one kind, in the order in which they began."""
        found = [span for span in self.spans.get_finished_spans() if span.kind is kind]
        return sorted(found, key=lambda span: span.start_time or 0)

    @property
    def attempts(self) -> list[ReadableSpan]:
        """Our own spans."""
        return [
            span
            for span in self.finished(SpanKind.CLIENT)
            if span.instrumentation_scope is not None
            and span.instrumentation_scope.name == "aiohttp_adaptive_retry"
        ]


@pytest.fixture
def traced() -> Traced:
    return Traced()


@pytest.fixture
def propagator() -> Iterator[TextMapPropagator]:
    """The global one, put back afterwards."""
    before = propagate.get_global_textmap()
    yield before
    propagate.set_global_textmap(before)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parents(spans: list[ReadableSpan]) -> list[int | None]:
    return [None if span.parent is None else span.parent.span_id for span in spans]


def ids(spans: list[ReadableSpan]) -> list[int]:
    return [span.context.span_id for span in spans if span.context is not None]


def carried(server: FaultServer) -> list[int]:
    """The span that each request named as its parent."""
    return [int(request.headers["traceparent"].split("-")[2], 16) for request in server.requests]


async def get(session: aiohttp.ClientSession, url: Any, **options: Any) -> int:
    async with session.get(url, **options) as answer:
        await answer.read()
        return answer.status


@pytest.fixture(params=["alone", "instrumented"])
def official(request: pytest.FixtureRequest, traced: Traced) -> Iterator[bool]:
    """Whether OpenTelemetry's instrumentation is on, as a service switches it on."""
    if request.param == "alone":
        yield False
        return
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(tracer_provider=traced.provider)
    yield True
    instrumentor.uninstrument()


async def test_each_servers_span_hangs_under_its_attempts(
    official: bool, traced: Traced, serve: Serve, open_session: Open
) -> None:
    """Three attempts: three spans under the call's, and three servers' spans, one under each."""
    server = await serve(*(traced.served(reply(status)) for status in (503, 502, 200)))
    session = open_session(retry := traced.retrying())
    with traced.tracer.start_as_current_span("caller") as caller:
        assert await get(session, server.url) == 200
        assert trace.get_current_span() is caller
    assert len(server.requests) == 3
    attempts, served = traced.attempts, traced.finished(SpanKind.SERVER)
    calls = [span for span in traced.finished(SpanKind.CLIENT) if span not in attempts]
    assert len(calls) == (1 if official else 0)
    parent = ids(calls)[0] if official else caller.get_span_context().span_id
    assert parents(attempts) == [parent] * 3
    assert parents(served) == ids(attempts) == carried(server)
    assert len(set(ids(attempts))) == 3
    assert {span.context.trace_id for span in (*attempts, *served) if span.context} == {
        caller.get_span_context().trace_id
    }
    # The call's span, or who called, is told how often.
    told = calls[0] if official else caller
    assert attributes(told)["http.request.resend_count"] == 2  # type: ignore[arg-type]
    books(retry, 3, retry_success=1)


async def test_the_spans_are_by_the_http_conventions(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """Name, kind, status and every attribute, of an answer that fails and of one that does not."""
    server = await serve(reply(503), reply())
    session = open_session(traced.retrying())
    await get(session, (server.url / "private" / "path").with_user("me").with_query(token="s3cr3t"))
    common = {
        "http.request.method": "GET",
        "server.address": "127.0.0.1",
        "server.port": server.url.port,
        "url.full": f"http://127.0.0.1:{server.url.port}/REDACTED",
        "network.protocol.version": "1.1",
    }
    failed, mended = traced.attempts
    assert attributes(failed) == {
        **common,
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert attributes(mended) == {
        **common,
        "http.response.status_code": 200,
        "http.request.resend_count": 1,
    }
    assert (failed.name, mended.name) == ("GET", "GET")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)
    assert mended.status.status_code is StatusCode.UNSET
    scope = failed.instrumentation_scope
    assert scope is not None
    assert (scope.schema_url or "").startswith("https://opentelemetry.io/schemas/")
    # Nothing of path, query and userinfo, wherever it might have gone.
    for span in traced.attempts:
        text = span.to_json()
        assert "private" not in text
        assert "s3cr3t" not in text
        assert "me@" not in text


@pytest.mark.parametrize(("status", "is_error"), [(204, False), (304, False), (404, True)])
async def test_what_is_no_failure_to_us_may_be_one_to_a_client(
    status: int, is_error: bool, traced: Traced, serve: Serve, open_session: Open
) -> None:
    """A 404 is not retried, and an error by the conventions; below 400 the status stays unset."""
    server = await serve(reply(status, b""))
    session = open_session(traced.retrying())
    assert await get(session, server.url) == status
    (span,) = traced.attempts
    assert span.status.status_code is (StatusCode.ERROR if is_error else StatusCode.UNSET)
    assert attributes(span).get("error.type") == (str(status) if is_error else None)


async def test_a_method_of_ones_own_is_no_new_name(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """Unknown methods share a name; what was sent is told beside it."""
    server = await serve(reply())
    session = open_session(traced.retrying())
    async with session.request("BREW", server.url) as answer:
        assert answer.status == 200
    (span,) = traced.attempts
    assert span.name == "HTTP"
    assert attributes(span)["http.request.method"] == "_OTHER"
    assert attributes(span)["http.request.method_original"] == "BREW"


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [
        (close(), "ServerDisconnectedError"),
        (reset(), "ClientOSError"),
    ],
    ids=["FIN", "RST"],
)
async def test_an_exception_is_told_by_its_type_alone(
    fault: Action, error_type: str, traced: Traced, serve: Serve, open_session: Open
) -> None:
    """`error.type` and an error status; no event and no text, since texts name URLs."""
    server = await serve(fault, reply())
    session = open_session(retry := traced.retrying())
    assert await get(session, server.url / "private") == 200
    failed, mended = traced.attempts
    assert attributes(failed)["error.type"] == error_type
    assert "http.response.status_code" not in attributes(failed)
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, None)
    assert failed.events == ()
    assert attributes(mended)["http.request.resend_count"] == 1
    books(retry, 2, retry_success=1)


async def test_an_attempt_that_times_out_is_a_span(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """`attempt_timeout` ends the span with its own error's type."""
    server = await serve(hang(), reply())
    session = open_session(traced.retrying(attempt_timeout=0.05))
    assert await get(session, server.url) == 200
    failed, _ = traced.attempts
    assert attributes(failed)["error.type"] == "ServerTimeoutError"


async def test_a_cancelled_attempt_ends_its_span(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """The span ends, as an error, when the caller leaves; the caller's context is its own again."""
    server = await serve(hang())
    session = open_session(retry := traced.retrying())

    async def call() -> trace.Span:
        with pytest.raises(asyncio.CancelledError):
            await get(session, server.url)
        return trace.get_current_span()

    task = asyncio.create_task(call())
    await until(lambda: server.hits == 1)
    task.cancel()
    assert await task is trace.INVALID_SPAN
    (span,) = traced.attempts
    assert attributes(span)["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.ERROR
    books(retry, 1, ignored=1)


async def test_a_call_cancelled_in_its_wait_leaves_no_open_span(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """Waits belong to no attempt: the failed one's span has ended, the next one's never began."""
    server = await serve(reply(503))
    retry = traced.retrying()
    waiting = asyncio.Event()

    async def meanwhile() -> None:
        waiting.set()
        await asyncio.Event().wait()

    traced.clock.meanwhile = meanwhile
    session = open_session(retry)
    task = asyncio.create_task(get(session, server.url))
    await waiting.wait()
    assert len(traced.attempts) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(traced.attempts) == 1


async def test_redirects_are_resends_too(traced: Traced, serve: Serve, open_session: Open) -> None:
    """Each hop's attempts are spans of their origin; resends are counted on over all hops."""
    other = await serve(traced.served(reply(503)), traced.served(redirect("/end")), reply())
    server = await serve(reply(503), redirect(str(other.url)))
    session = open_session(traced.retrying(), trace_configs=[traced.official()])
    assert await get(session, server.url) == 200
    attempts = traced.attempts
    assert [attributes(span).get("http.request.resend_count") for span in attempts] == [
        None,
        *range(1, 5),
    ]
    assert [attributes(span)["server.port"] for span in attempts] == [server.url.port] * 2 + [
        other.url.port
    ] * 3
    assert carried(server) + carried(other) == ids(attempts)


async def test_aiohttps_hidden_second_run_makes_no_span(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """What sends nothing has no span: as many spans as the server saw requests."""
    server = await serve(close())
    session = open_session(traced.retrying(max_attempts=2))
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await get(session, server.url)
    assert len(traced.attempts) == server.hits == 2


async def test_a_call_that_admission_refuses_has_no_span(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """Nothing sent, nothing shown."""
    server = await serve(close())
    session = open_session(retry := traced.retrying(admission=True))
    for _ in range(20):
        with pytest.raises(aiohttp.ClientError):
            await get(session, server.url)
    with pytest.raises(OriginUnavailable):
        await get(session, server.url)
    assert retry.snapshot().requests.refused
    assert len(traced.attempts) == server.hits


async def test_whatever_happens_each_request_has_its_span(
    official: bool, traced: Traced, serve: Serve, open_session: Open
) -> None:
    """Faults, holds, hops and cancellations at once: a span for each attempt, none mixed up."""
    dice = Random(7)
    kinds = [reply(), reply(), reply(503), reply(429), close(), reset(), redirect("/there"), hang()]
    server = await serve(*(traced.served(dice.choice(kinds)) for _ in range(300)), reply())
    retry = traced.retrying(attempt_timeout=0.2, admission=True, budget_initial=20)
    session = open_session(retry)
    callers: dict[int, set[int]] = {}

    async def call(number: int) -> None:
        with traced.tracer.start_as_current_span("caller") as caller:
            span = caller.get_span_context()
            callers[span.trace_id] = {span.span_id}
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(0.1 if number % 5 == 0 else None):
                    await get(session, server.url / str(number))
            assert trace.get_current_span() is caller

    await asyncio.gather(*(call(number) for number in range(80)))
    attempts = traced.attempts
    # An attempt that was cut short may not have come as far as the server.
    assert 0 < len(server.requests) == len(set(carried(server)))
    assert set(carried(server)) <= set(ids(attempts))
    assert len(attempts) == sum(retry.snapshot().attempts.values())
    if official:
        for span in traced.finished(SpanKind.CLIENT):
            if span not in attempts and span.context is not None:
                callers[span.context.trace_id] = {span.context.span_id}
    for span, parent in zip(attempts, parents(attempts), strict=True):
        assert span.context is not None
        assert parent in callers[span.context.trace_id]
    served = traced.finished(SpanKind.SERVER)
    assert set(parents(served)) <= set(ids(attempts))
    assert retry.snapshot().faults == 0


async def test_middlewares_after_ours_work_inside_the_attempt(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """What runs once per attempt finds the attempt's span current, and its header alone."""
    server = await serve(reply(503), reply())
    seen: list[int] = []
    headers: list[int] = []

    async def inner(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        seen.append(trace.get_current_span().get_span_context().span_id)
        headers.append(len(request.headers.getall("traceparent")))
        return await handler(request)

    session = open_session(traced.retrying(), inner, trace_configs=[traced.official()])
    await get(session, server.url)
    assert seen == ids(traced.attempts)
    assert headers == [1, 1]


async def test_headers_are_the_callers_again_afterwards(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """What an attempt replaced in them, or brought, is gone once it is over."""
    server = await serve(reply())
    after: list[list[tuple[str, str]]] = []

    async def outer(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        response = await handler(request)
        after.append([pair for pair in request.headers.items() if pair[0] in names])
        return response

    names = ("traceparent", "baggage", "X-Mine")
    session = open_session(outer, traced.retrying())
    token = context.attach(baggage.set_baggage("customer", "7"))
    try:
        await get(session, server.url, headers={"traceparent": "of the caller", "X-Mine": "1"})
    finally:
        context.detach(token)
    assert sorted(after[0]) == [("X-Mine", "1"), ("traceparent", "of the caller")]
    (request,) = server.requests
    assert carried(server) == ids(traced.attempts)
    assert request.headers["baggage"] == "customer=7"
    assert request.headers["x-mine"] == "1"


@pytest.mark.parametrize("silence", [suppress_http_instrumentation, suppress_instrumentation])
async def test_suppressed_instrumentation_is_silent(
    silence: Any, traced: Traced, serve: Serve, open_session: Open
) -> None:
    """No span and no header where instrumentation is told to be silent; the retries go on."""
    server = await serve(reply(503), reply())
    session = open_session(retry := traced.retrying())
    with silence():
        assert await get(session, server.url) == 200
    assert traced.attempts == []
    assert not any("traceparent" in request.headers for request in server.requests)
    books(retry, 2, retry_success=1)


async def test_without_attempt_spans_nothing_is_injected(
    traced: Traced, serve: Serve, open_session: Open
) -> None:
    """The default: no span, and headers as they were, also with a provider given."""
    server = await serve(reply(503), reply())
    retry = AdaptiveRetryMiddleware(tracer_provider=traced.provider, sleep=traced.clock.sleep)
    with traced.tracer.start_as_current_span("caller"):
        assert await get(open_session(retry), server.url) == 200
    assert traced.attempts == []
    assert not any("traceparent" in request.headers for request in server.requests)


async def test_sampled_out_calls_go_on_as_they_are(serve: Serve, open_session: Open) -> None:
    """Not sampled: no span is kept, and servers are told not to sample either."""
    traced = Traced(ALWAYS_OFF)
    server = await serve(reply(503), reply())
    session = open_session(retry := traced.retrying())
    assert await get(session, server.url) == 200
    assert traced.spans.get_finished_spans() == ()
    flags = [request.headers["traceparent"].rpartition("-")[2] for request in server.requests]
    assert [int(flag, 16) & trace.TraceFlags.SAMPLED for flag in flags] == [0, 0]
    books(retry, 2, retry_success=1)


async def test_without_an_sdk_it_does_nothing(serve: Serve, open_session: Open) -> None:
    """With the API's no-op provider calls are as they were: no header, no fault."""
    server = await serve(reply(503), reply())
    clock = Clock()
    retry = AdaptiveRetryMiddleware(
        AdaptiveConfig(attempt_spans=True),
        tracer_provider=trace.NoOpTracerProvider(),
        clock=clock,
        sleep=clock.sleep,
    )
    assert await get(open_session(retry), server.url) == 200
    assert not any("traceparent" in request.headers for request in server.requests)
    books(retry, 2, retry_success=1)


# What breaks costs its span, not the call.


class BrokenSampler(Sampler):
    def should_sample(self, *args: Any, **kwargs: Any) -> SamplingResult:
        raise RuntimeError("sampler")

    def get_description(self) -> str:
        return "broken"


class BrokenProcessor(SpanProcessor):
    """Fails when a span begins, or when it ends."""

    def __init__(self, moment: str) -> None:
        self._moment = moment

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self._moment == "start":
            raise RuntimeError("processor")

    def on_end(self, span: ReadableSpan) -> None:
        if self._moment == "end":
            raise RuntimeError("processor")


class BrokenPropagator(TextMapPropagator):
    def extract(self, *args: Any, **kwargs: Any) -> context.Context:
        raise RuntimeError("propagator")

    def inject(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("propagator")

    @property
    def fields(self) -> set[str]:
        return set()


@pytest.mark.parametrize("broken", ["sampler", "start", "end", "propagator"])
async def test_broken_tracing_fails_no_call(
    broken: str, propagator: TextMapPropagator, serve: Serve, open_session: Open
) -> None:
    """The call succeeds, each fault is counted, and the caller's context is as it was."""
    traced = Traced(BrokenSampler() if broken == "sampler" else None)
    if broken in ("start", "end"):
        traced.provider.add_span_processor(BrokenProcessor(broken))
    if broken == "propagator":
        propagate.set_global_textmap(BrokenPropagator())
    server = await serve(reply(503), reply())
    session = open_session(retry := traced.retrying())
    before = context.get_current()
    assert await get(session, server.url) == 200
    assert context.get_current() is before
    snapshot = retry.snapshot()
    assert snapshot.faults == 2
    assert snapshot.requests.retry_success == 1
    assert server.hits == 2
    if broken in ("end", "propagator"):
        assert len(traced.attempts) == 2


async def test_a_span_that_refuses_everything_fails_no_call(
    traced: Traced, serve: Serve, open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attributes and status that can't be set are faults, of answers and of exceptions alike."""
    server = await serve(close(), reply(503), reply())
    session = open_session(retry := traced.retrying())

    def refuse(*_: object) -> None:
        raise RuntimeError("span")

    monkeypatch.setattr("opentelemetry.sdk.trace._Span.set_attribute", refuse)
    assert await get(session, server.url) == 200
    assert len(traced.attempts) == server.hits == 3
    assert retry.snapshot().faults == 3
    assert retry.snapshot().requests.retry_success == 1
