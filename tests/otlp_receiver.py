"""A collector's door on loopback: takes OTLP over HTTP, and keeps what it could decode."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps connections alive, as real ones do."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.metrics: list[tuple[int, ExportMetricsServiceRequest]] = []
        self.traces: list[ExportTraceServiceRequest] = []
        #: Requests that were no OTLP.
        self.damaged = 0

    def variables(self) -> dict[str, str]:
        """The environment that sends everything here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server_port}"}

    def resources(self) -> list[dict[str, Any]]:
        """The attributes of each resource of the metrics, in the order of arrival."""
        return [
            {attribute.key: attribute.value.string_value for attribute in part.resource.attributes}
            for _, request in tuple(self.metrics)
            for part in request.resource_metrics
        ]

    def series(self, name: str) -> list[tuple[int, str, int, int]]:
        """Port of the client, instance, temporality and sum of each export of one counter."""
        found = []
        for port, request in tuple(self.metrics):
            for part in request.resource_metrics:
                instance = next(
                    attribute.value.string_value
                    for attribute in part.resource.attributes
                    if attribute.key == "service.instance.id"
                )
                for scope in part.scope_metrics:
                    for metric in scope.metrics:
                        if metric.name == name:
                            total = sum(point.as_int for point in metric.sum.data_points)
                            temporality = metric.sum.aggregation_temporality
                            found.append((port, instance, temporality, total))
        return found

    def spans(self) -> list[Any]:
        """All spans that arrived."""
        return [
            span
            for request in self.traces
            for part in request.resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/metrics":
                port = self.client_address[1]
                self.server.metrics.append((port, ExportMetricsServiceRequest.FromString(body)))
            else:
                self.server.traces.append(ExportTraceServiceRequest.FromString(body))
        except Exception:
            self.server.damaged += 1
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_error(self, *args: Any, **kwargs: Any) -> None:
        # What is no HTTP comes here.
        self.server.damaged += 1
        super().send_error(*args, **kwargs)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (its name there)
        """Nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens; it is gone afterwards."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
