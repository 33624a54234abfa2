"""A CLIENT span for every attempt, by OpenTelemetry's HTTP conventions; only with `attempt_spans`.

The official aiohttp instrumentation sees one request where the middleware sends three, and gives
all three the same `traceparent`: their server spans lie side by side. Here each attempt has a span
of its own, which its server's span hangs under:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/

A tracer, sampler, processor or propagator that fails costs its span and never the call.
"""

from __future__ import annotations

import os
from contextvars import Token
from types import TracebackType
from typing import Final, Self

from aiohttp import ClientRequest, ClientResponse
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider
from yarl import URL

from .._errors import error_type
from .._origin.counters import Faults
from ..config import AdaptiveConfig
from .scope import SCHEMA_URL, SCOPE, VERSION

try:
    from opentelemetry import propagate
except Exception:  # pragma: no cover
    # OTEL_PROPAGATORS names one that is not installed. That must not hurt who wants no spans.
    propagate = None  # type: ignore[assignment]

_KNOWN_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
_OTHER: Final = "_OTHER"
# What the conventions name where an instrumentation doesn't know all methods.
_KNOWN_METHODS_VARIABLE: Final = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS"

# How instrumentations are told to be silent. The API has no public names for the newer keys.
_SILENCERS: Final = (
    "suppress_instrumentation",
    getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"),
    getattr(otel_context, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_instrumentation"),
)


def shown_url(url: URL) -> str:
    """`url.full` as it may be shown: scheme, host and port, and a mark where more was cut.

    The conventions require the attribute and forbid secrets in it. Only the application knows which
    part of a path or query is secret, so none is shown.

    >>> shown_url(URL("https://me:pw@example.com/users/7?token=b"))
    'https://example.com/REDACTED'
    >>> shown_url(URL("http://example.com:8080"))
    'http://example.com:8080/'
    """
    cut = url.raw_path not in ("", "/") or url.raw_query_string
    return f"{url.scheme}://{url.host_port_subcomponent}/{'REDACTED' if cut else ''}"


class AttemptSpans:
    """Makes the spans of one middleware's attempts, or, switched off, none.

    Without a `tracer_provider` spans go to the global provider, also one that is set later.
    """

    __slots__ = ("_fault", "_known_methods", "_name_length", "_tracer")

    def __init__(
        self, config: AdaptiveConfig, tracer_provider: TracerProvider | None, fault: Faults
    ) -> None:
        self._fault = fault
        self._name_length = config.max_error_type_length
        self._known_methods = _known_methods(os.environ.get(_KNOWN_METHODS_VARIABLE, ""))
        self._tracer: trace.Tracer | None = None
        if config.attempt_spans:
            self._tracer = trace.get_tracer(SCOPE, VERSION, tracer_provider, SCHEMA_URL)

    def attempt(self, request: ClientRequest, resends: int) -> AttemptSpan:
        """The span of one attempt, to be entered around it.

        `resends` requests were sent before for the same call, redirects included.
        """
        span = AttemptSpan(request, self._fault, self._name_length)
        if self._tracer is not None:
            try:
                span.begin(self._tracer, *self._described(request, resends))
            except Exception as error:
                self._fault(error)
        return span

    def _described(self, request: ClientRequest, resends: int) -> tuple[str, dict[str, str | int]]:
        """The span's name, and the attributes that a sampler may want to see."""
        method = request.method
        known = method in self._known_methods
        attributes: dict[str, str | int] = {"http.request.method": method if known else _OTHER}
        if not known:
            attributes["http.request.method_original"] = method
        url = request.url
        # As the metrics spell them.
        if url.raw_host:
            attributes["server.address"] = url.raw_host
            attributes["url.full"] = shown_url(url)
        if url.port is not None:
            attributes["server.port"] = url.port
        if resends:
            attributes["http.request.resend_count"] = resends
        return method if known else "HTTP", attributes


class AttemptSpan:
    """One attempt's span, current from `begin` to the end of the `with` block; perhaps none.

    The span ends with the response head. Then the request's headers are again what they were.
    """

    __slots__ = ("_fault", "_headers", "_name_length", "_replaced", "_span", "_token")

    def __init__(self, request: ClientRequest, fault: Faults, name_length: int) -> None:
        self._headers = request.headers
        self._fault = fault
        self._name_length = name_length
        self._span: Span | None = None
        self._token: Token[Context] | None = None
        self._replaced: list[tuple[str, list[str]]] = []

    def begin(self, tracer: trace.Tracer, name: str, attributes: dict[str, str | int]) -> None:
        """Start the span under the current one, make it current, and inject it."""
        here = otel_context.get_current()
        if any(here.get(key) for key in _SILENCERS):
            return
        self._span = tracer.start_span(name, here, kind=SpanKind.CLIENT, attributes=attributes)
        here = trace.set_span_in_context(self._span, here)
        self._token = otel_context.attach(here)
        carrier: dict[str, str] = {}
        propagate.inject(carrier, here)
        # Also those that the official instrumentation injected for the call as a whole.
        self._replaced = [(header, self._headers.getall(header, [])) for header in carrier]
        self._headers.update(carrier)

    def __enter__(self) -> Self:
        return self

    def answered(self, response: ClientResponse) -> None:
        """Note what came back. For a client 4xx is an error as well, by the conventions."""
        span = self._span
        try:
            if span is None or not span.is_recording():
                return
            status = response.status
            span.set_attribute("http.response.status_code", status)
            if response.version is not None:
                span.set_attribute("network.protocol.version", "{}.{}".format(*response.version))
            if status >= 400:
                self._failed(span, str(status))
        except Exception as error:
            self._fault(error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for header, values in self._replaced:
            self._headers.popall(header, None)
            self._headers.extend((header, value) for value in values)
        # A coroutine that is thrown away is closed in whatever context that happens in.
        if self._token is not None and not isinstance(error, GeneratorExit):
            otel_context.detach(self._token)
        span = self._span
        if span is None:
            return
        try:
            if error is not None and span.is_recording():
                # Only the type: aiohttp's texts name URLs.
                self._failed(span, error_type(error)[: self._name_length])
        except Exception as fault:
            self._fault(fault)
        try:
            span.end()
        except Exception as fault:
            self._fault(fault)

    @staticmethod
    def _failed(span: Span, name: str) -> None:
        span.set_attribute("error.type", name)
        span.set_status(StatusCode.ERROR)


def _known_methods(variable: str) -> frozenset[str]:
    """The methods that are named in spans; the environment's list takes the place of ours.

    >>> sorted(_known_methods("GET, QUERY"))
    ['GET', 'QUERY']
    """
    return frozenset(filter(None, map(str.strip, variable.split(",")))) or _KNOWN_METHODS
