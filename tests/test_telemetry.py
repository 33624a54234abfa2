"""What an exporter sees: names, units, values; bounded, exact, and safe on its thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sys
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp.client_middlewares import build_client_middlewares
from opentelemetry import metrics as api
from opentelemetry.metrics import _internal as internals
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.util._once import Once
from yarl import URL

from aiohttp_adaptive_retry import (
    AdaptiveConfig,
    AdaptiveRetryMiddleware,
    __version__,
    readings,
    telemetry,
)
from aiohttp_adaptive_retry.origins import Origins

from .kit.clock import Clock
from .kit.fakes import ORIGIN, Request, Rig, Upstream
from .kit.metrics import by, metrics_in

REFUSED = aiohttp.ClientOSError
LABEL = {"server.address": "upstream.example", "server.port": 8080}

# name -> kind, unit, monotonic, attribute names beside the origin's (None: has no origin)
TABLE: dict[str, tuple[str, str, bool | None, set[str] | None]] = {
    "requests": ("Sum", "{request}", True, {"adaptive_retry.outcome"}),
    "attempts": ("Sum", "{attempt}", True, {"adaptive_retry.attempt.type"}),
    "failures": ("Sum", "{attempt}", True, {"error.type"}),
    "retries.suppressed": ("Sum", "{retry}", True, {"adaptive_retry.reason"}),
    "retry.delay": ("Histogram", "s", None, set()),
    "budget.available": ("Sum", "{token}", False, set()),
    "budget.limit": ("Sum", "{token}", False, set()),
    "origin.state": ("Sum", "{origin}", False, {"adaptive_retry.state"}),
    "calls.held": ("Sum", "{request}", False, set()),
    "window.length": ("Sum", "{attempt}", False, set()),
    "window.limit": ("Sum", "{attempt}", False, set()),
    "window.memory.usage": ("Sum", "By", False, set()),
    "window.memory.limit": ("Sum", "By", False, None),
    "window.evicted": ("Sum", "{attempt}", True, None),
    "cleanups": ("Sum", "{cleanup}", True, None),
    "memory.usage": ("Gauge", "By", None, None),
    "memory.threshold": ("Gauge", "By", None, None),
    "memory.pressure": ("Sum", "{process}", False, None),
    "origins.active": ("Sum", "{origin}", False, None),
    "origins.limit": ("Sum", "{origin}", False, None),
    "origins.evicted": ("Sum", "{origin}", True, None),
}
REASONED = {"window.evicted", "cleanups", "origins.evicted"}


def collected(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "aiohttp_adaptive_retry"
    assert scope.scope.version == __version__
    assert scope.schema_url.startswith("https://opentelemetry.io/schemas/")
    return {metric.name: metric for metric in scope.metrics}


async def test_the_whole_table() -> None:
    """Every metric has its name, kind, unit and attributes, and there is no other."""
    rig = Rig([503, 200, REFUSED], max_attempts=2)
    await rig.call()
    with pytest.raises(aiohttp.ClientOSError):
        await rig.call()
    found = collected(rig.reader)
    assert set(found) == {f"adaptive_retry.{name}" for name in TABLE}
    for name, (kind, unit, monotonic, own) in TABLE.items():
        metric = found[f"adaptive_retry.{name}"]
        assert type(metric.data).__name__ == kind, name
        assert metric.unit == unit, name
        assert metric.description.endswith("."), name
        if monotonic is not None:
            assert metric.data.is_monotonic is monotonic, name
        expected = {"adaptive_retry.reason"} if name in REASONED else set()
        if own is not None:
            expected = {*LABEL, *own}
        points = list(metric.data.data_points)
        assert points, name
        for point in points:
            assert set(point.attributes) == expected, name
            if own is not None:
                assert {key: point.attributes[key] for key in LABEL} == LABEL


async def test_values() -> None:
    """The numbers are those of what happened."""
    rig = Rig([200, 200, 503, 200, REFUSED], max_attempts=3)
    for _ in range(3):
        await rig.call()
    with pytest.raises(aiohttp.ClientOSError):
        await rig.call()
    await_hits = rig.upstream.hits
    metrics = rig.metrics()

    def sums(name: str, attribute: str) -> dict[Any, Any]:
        return by(metrics[f"adaptive_retry.{name}"], attribute)

    assert sums("requests", "adaptive_retry.outcome") == {
        "first_success": 2,
        "retry_success": 1,
        "failed_without_retry": 0,
        "failed_after_retry": 1,
        "refused": 0,
        "ignored": 0,
    }
    assert sums("attempts", "adaptive_retry.attempt.type") == {"original": 4, "retry": 3}
    assert await_hits == 7
    assert sums("failures", "error.type") == {"503": 1, "ClientOSError": 3}
    assert sums("retries.suppressed", "adaptive_retry.reason") == {"max_attempts": 1}
    assert sums("window.length", "server.port") == {8080: 7}
    assert sums("window.limit", "server.port") == {8080: 1000}
    assert sums("window.memory.usage", "server.port") == {8080: 8 * 9}
    assert sums("budget.limit", "server.port") == {8080: 20}
    # 4 at first, 2 successes at a tenth, a retry that mended, 2 wasted, and what the waits earned.
    earned = sum(rig.clock.waits) / 30
    assert sums("budget.available", "server.port")[8080] == pytest.approx(4 + 0.2 + 1 - 2 + earned)
    assert sums("retry.delay", "server.port")[8080] == pytest.approx(sum(rig.clock.waits))
    assert sums("origins.active", "") == {None: 1}
    assert sums("origins.limit", "") == {None: 1024}
    assert sums("memory.pressure", "") == {None: 0}
    assert 0 < sums("memory.usage", "")[None] < sums("memory.threshold", "")[None]


async def test_delays_have_buckets_in_seconds() -> None:
    """The histogram's advice makes a wait of 100 ms and one of 5 s fall into different buckets."""
    rig = Rig([503, 200])
    await rig.call()
    (point,) = collected(rig.reader)["adaptive_retry.retry.delay"].data.data_points
    assert point.count == 1
    assert point.explicit_bounds[0] <= 0.05
    assert 5.0 in point.explicit_bounds


