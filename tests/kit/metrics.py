"""Reading metrics back from memory."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import InMemoryMetricReader


def metrics_in(reader: InMemoryMetricReader) -> dict[str, dict[frozenset[tuple[str, Any]], Any]]:
    """What a reader collects now: name -> attributes -> value (histograms: their sum)."""
    found: dict[str, dict[frozenset[tuple[str, Any]], Any]] = {}
    data = reader.get_metrics_data()
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                points = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    value = getattr(point, "value", None)
                    key = frozenset((point.attributes or {}).items())
                    points[key] = getattr(point, "sum", None) if value is None else value
    return found


def by(points: dict[frozenset[tuple[str, Any]], Any], attribute: str) -> dict[Any, Any]:
    """Values summed by one attribute."""
    sums: dict[Any, Any] = {}
    for attributes, value in points.items():
        key = dict(attributes).get(attribute)
        sums[key] = sums.get(key, 0) + value
    return sums
