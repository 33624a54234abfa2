"""Metrics, and spans if wanted, to an OpenTelemetry collector: a set-up that is right by default.

    from aiohttp_adaptive_retry import AdaptiveRetryMiddleware, otlp

    with otlp.configure("shop") as export:
        retry = AdaptiveRetryMiddleware(meter_provider=export.meter_provider)
        ...

The SDK alone gets some things wrong (seen on 1.45). With a dead or mute collector `force_flush`
ignores its limit, and a tracer provider's `shutdown` takes none. A forked child writes into the
HTTP connection of its parent, and with older SDKs its parent's series, too.

Only this module needs the extra `otlp`. An application that sets OpenTelemetry up by itself needs
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
from datetime import timedelta
from typing import Any, Final, Literal, NamedTuple, Self

try:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError as error:
    raise ImportError(
        "aiohttp_adaptive_retry.otlp needs the extra: pip install 'aiohttp-adaptive-retry[otlp]'"
    ) from error

from ._checks import duration

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
        self._close_timeout, self._closed = close_timeout, False
        # Without a `close`, what was counted since the last export would be lost.
        atexit.register(self.close)

    def close(self) -> None:
        """Export once more and stop, within `close_timeout` whether the collector lives or not.

        Blocks so long: on a running loop, `await asyncio.to_thread(export.close)`. Never raises;
        a loss is logged. Closing again does nothing. An export that nobody closed is closed at the
        interpreter's exit; spans may then take `export_timeout`.
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
        # In threads, as one shutdown knows no limit. A daemon does not keep the process alive.
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

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.close()


def configure(
    service_name: str,
    *,
    service_version: str | None = None,
    traces: bool = False,
    export_interval: float | timedelta = 10.0,
    export_timeout: float | timedelta = 5.0,
    close_timeout: float | timedelta = 3.0,
) -> OtlpExport:
    """Export metrics, and with `traces` spans, to where OpenTelemetry's variables say.

    Args:
        service_name, service_version: the resource's `service.name` and `service.version`. Its
            `service.instance.id` is random, and another one in a forked child.
        traces: make a tracer provider, too.
        export_interval: seconds, or a timedelta, between two exports of metrics.
        export_timeout: how long one export may take, given alike. Below the interval, so that a
            slow collector costs one point of data.
        close_timeout: how long `close` may take in all, given alike.

    Raises:
        ValueError: a time that is not above zero, or a protocol that there is no exporter for.

    `OTEL_*` variables win over all of these: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
    `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_METRIC_EXPORT_TIMEOUT`, `OTEL_EXPORTER_OTLP_TIMEOUT`,
    `OTEL_METRICS_EXPORTER` and `OTEL_TRACES_EXPORTER` where they leave out `otlp`. Endpoint,
    protocol, headers, certificates, compression, temporality, sampler and batches have only them.

    Temporality is cumulative unless `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE` says
    otherwise: a lost export then costs resolution and no counts.

    Reads files and imports modules: call it before the loop runs. Sets nothing global; two calls
    make two independent exports. In a server that forks, call it in each worker (gunicorn's
    `post_fork`): an export made before goes on in the child, but a histogram then begins there
    with what the parent had recorded.
    """
    export_interval = duration("export_interval", export_interval)
    export_timeout = duration("export_timeout", export_timeout)
    close_timeout = duration("close_timeout", close_timeout)
    for name, value in (
        ("export_interval", export_interval),
        ("export_timeout", export_timeout),
        ("close_timeout", close_timeout),
    ):
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} must be a number of seconds above 0, got {value!r}")
    # What can be refused comes first: a reader, once made, has a thread.
    metrics, spans = _exported("metrics"), traces and _exported("traces")
    metric_exporter = _exporter("metrics", export_timeout) if metrics else None
    span_exporter = _exporter("traces", export_timeout) if spans else None
    named = {"service.name": service_name, "service.instance.id": str(uuid.uuid4())}
    if service_version is not None:
        named["service.version"] = service_version
    # `Resource.create` lets its argument win over the environment; so the environment goes in last.
    merged = Resource.create({**named, **OTELResourceDetector().detect().attributes})
    resource = _ProcessResource(merged.attributes, merged.schema_url)
    readers: list[MetricReader] = []
    if metric_exporter is not None:
        interval = _unless_set("OTEL_METRIC_EXPORT_INTERVAL", export_interval * 1000)
        timeout = _unless_set("OTEL_METRIC_EXPORT_TIMEOUT", export_timeout * 1000)
        readers.append(PeriodicExportingMetricReader(metric_exporter, interval, timeout))
    tracer_provider = None
    if traces:
        tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        if span_exporter is not None:
            tracer_provider.add_span_processor(BatchSpanProcessor(span_exporter))
    meter_provider = MeterProvider(readers, resource=resource, shutdown_on_exit=False)
    return OtlpExport(meter_provider, tracer_provider, close_timeout)