async def test_there_is_one_delay_for_each_retry_sent() -> None:
    """A wait that was cancelled has led to no retry, and is no delay before one."""
    rig = Rig([503, 200, 503])
    await rig.call()

    async def cancelled(_: float) -> None:
        raise asyncio.CancelledError

    rig.middleware._sleep = cancelled
    with pytest.raises(asyncio.CancelledError):
        await rig.call()
    found = collected(rig.reader)
    (point,) = found["adaptive_retry.retry.delay"].data.data_points
    assert point.count == rig.middleware.snapshot().attempts["retry"] == 1


async def test_the_default_port_is_a_port() -> None:
    """A URL without a port is counted under the port that its scheme has."""
    rig = Rig()
    await rig.call(URL("https://upstream.example/"))
    points = rig.metrics()["adaptive_retry.attempts"]
    assert by(points, "server.port") == {443: 1}


async def test_labels_are_bounded_over_the_lifetime() -> None:
    """However many origins come and go, label sets stop at the bound; the rest is `_OTHER`."""
    rig = Rig(max_labelled_origins=10, max_origins=5)
    for number in range(1000):
        await rig.call(URL(f"http://h{number}.example/"))
    metrics = rig.metrics()
    addresses = by(metrics["adaptive_retry.attempts"], "server.address")
    assert len(addresses) == 11
    assert addresses["_OTHER"] == 990
    assert sum(addresses.values()) == 1000
    for name in ("adaptive_retry.window.length", "adaptive_retry.budget.available"):
        assert set(by(metrics[name], "server.address")) <= set(addresses)
    assert by(metrics["adaptive_retry.origins.evicted"], "adaptive_retry.reason") == {
        "idle": 0,
        "memory": 0,
        "origin_limit": 995,
    }


