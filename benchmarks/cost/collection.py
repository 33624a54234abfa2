"""Section 3, what an exporter's collection costs at 1024 origins, and what it does to the loop.

Compared with the SDK's own cost: the same points, with the same names, kinds and attributes, from
lists that were made before. What we cost is what is above that.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from statistics import mean
from time import process_time

import aiohttp
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    Gauge,
    InMemoryMetricReader,
    Metric,
    NumberDataPoint,
    Sum,
)
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from .children import in_child
from .effort import Effort
from .figures import Samples, Spread, interleaved, median_of_ratios, ratio_of_medians
from .result import Goal, Section, Table, compared
from .stand_ins import LightRequest, as_request, bare, handler_answering

__all__ = ("collection",)

_ORIGINS = 1024
OURS, READY = "ours", "ready lists"
_TICK = 0.001
# No more lag than ready lists cause; ticks are a millisecond apart, so a twentieth is noise.
_NO_MORE = 1.05
_LAG = (
    "a tick waits for whole switch intervals of the interpreter, 5 ms each, so one more or less "
    "in a collection is chance; the collection itself takes as much longer as its row says."
)


def collection(effort: Effort, section: Section) -> None:
    """Measure with a label for every origin, and with as many as the default allows."""
    rows: list[tuple[str, ...]] = []
    lags: list[tuple[str, ...]] = []
    for labels in (_ORIGINS, 100):
        # Labels are bounded over the lifetime of a process: each bound needs one of its own.
        points, times, worst, average = in_child(_measured, labels, effort.collection_rounds)
        case = f"{_ORIGINS} origins, {labels:,} labels, {points:,} points"
        for name in (OURS, READY):
            spread = Spread.of(times[name])
            high, low = Spread.of(worst[name]), Spread.of(average[name])
            rows.append(
                (
                    f"{case}: {name}",
                    f"{spread.median:.2f}",
                    f"{spread.low:.2f} to {spread.high:.2f}",
                    f"{ratio_of_medians(times[name], times[READY]):.2f}",
                    f"{median_of_ratios(times[name], times[READY]):.2f}",
                )
            )
            lags.append(
                (
                    f"{case}: {name}",
                    f"{high.median:.2f}",
                    f"{high.low:.2f} to {high.high:.2f}",
                    f"{low.median:.2f}",
                    f"{low.low:.2f} to {low.high:.2f}",
                )
            )
        section.goals += [
            _goal(
                f"collection of ready lists, {labels:,} labels",
                times,
                1.3,
                f"{_ORIGINS:,} origins are visited whatever the number of labels they come to.",
            ),
            _goal(f"mean loop lag of ready lists, {labels:,} labels", average, _NO_MORE, _LAG),
            _goal(f"worst loop lag of ready lists, {labels:,} labels", worst, _NO_MORE, _LAG),
        ]
    section.tables += [
        Table(
            "One collection, milliseconds of CPU",
            (
                "points and source",
                "median",
                "interquartile range",
                "x ready, of medians",
                "x ready, median of rounds",
            ),
            rows,
        ),
        Table(
            "Lag of a loop that ticks every millisecond while a thread collects, milliseconds",
            (
                "points and source",
                "worst tick, median",
                "interquartile range",
                "mean tick, median",
                "interquartile range",
            ),
            lags,
        ),
    ]


def _goal(what: str, samples: Samples, limit: float, why: str) -> Goal:
    return compared(what, samples[OURS], samples[READY], limit, why)


def _measured(labels: int, rounds: int) -> tuple[int, Samples, Samples, Samples]:
    return asyncio.run(_collecting(labels, rounds))


async def _collecting(labels: int, rounds: int) -> tuple[int, Samples, Samples, Samples]:
    reader = InMemoryMetricReader()
    middleware = AdaptiveRetryMiddleware(
        AdaptiveConfig(max_labelled_origins=labels),
        meter_provider=MeterProvider(metric_readers=[reader]),
    )
    await _traffic(middleware)
    ready_reader = InMemoryMetricReader()
    points = _served_ready(_metrics(reader), MeterProvider(metric_readers=[ready_reader]))
    readers = {OURS: reader, READY: ready_reader}
    if len(_points(_metrics(ready_reader))) != points:
        raise RuntimeError("the ready lists do not give the same points")
    gc.collect()
    gc.freeze()

    times = await interleaved({name: _timed(source) for name, source in readers.items()}, rounds)
    worst: Samples = {name: [] for name in readers}
    average: Samples = {name: [] for name in readers}
    # Short collections are repeated more often, because a lag is a matter of chance.
    for number in range(rounds if labels == _ORIGINS else 8 * rounds):
        for name in sorted(readers, reverse=bool(number % 2)):
            lags = await _lags(readers[name])
            worst[name].append(max(lags) * 1e3)
            average[name].append(mean(lags) * 1e3)
    return points, times, worst, average


async def _traffic(middleware: AdaptiveRetryMiddleware) -> None:
    """Successes and a failure at each origin, so that each has all that an origin can have."""
    failing = handler_answering(503)
    async with aiohttp.ClientSession() as session:
        for number in range(_ORIGINS):
            url = URL(f"https://host-{number}.example.com/v1/items")
            # A POST is not sent again, so nothing waits here.
            request = as_request(LightRequest(url, session, "POST"))
            for _ in range(20):
                await middleware(request, bare)
            await middleware(request, failing)
    if faults := middleware.snapshot().faults:
        raise RuntimeError(f"{faults} faults: a stand-in lacks what the middleware looks at")


def _timed(reader: InMemoryMetricReader) -> Callable[[], asyncio.Future[float]]:
    async def turn() -> float:
        began = process_time()
        reader.get_metrics_data()
        return (process_time() - began) * 1e3

    return lambda: asyncio.ensure_future(turn())


async def _lags(reader: InMemoryMetricReader) -> list[float]:
    """How late each tick of the loop came, in seconds, while a thread collected."""
    loop = asyncio.get_running_loop()
    lags = []
    collected = loop.run_in_executor(None, reader.get_metrics_data)
    while not collected.done():
        due = loop.time() + _TICK
        await asyncio.sleep(_TICK)
        lags.append(max(0.0, loop.time() - due))
    await collected
    return lags


def _metrics(reader: InMemoryMetricReader) -> list[Metric]:
    data = reader.get_metrics_data()
    if data is None:
        raise RuntimeError("nothing was collected")
    return [
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    ]


def _points(metrics: Iterable[Metric]) -> list[NumberDataPoint]:
    return [
        point
        for metric in metrics
        if isinstance(metric.data, Sum | Gauge)
        for point in metric.data.data_points
    ]


def _served_ready(metrics: list[Metric], provider: MeterProvider) -> int:
    """Serve what was collected once from lists; give back how many points that is."""
    meter = provider.get_meter("ready")
    served = 0
    for metric in metrics:
        ready = [Observation(point.value, point.attributes) for point in _points([metric])]
        served += len(ready)
        name, callbacks, unit = metric.name, [_serving(ready)], metric.unit or ""
        if isinstance(metric.data, Gauge):
            meter.create_observable_gauge(name, callbacks, unit)
        elif isinstance(metric.data, Sum) and metric.data.is_monotonic:
            meter.create_observable_counter(name, callbacks, unit)
        else:
            meter.create_observable_up_down_counter(name, callbacks, unit)
    return served


def _serving(ready: list[Observation]) -> Callable[[CallbackOptions], list[Observation]]:
    return lambda _: ready
