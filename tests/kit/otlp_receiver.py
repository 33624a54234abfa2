"""A receiver of OTLP over HTTP on loopback: keeps the exports that it could decode."""

from __future__ import annotations

import gzip
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .http_server import LoopbackServer, Request


class Receiver(LoopbackServer):
    """Keeps all metrics and spans that arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[tuple[int, ExportMetricsServiceRequest]] = []
        self.traces: list[ExportTraceServiceRequest] = []
        #: Requests that were no OTLP.
        self.damaged = 0

    def variables(self) -> dict[str, str]:
        """The environment that sends everything here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url}

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

    def answer(self, request: Request, body: bytes) -> tuple[int, bytes]:
        try:
            if request.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if request.path == "/v1/metrics":
                port = request.client_address[1]
                self.metrics.append((port, ExportMetricsServiceRequest.FromString(body)))
            else:
                self.traces.append(ExportTraceServiceRequest.FromString(body))
        except Exception:
            self.damaged += 1
        return 200, b""

    def not_understood(self) -> None:
        self.damaged += 1