def destination(signal: Signal = "metrics") -> Destination:
    """Where the environment sends a signal; the signal's variables win over those for all."""
    # The specification makes http/protobuf the default.
    protocol = _setting(signal, "PROTOCOL") or "http/protobuf"
    endpoint = _setting(signal, "ENDPOINT")
    default = "http://localhost:4317" if protocol == "grpc" else "http://localhost:4318"
    return Destination(protocol, endpoint or default, endpoint is not None)


def _setting(signal: Signal, name: str) -> str | None:
    """What a variable of OTLP's says; an empty one counts as unset, as the specification says."""
    return os.environ.get(_variable(signal, name), "").strip() or None


def _variable(signal: Signal, name: str) -> str:
    """The variable that a setting is read from: the signal's, or else the one for all signals."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"
    return own if os.environ.get(own, "").strip() else f"OTEL_EXPORTER_OTLP_{name}"


def _exported(signal: Signal) -> bool:
    """Whether the environment leaves OTLP among the exporters of a signal."""
    names = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip() or "otlp"
    return "otlp" in (name.strip() for name in names.split(","))


def _unless_set(variable: str, value: float) -> float | None:
    """None, which makes the SDK read the variable, where it is set."""
    return None if os.environ.get(variable, "").strip() else value


class _ProcessResource(Resource):
    """A resource whose `service.instance.id` is another one in a forked child.

    Two processes that share all attributes would write the same series over each other. Newer SDKs
    change the id by themselves.
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
            self._child = Resource({**super().attributes, "service.instance.id": str(uuid.uuid4())})
        return super().attributes if self._child is None else self._child.attributes


class _OwnConnection:
    """Before an HTTP exporter: a forked child opens its own, as writes of two processes mix."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._made_by = os.getpid()
        self._made_with = options

    def export(self, *args: Any, **options: Any) -> Any:
        if self._made_by != os.getpid():
            self.__init__(**self._made_with)  # type: ignore[misc]
        return super().export(*args, **options)  # type: ignore[misc]


def _exporter(signal: Signal, timeout: float) -> Any:
    """A signal's exporter. Its module is imported here, as gRPC takes as long as all the rest."""
    protocol, limit = destination(signal).protocol, _limit(signal, timeout)
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter, trace_exporter

        if signal == "metrics":
            return metric_exporter.OTLPMetricExporter(timeout=limit)
        return trace_exporter.OTLPSpanExporter(timeout=limit)
    if protocol != "http/protobuf":
        variable = _variable(signal, "PROTOCOL")
        raise ValueError(f"{variable} must be 'grpc' or 'http/protobuf', got {protocol!r}")
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as metrics
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as traces

    kind = metrics.OTLPMetricExporter if signal == "metrics" else traces.OTLPSpanExporter
    return type("HttpExporter", (_OwnConnection, kind), {})(timeout=limit)


def _limit(signal: Signal, timeout: float) -> Any:
    """Seconds for one export, None where the environment says; the exporters' types differ."""
    return None if _setting(signal, "TIMEOUT") else timeout


def _quietly(job: Callable[[], object]) -> None:
    try:
        job()
    except Exception as error:
        # The service's work is done by now, so the loss of its last numbers is worth a line only.
        _log.warning("telemetry may be lost: %s while it was closed", type(error).__qualname__)
