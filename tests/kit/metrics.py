"""Reading metrics back from memory, and a provider that is told of each value at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.metrics import Histogram, Meter, NoOpHistogram, NoOpMeter, NoOpMeterProvider
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


class HistogramProvider(NoOpMeterProvider):
    """A provider without an exporter whose histograms hand each value to a function."""

    def __init__(self, record: Callable[[float], object]) -> None:
        self._record = record

    def get_meter(self, name: str, *_: Any, **__: Any) -> Meter:
        return _HistogramMeter(name, self._record)


class _HistogramMeter(NoOpMeter):
    def __init__(self, name: str, record: Callable[[float], object]) -> None:
        super().__init__(name)
        self._record = record

    def create_histogram(self, name: str, *_: Any, **__: Any) -> Histogram:
        return _Histogram(name, self._record)


class _Histogram(NoOpHistogram):
    def __init__(self, name: str, record: Callable[[float], object]) -> None:
        super().__init__(name)
        self._record = record

    def record(self, amount: float, *_: Any, **__: Any) -> None:
        self._record(amount)