async def test_no_label_at_all() -> None:
    """With no labels permitted everything is counted together."""
    rig = Rig(max_labelled_origins=0)
    await rig.call()
    assert by(rig.metrics()["adaptive_retry.attempts"], "server.address") == {"_OTHER": 1}


async def test_the_label_bound_is_shared_by_all_middlewares_of_the_process() -> None:
    """Two middlewares together get no more labels than one."""
    first, second = Rig(max_labelled_origins=10), Rig(max_labelled_origins=10)
    for number in range(8):
        await first.call(URL(f"http://a{number}.example/"))
        await second.call(URL(f"http://b{number}.example/"))
        await second.call(URL(f"http://a{number}.example/"))
    names: set[Any] = set()
    for rig in (first, second):
        names |= set(by(rig.metrics()["adaptive_retry.attempts"], "server.address"))
    assert len(names - {"_OTHER"}) == 10
    assert "_OTHER" in names


async def test_counts_of_evicted_origins_stay() -> None:
    """What an origin counted is not lost with it, and no counter ever falls."""
    rig = Rig([503, 200] * 50, max_origins=1)
    last: dict[Any, Any] = {}
    for number in range(50):
        await rig.call(URL(f"http://h{number % 3}.example/"))
        metrics = rig.metrics()
        for name in ("attempts", "requests", "failures", "window.evicted", "origins.evicted"):
            points = metrics.get(f"adaptive_retry.{name}", {})
            for attributes, value in points.items():
                assert value >= last.get((name, attributes), 0)
                last[name, attributes] = value
    assert sum(metrics["adaptive_retry.attempts"].values()) == 100
    length = sum(metrics["adaptive_retry.window.length"].values())
    assert length + sum(metrics["adaptive_retry.window.evicted"].values()) == 100


async def test_failure_sets_are_bounded() -> None:
    """Many error types at many origins end at a thousand label sets, and none is lost."""
    kinds = [type(f"E{n}", (aiohttp.ClientOSError,), {}) for n in range(300)]
    script = [kinds[n % 300]() for n in range(60 * 300)]
    rig = Rig(script, max_attempts=1, max_labelled_origins=50)
    for number in range(60 * 300):
        with contextlib.suppress(aiohttp.ClientOSError):
            await rig.call(URL(f"http://h{number // 300}.example/"))
    points = rig.metrics()["adaptive_retry.failures"]
    assert len(points) <= 1000
    assert sum(points.values()) == 60 * 300
    assert by(points, "error.type")["_OTHER"] > 0
    assert len(by(points, "server.address")) == 51


async def test_more_labels_than_failure_sets() -> None:
    """Also with more origins labelled than there are places, a thousand sets are the end."""
    rig = Rig([REFUSED], max_attempts=1, max_labelled_origins=3000, max_origins=10)
    for number in range(3000):
        with contextlib.suppress(aiohttp.ClientOSError):
            await rig.call(URL(f"http://h{number}.example/"))
    points = rig.metrics()["adaptive_retry.failures"]
    assert len(points) <= 1000
    assert sum(points.values()) == 3000


async def test_middlewares_of_one_provider_add_up() -> None:
    """One observable of a name serves both: neither is dropped, nothing is reported twice."""
    rig = Rig()
    second = AdaptiveRetryMiddleware(
        AdaptiveConfig(max_origins=10), meter_provider=rig.provider, clock=rig.clock
    )
    await rig.call()
    first, rig.middleware = rig.middleware, second
    await rig.call()
    await rig.call()
    metrics = rig.metrics()
    assert by(metrics["adaptive_retry.attempts"], "server.port") == {8080: 3}
    assert by(metrics["adaptive_retry.window.length"], "server.port") == {8080: 3}
    assert by(metrics["adaptive_retry.origins.limit"], "") == {None: 1034}
    for name in ("memory.usage", "memory.pressure", "memory.threshold"):
        assert len(metrics[f"adaptive_retry.{name}"]) == 1
    assert by(metrics["adaptive_retry.memory.pressure"], "") == {None: 0}
    assert first.snapshot().requests.total == 1


