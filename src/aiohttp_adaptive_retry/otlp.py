"""Metrics, and spans if wanted, to an OpenTelemetry collector: a set-up that is right by default.

    from aiohttp_adaptive_retry import AdaptiveRetryMiddleware, otlp

    with otlp.configure("shop") as export:
        retry = AdaptiveRetryMiddleware(meter_provider=export.meter_provider)
        ...

The SDK alone gets some things wrong (seen on 1.45): with a dead or mute collector `force_flush`
ignores its limit, and a tracer provider's `shutdown` takes none, so that the process ends only when
the exporter has given up; a forked child writes into the HTTP connection of its parent, and the
data of both arrive damaged; and with older SDKs it writes its parent's series, too.

Only this module needs the extra `otlp`; an application that sets OpenTelemetry up by itself needs
neither: the middleware uses its global providers.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Literal, NamedTuple, Self

try:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import (
        MetricExporter,
        MetricReader,
        PeriodicExportingMetricReader,
    )
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
except ImportError as error:
    raise ImportError(
        "aiohttp_adaptive_retry.otlp needs the extra: pip install 'aiohttp-adaptive-retry[otlp]'"
    ) from error

__all__ = ("Destination", "OtlpExport", "configure", "destination")

_log: Final = logging.getLogger("aiohttp_adaptive_retry")

Signal = Literal["metrics", "traces"]


class Destination(NamedTuple):
    """Where a kind of data goes."""

    #: "grpc" or "http/protobuf"; another one is refused by `configure`.
    protocol: str
    #: For people to read; may hold what is secret in your environment.
    endpoint: str
    #: Whether the environment named it; else it is the default on this host.
    chosen: bool


class OtlpExport:
    """Providers that export over OTLP, until `close`. A context manager, too.

    Give `meter_provider`, and `tracer_provider` if there is one, to the middleware; other
    libraries find them if you make them global (`opentelemetry.metrics.set_meter_provider`).
    """

    def __init__(
        self,
        meter_provider: MeterProvider,
        tracer_provider: TracerProvider | None,
        close_timeout: float,
    ) -> None:
        self.meter_provider: Final = meter_provider
        #: None without `traces=True`.
        self.tracer_provider: Final = tracer_provider
        self._close_timeout = close_timeout
        self._closed = False
        # For those who forget; what was counted since the last export would be lost.
        atexit.register(self.close)

    def close(self) -> None:
        """Export once more and stop, within `close_timeout` whether the collector lives or not.

        Blocks so long: on a running loop, `await asyncio.to_thread(export.close)`. Never raises;
        what could not be delivered is worth a line in the log. Closing again does nothing. It is
        done at the interpreter's exit if nobody has; spans may then take `export_timeout`.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        deadline = time.monotonic() + self._close_timeout
        # Not `force_flush`, which ignores its limit; a shutdown exports what is there anyway.
        jobs: list[Callable[[], object]] = [
            lambda: self.meter_provider.shutdown(timeout_millis=self._close_timeout * 1000)
        ]
        if self.tracer_provider is not None:
            jobs.append(self.tracer_provider.shutdown)
        # At the same time and in threads of their own, as one of them knows no limit. What hangs
        # is left behind: it does not keep the process alive.
        threads = [threading.Thread(target=_quietly, args=(job,), daemon=True) for job in jobs]
        for thread, job in zip(threads, jobs, strict=True):
            try:
                thread.start()
            except RuntimeError:
                # The interpreter is at its end and starts no more threads (Python 3.12, atexit).
                _quietly(job)
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            _log.warning("telemetry may be lost: no end of its export in %g s", self._close_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def configure(
    service_name: str,
    *,
    service_version: str | None = None,
    traces: bool = False,
    export_interval: float = 10.0,
    export_timeout: float = 5.0,
    close_timeout: float = 3.0,
) -> OtlpExport:
    """Export metrics, and with `traces` spans, to where OpenTelemetry's variables say.

    Args:
        service_name: the resource's `service.name`. `service_version`: its `service.version`.
            `service.instance.id` is random, and another one in a forked child.
        traces: make a tracer provider, too.
        export_interval: seconds between two exports of metrics.
        export_timeout: seconds that one export may take. Below the interval, so that a slow
            collector costs a point of data and not a queue of them.
        close_timeout: seconds that `close` may take in all.

    Raises:
        ValueError: a time that is not above zero, or a protocol that there is no exporter for.

    `OTEL_*` variables win over all of these: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
    `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_METRIC_EXPORT_TIMEOUT`, `OTEL_EXPORTER_OTLP_TIMEOUT`,
    `OTEL_METRICS_EXPORTER` and `OTEL_TRACES_EXPORTER` where they leave out `otlp`. Endpoint,
    protocol, headers, certificates, compression, temporality, sampler and batches have only them.

    Temporality is cumulative unless `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` says
    otherwise: a lost export then costs resolution and no counts, and Prometheus stores it so.

    Reads files and imports modules: call it before the loop runs. Sets nothing global; called
    twice, it makes two exports that know nothing of each other. In a server that forks, call it
    in each worker (gunicorn's `post_fork`) where you can: one that was made before goes on in the
    child, but a histogram then begins there with what the parent had recorded.
    """
    for name, value in (
        ("export_interval", export_interval),
        ("export_timeout", export_timeout),
        ("close_timeout", close_timeout),
    ):
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be a number of seconds above 0, got {value!r}")
    # What can be refused comes first: a reader, once made, has a thread.
    metric_exporter = _metric_exporter(export_timeout) if _exported("METRICS") else None
    span_exporter = _span_exporter(export_timeout) if traces and _exported("TRACES") else None
    resource = _resource(service_name, service_version)
    readers: list[MetricReader] = []
    if metric_exporter is not None:
        readers.append(
            PeriodicExportingMetricReader(
                metric_exporter,
                _unless_set("OTEL_METRIC_EXPORT_INTERVAL", export_interval * 1000),
                _unless_set("OTEL_METRIC_EXPORT_TIMEOUT", export_timeout * 1000),
            )
        )
    tracer_provider = None
    if traces:
        tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if span_exporter is not None:
            tracer_provider.add_span_processor(BatchSpanProcessor(span_exporter))
    meter_provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    return OtlpExport(meter_provider, tracer_provider, close_timeout)


def destination(signal: Signal = "metrics") -> Destination:
    """Where the environment sends a signal; the signal's variables win over those for all."""
    # http/protobuf is what the specification makes the default.
    protocol = _setting(signal, "PROTOCOL") or "http/protobuf"
    endpoint = _setting(signal, "ENDPOINT")
    default = "http://localhost:4317" if protocol == "grpc" else "http://localhost:4318"
    return Destination(protocol, endpoint or default, endpoint is not None)


def _setting(signal: Signal, name: str) -> str | None:
    """A variable of OTLP's; an empty one counts as unset, as the specification says."""
    variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}", f"OTEL_EXPORTER_OTLP_{name}")
    values = (os.environ.get(variable, "").strip() for variable in variables)
    return next((value for value in values if value), None)


