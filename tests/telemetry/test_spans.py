"""Spans of attempts without a network: names, URLs, switches, and coroutines thrown away."""

from __future__ import annotations

import contextvars
from typing import Any, cast

import pytest
from aiohttp import ClientRequest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry._origin.counters import Faults
from aiohttp_adaptive_retry._telemetry.spans import AttemptSpans, shown_url

from ..kit.fakes import Request


def spans_in_memory() -> tuple[TracerProvider, InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


def described(request: Request) -> tuple[str, dict[str, Any]]:
    """Name and attributes of the span of one attempt."""
    provider, exporter = spans_in_memory()
    spans = AttemptSpans(AdaptiveConfig(attempt_spans=True), provider, faults := Faults())
    with spans.attempt(cast(ClientRequest, request), 0):
        pass
    assert faults.count == 0
    (span,) = exporter.get_finished_spans()
    return span.name, dict(span.attributes or {})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://example.com", "https://example.com/"),
        ("https://example.com/#part", "https://example.com/"),
        ("https://example.com:443/a", "https://example.com/REDACTED"),
        ("http://example.com:8080/?token=b", "http://example.com:8080/REDACTED"),
        ("http://me:pw@example.com/", "http://example.com/"),
        ("http://[::1]:8080/", "http://[::1]:8080/"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
    ],
)
def test_a_shown_url_has_no_path_query_or_userinfo(url: str, shown: str) -> None:
    """Scheme, host and port, and a mark where more was cut."""
    assert shown_url(URL(url)) == shown


@pytest.mark.parametrize(
    ("url", "address", "port"),
    [
        ("https://example.com/", "example.com", 443),
        ("http://example.com:8080/", "example.com", 8080),
        ("wss://[::1]/", "::1", 443),
        ("/relative", None, None),
    ],
)
def test_a_span_names_its_server(url: str, address: str | None, port: int | None) -> None:
    """The address as the metrics spell it, and the port also where the URL leaves it out."""
    _, attributes = described(Request(URL(url)))
    assert attributes.get("server.address") == address
    assert attributes.get("server.port") == port
    assert ("url.full" in attributes) is (address is not None)


@pytest.mark.parametrize(
    ("variable", "method", "name"),
    [
        ("", "PATCH", "PATCH"),
        ("", "QUERY", "HTTP"),
        ("GET,QUERY", "QUERY", "QUERY"),
        ("GET,QUERY", "PATCH", "HTTP"),
    ],
)
def test_the_environment_may_name_the_known_methods(
    variable: str, method: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conventions' variable takes the place of the usual list."""
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", variable)
    found, attributes = described(Request(method=method))
    assert found == name
    assert attributes["http.request.method"] == (method if name == method else "_OTHER")


def test_an_error_types_name_is_cut() -> None:
    """As everywhere: `max_error_type_length` characters of it."""
    provider, exporter = spans_in_memory()
    config = AdaptiveConfig(attempt_spans=True, max_error_type_length=5)
    spans = AttemptSpans(config, provider, Faults())
    with pytest.raises(KeyError), spans.attempt(cast(ClientRequest, Request()), 0):
        raise KeyError
    (span,) = exporter.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "KeyEr"


def test_a_coroutine_thrown_away_ends_its_span_and_says_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that is closed in another context than it ran in, as at the end of a loop."""
    provider, exporter = spans_in_memory()
    spans = AttemptSpans(AdaptiveConfig(attempt_spans=True), provider, faults := Faults())

    def attempt() -> Any:
        with spans.attempt(cast(ClientRequest, Request()), 0):
            yield

    running = attempt()
    contextvars.copy_context().run(next, running)
    running.close()
    assert len(exporter.get_finished_spans()) == 1
    assert (faults.count, caplog.records) == (0, [])
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_provider_may_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a provider given the global one is used, also one that is set afterwards."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    spans = AttemptSpans(AdaptiveConfig(attempt_spans=True), None, Faults())
    provider, exporter = spans_in_memory()
    trace.set_tracer_provider(provider)
    with spans.attempt(cast(ClientRequest, Request()), 0):
        pass
    assert len(exporter.get_finished_spans()) == 1


def test_switched_off_no_tracer_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of OpenTelemetry's is touched without `attempt_spans`."""

    def asked(*_: object, **__: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(trace, "get_tracer", asked)
    spans = AttemptSpans(AdaptiveConfig(), None, Faults())
    monkeypatch.setattr("opentelemetry.context.get_current", asked)
    with spans.attempt(cast(ClientRequest, Request()), 0):
        pass


def test_a_provider_has_to_be_one() -> None:
    """A slip is named where it is made."""
    with pytest.raises(TypeError, match="tracer_provider must be a TracerProvider or None"):
        AdaptiveRetryMiddleware(tracer_provider=cast(Any, "jaeger"))