async def test_one_pass_over_the_origins_serves_a_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All levels of the origins come of one pass, and each collection makes one of its own."""
    rig = Rig()
    passes = 0
    whole = readings.levels

    def counted(origins: Origins) -> dict[str, readings.Sums]:
        nonlocal passes
        passes += 1
        return whole(origins)

    monkeypatch.setattr(readings, "levels", counted)
    for number in range(1, 4):
        await rig.call()
        assert by(rig.metrics()["adaptive_retry.window.length"], "server.port") == {8080: number}
        assert passes == number


async def test_the_rest_of_a_collection_that_was_cut_short_is_not_served_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a collection left behind is forgotten in a second, and dies with its middleware."""
    rig = Rig()
    await rig.call()
    now = 1000.0
    monkeypatch.setattr(telemetry, "time", SimpleNamespace(monotonic=lambda: now))
    group = telemetry._hubs[rig.provider].group
    last = "window.memory.usage"
    group.read(last, telemetry._LEVELS[last])
    assert group._passes
    await rig.call()
    now += 1.1
    assert by(rig.metrics()["adaptive_retry.window.length"], "server.port") == {8080: 2}
    rig.middleware = None  # type: ignore[assignment]
    gc.collect()
    rig.metrics()
    assert not group._passes


async def test_each_provider_sees_only_its_own() -> None:
    """A call through one middleware shows at its provider and at no other."""
    first, second = Rig(), Rig()
    await first.call()
    assert sum(first.metrics()["adaptive_retry.attempts"].values()) == 1
    assert "adaptive_retry.attempts" not in second.metrics()


async def test_what_a_collected_middleware_counted_stays() -> None:
    """The middleware goes, its memory goes, its counts stay in the totals."""
    rig = Rig([503, 200, 200])
    await rig.call()
    await rig.call()
    rig.middleware = None  # type: ignore[assignment]
    gc.collect()
    for _ in range(2):
        metrics = rig.metrics()
        assert sum(metrics["adaptive_retry.attempts"].values()) == 3
        assert sum(metrics["adaptive_retry.window.evicted"].values()) == 3
        assert "adaptive_retry.window.length" not in metrics
        assert by(metrics.get("adaptive_retry.origins.active", {}), "") in ({}, {None: 0})