def _exported(signal: str) -> bool:
    """Whether the environment leaves OTLP among the exporters of a signal."""
    names = os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip() or "otlp"
    return "otlp" in (name.strip() for name in names.split(","))


def _unless_set(variable: str, value: float) -> float | None:
    """None, which makes the SDK read the variable, where it is set."""
    return None if os.environ.get(variable, "").strip() else value


class _ProcessResource(Resource):
    """A resource whose `service.instance.id` is another one in a forked child.

    Two processes that share all attributes would write the same series over each other. Newer SDKs
    see to that by themselves, and then this is what they start from.
    """

    def __init__(self, attributes: Mapping[str, Any], schema_url: str) -> None:
        super().__init__(attributes, schema_url)
        self._pid = os.getpid()
        self._child: Resource | None = None

    @property
    def attributes(self) -> Any:
        """The attributes in this process."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._child = Resource({**super().attributes, "service.instance.id": _instance_id()})
        return super().attributes if self._child is None else self._child.attributes


def _resource(service_name: str, service_version: str | None) -> Resource:
    ours = {"service.name": service_name, "service.instance.id": _instance_id()}
    if service_version is not None:
        ours["service.version"] = service_version
    # `Resource.create` lets its argument win over the environment; so the environment goes in last.
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    return _ProcessResource(resource.attributes, resource.schema_url)


def _instance_id() -> str:
    return str(uuid.uuid4())


class _OwnConnection:
    """Before an HTTP exporter: a forked child opens connections of its own.

    A child inherits its parent's open connection, and what both write into it arrives mixed.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made_by = os.getpid()
        self._made_with = options

    def export(self, *args: Any, **options: Any) -> Any:
        if self._made_by != os.getpid():
            self.__init__(**self._made_with)  # type: ignore[misc]
        return super().export(*args, **options)  # type: ignore[misc]


# Imported when they are wanted: gRPC alone takes as long as all the rest.


def _metric_exporter(timeout: float) -> MetricExporter:
    limit = _limit("metrics", timeout)
    if _by_grpc("metrics"):
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc

        return grpc.OTLPMetricExporter(timeout=limit)
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http

    class HttpExporter(_OwnConnection, http.OTLPMetricExporter):
        """With connections of its own in each process."""

    return HttpExporter(timeout=limit)


def _span_exporter(timeout: float) -> SpanExporter:
    limit = _limit("traces", timeout)
    if _by_grpc("traces"):
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        return grpc.OTLPSpanExporter(timeout=limit)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    class HttpExporter(_OwnConnection, http.OTLPSpanExporter):
        """With connections of its own in each process."""

    return HttpExporter(timeout=limit)


def _by_grpc(signal: Signal) -> bool:
    protocol = destination(signal).protocol
    if protocol not in ("grpc", "http/protobuf"):
        raise ValueError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL must be 'grpc' or 'http/protobuf', got {protocol!r}"
        )
    return protocol == "grpc"


def _limit(signal: Signal, timeout: float) -> Any:
    """Seconds for one export, None where the environment says; the exporters' types differ."""
    return None if _setting(signal, "TIMEOUT") else timeout


def _quietly(job: Callable[[], object]) -> None:
    try:
        job()
    except Exception as error:
        # The service's work is done by now; that its last numbers are lost is worth a line only.
        _log.warning("telemetry may be lost: %s while it was closed", type(error).__qualname__)