def test_many_short_lived_middlewares_leave_nothing_behind() -> None:
    """A program that makes one middleware a session, and has no exporter, does not grow."""
    provider = MeterProvider([InMemoryMetricReader()])
    for _ in range(200):
        AdaptiveRetryMiddleware(meter_provider=provider)
    gc.collect()
    keep = AdaptiveRetryMiddleware(meter_provider=provider)
    assert len(telemetry._hubs[provider].group._live) == 1
    assert keep.snapshot().requests.total == 0


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes the process as it is before any provider is set, as often as it is called."""

    def unset_now() -> None:
        monkeypatch.setattr(internals, "_METER_PROVIDER", None)
        monkeypatch.setattr(internals, "_METER_PROVIDER_SET_ONCE", Once())
        monkeypatch.setattr(internals, "_PROXY_METER_PROVIDER", internals._ProxyMeterProvider())
        monkeypatch.setattr(telemetry, "_unbound", telemetry._Group())
        monkeypatch.setattr(telemetry, "_early_delays", deque(maxlen=telemetry._MAX_EARLY_DELAYS))

    unset_now()
    # A garbage collection then visits the objects of this test only, and takes no time.
    gc.freeze()
    yield unset_now
    gc.unfreeze()


class Fleet:
    """Middlewares, the calls made through them, and what the snapshots say of those calls."""

    def __init__(self) -> None:
        self.middlewares: list[AdaptiveRetryMiddleware] = []
        self.windows_of_collected = 0
        self._collected: Counter[tuple[str, str]] = Counter()

    def add(self, provider: api.MeterProvider | None = None) -> None:
        self.middlewares.append(AdaptiveRetryMiddleware(meter_provider=provider, sleep=no_sleep))
        self.call()

    def call(self) -> None:
        """Two calls and a retry through each middleware that lives."""
        asyncio.run(self._call())

    async def _call(self) -> None:
        for middleware in self.middlewares:
            chain = build_client_middlewares(Upstream([200, 503, 200]), (middleware,))
            for _ in range(2):
                await chain(cast(aiohttp.ClientRequest, Request()))

    def drop(self) -> None:
        """Let the oldest middleware be garbage-collected."""
        if self.middlewares:
            self._collected += counts(self.middlewares[0])
            self.windows_of_collected += window_length(self.middlewares[0])
            del self.middlewares[0]
            gc.collect()

    def expected(self) -> dict[tuple[str, str], int]:
        total = Counter(self._collected)
        for middleware in self.middlewares:
            total += counts(middleware)
        return dict(total)


async def no_sleep(_: float) -> None:
    """A wait that takes no time."""


def counts(middleware: AdaptiveRetryMiddleware) -> Counter[tuple[str, str]]:
    """The non-zero counts of a snapshot."""
    snapshot = middleware.snapshot()
    found = Counter({("attempts", kind): count for kind, count in snapshot.attempts.items()})
    found["requests", "first_success"] = snapshot.requests.first_success
    found["requests", "retry_success"] = snapshot.requests.retry_success
    found["failures", "503"] = snapshot.failures["503"]
    return found


def window_length(middleware: AdaptiveRetryMiddleware) -> int:
    return sum(origin.window_length for origin in middleware.snapshot().origins)


def assert_exported(reader: InMemoryMetricReader, fleet: Fleet) -> None:
    """A reader is told exactly what the snapshots of a fleet say."""
    found = metrics_in(reader)
    delays = delay_count(reader)

    def exported(name: str, attribute: str) -> dict[tuple[str, str], int]:
        values = by(found.get(f"adaptive_retry.{name}", {}), attribute)
        return {(name, value): count for value, count in values.items() if count}

    expected = fleet.expected()
    assert {
        **exported("requests", "adaptive_retry.outcome"),
        **exported("attempts", "adaptive_retry.attempt.type"),
        **exported("failures", "error.type"),
    } == expected
    assert delays == expected.get(("attempts", "retry"), 0)
    assert sum(found.get("adaptive_retry.window.length", {}).values()) == sum(
        map(window_length, fleet.middlewares)
    )
    assert (
        sum(found.get("adaptive_retry.window.evicted", {}).values()) == fleet.windows_of_collected
    )
    assert sum(found.get("adaptive_retry.origins.limit", {}).values()) == 1024 * len(
        fleet.middlewares
    )
    for name in ("memory.usage", "memory.threshold"):
        assert len(found.get(f"adaptive_retry.{name}", {})) == min(len(fleet.middlewares), 1)


def delay_count(reader: InMemoryMetricReader) -> int:
    data = reader.get_metrics_data()
    return sum(
        point.count
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "adaptive_retry.retry.delay"
        for point in metric.data.data_points
        if isinstance(point, HistogramDataPoint)
    )


STEPS = ("without", "with p", "with the global", "set p", "collect", "drop")


@pytest.mark.parametrize("order", list(itertools.permutations(STEPS)), ids=", ".join)
def test_no_order_of_setup_loses_or_doubles_counts(
    order: tuple[str, ...],
    unset: Callable[[], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However the provider is reached, and whenever it is set, it is told of each call once."""
    fleet, reader = Fleet(), InMemoryMetricReader()
    provider = MeterProvider([reader])
    last: dict[Any, Any] = {}

    def collect() -> None:
        for name, points in metrics_in(reader).items():
            for attributes, value in points.items():
                if name.removeprefix("adaptive_retry.") in telemetry._COUNTERS:
                    assert value >= last.get((name, attributes), 0), name
                    last[name, attributes] = value

    steps: dict[str, Callable[[], None]] = {
        "without": fleet.add,
        "with p": lambda: fleet.add(provider),
        "with the global": lambda: fleet.add(api.get_meter_provider()),
        "set p": lambda: api.set_meter_provider(provider),
        "collect": collect,
        "drop": fleet.drop,
    }
    for step in order:
        steps[step]()
        fleet.call()
    collect()
    assert_exported(reader, fleet)
    # The counts stay when all middlewares are gone.
    while fleet.middlewares:
        fleet.drop()
    collect()
    assert_exported(reader, fleet)
    assert caplog.records == []


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("without", "with p", "with q", "set p"))), ids=", ".join
)
def test_of_two_providers_each_is_told_its_own(
    order: tuple[str, ...], unset: Callable[[], None]
) -> None:
    """The global provider has the middlewares made without one, the other has only its own."""
    readers = p_reader, q_reader = InMemoryMetricReader(), InMemoryMetricReader()
    p, q = (MeterProvider([reader]) for reader in readers)
    of_p, of_q = Fleet(), Fleet()
    steps: dict[str, Callable[[], None]] = {
        "without": of_p.add,
        "with p": lambda: of_p.add(p),
        "with q": lambda: of_q.add(q),
        "set p": lambda: api.set_meter_provider(p),
    }
    for step in order:
        steps[step]()
        metrics_in(p_reader)
        metrics_in(q_reader)
        of_p.call()
        of_q.call()
    assert_exported(p_reader, of_p)
    assert_exported(q_reader, of_q)


@pytest.mark.parametrize("passed", ["kept from before", "made by hand"])
def test_a_proxy_stands_for_the_global_provider(passed: str, unset: Callable[[], None]) -> None:
    """Whichever proxy is passed, and whenever, the global provider is told."""
    kept = api.get_meter_provider()
    proxy = kept if passed == "kept from before" else internals._ProxyMeterProvider()
    fleet, reader = Fleet(), InMemoryMetricReader()
    fleet.add(proxy)
    api.set_meter_provider(MeterProvider([reader]))
    fleet.add(proxy)
    assert_exported(reader, fleet)


class KeepsAll(MeterProvider):
    """A provider that makes a new meter each time, and so keeps both callbacks of a metric.

    OpenTelemetry leaves open whether meters of one name are the same object.
    """

    def get_meter(self, *args: Any, **kwargs: Any) -> api.Meter:
        with self._meter_lock:
            self._meters.clear()
        return super().get_meter(*args, **kwargs)


@pytest.mark.parametrize("explicit", ["before", "after"])
def test_a_provider_that_keeps_both_callbacks_is_told_once(
    explicit: str, unset: Callable[[], None]
) -> None:
    """Where no instrument is dropped as a duplicate, nothing is reported by two of them."""
    fleet = Fleet()
    provider = KeepsAll([InMemoryMetricReader()])
    fleet.add()
    if explicit == "before":
        fleet.add(provider)
    api.set_meter_provider(provider)
    if explicit == "after":
        fleet.add(provider)
    instruments = provider._measurement_consumer._async_instruments
    assert len(instruments) == 2 * len({**telemetry._COUNTERS, **telemetry._LEVELS})
    observed: Counter[str] = Counter()
    for instrument in instruments:
        (callback,) = instrument._callbacks
        assert callable(callback)
        for observation in callback(api.CallbackOptions()):
            observed[instrument.name] += int(observation.value)
    assert observed["adaptive_retry.attempts"] == sum(
        sum(middleware.snapshot().attempts.values()) for middleware in fleet.middlewares
    )
    assert observed["adaptive_retry.origins.limit"] == 1024 * len(fleet.middlewares)


def test_early_delays_are_bounded(unset: Callable[[], None]) -> None:
    """Where no provider is ever set, only the last delays are kept."""
    early = AdaptiveRetryMiddleware()
    for number in range(2 * telemetry._MAX_EARLY_DELAYS):
        early._telemetry.retry_delay(("upstream.example", 80), number)
    assert len(telemetry._early_delays) == telemetry._MAX_EARLY_DELAYS
    api.set_meter_provider(MeterProvider([reader := InMemoryMetricReader()]))
    early._telemetry.retry_delay(("upstream.example", 80), 1)
    metrics_in(reader)
    assert delay_count(reader) == telemetry._MAX_EARLY_DELAYS + 1
    assert not telemetry._early_delays


def test_a_provider_is_collectable(unset: Callable[[], None]) -> None:
    """A provider goes when the program lets go of it, though other middlewares live."""
    provider = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    fleet = Fleet()
    fleet.add(provider)
    fleet.add()
    gone = weakref.ref(provider)
    fleet.drop()
    del provider
    gc.collect()
    assert gone() is None


def test_a_collection_does_not_wait_for_instruments_to_be_made(unset: Callable[[], None]) -> None:
    """An SDK makes instruments and collects under one lock, so waiting would be a deadlock."""
    fleet, reader = Fleet(), InMemoryMetricReader()
    fleet.add()
    api.set_meter_provider(MeterProvider([reader]))
    thread = threading.Thread(target=metrics_in, args=[reader], daemon=True)
    with telemetry._hubs_lock:
        thread.start()
        thread.join(10)
        assert not thread.is_alive()


def test_without_a_provider_nothing_fails() -> None:
    """The API alone, without an SDK, is enough to run."""
    rig = Rig([503, 200])
    rig.middleware = AdaptiveRetryMiddleware(sleep=Clock().sleep)
    assert asyncio.run(rig.call()).status == 200
    assert rig.middleware.snapshot().requests.retry_success == 1


@pytest.mark.parametrize(
    ("script", "seconds", "run"),
    [([200, 503, 200], 0.01, 1), ([200] * 40 + [503, 200], 1e-5, 30)],
    ids=["each success is booked", "most are only written into the window"],
)
async def test_collecting_on_another_thread_while_the_loop_works(
    script: list[int], seconds: float, run: int
) -> None:
    """The exporter's thread never fails, blocks nobody, and sees counters that only grow, and that
    are never ahead of what was sent."""
    rig = Rig(script * 100_000, max_origins=50, cleanup_frequency=20, window_size=20)
    done, failures, rounds = threading.Event(), [], 0

    def collect() -> None:
        nonlocal rounds
        last: dict[Any, Any] = {}
        try:
            while not done.is_set():
                metrics, sent = rig.metrics(), rig.upstream.hits
                for name in ("attempts", "requests"):
                    assert sum(metrics.get(f"adaptive_retry.{name}", {}).values()) <= sent, name
                for name, points in metrics.items():
                    for attributes, value in points.items():
                        if name.endswith((".attempts", ".evicted", ".requests", ".cleanups")):
                            assert value >= last.get((name, attributes), 0), name
                            last[name, attributes] = value
                rounds += 1
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for number in range(15_000):
            rig.clock.now += seconds
            await rig.call(URL(f"http://h{number // run % 120}.example/"))
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert rounds > 2
    metrics = rig.metrics()
    assert sum(metrics["adaptive_retry.attempts"].values()) == rig.upstream.hits
    assert sum(metrics["adaptive_retry.requests"].values()) == 15_000


async def test_an_instrument_is_touched_only_by_a_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the success path no call goes into OpenTelemetry."""
    rig = Rig([200] * 100 + [503, 200])
    calls: list[str] = []

    class Spy:
        def record(self, value: float, attributes: object) -> None:
            calls.append("record")

    monkeypatch.setattr(rig.middleware._telemetry, "_delay", Spy())
    for _ in range(100):
        await rig.call()
    assert calls == []
    await rig.call()
    assert calls == ["record"]


async def test_secrets_are_in_no_label() -> None:
    """Userinfo, path and query of a URL are in no attribute and no value."""
    rig = Rig([503, 200], record_error_messages=True)
    await rig.call(URL("http://user:hunter2@upstream.example:8080/private?token=s3cr3t"))
    text = repr(rig.metrics()) + repr(rig.middleware.snapshot()) + repr(rig.middleware)
    for secret in ("hunter2", "private", "s3cr3t", "user:"):
        assert secret not in text
    assert ORIGIN.host is not None
    assert ORIGIN.host in text
