"""One hub for each provider: no order of set-up loses or doubles what was counted."""

from __future__ import annotations

import asyncio
import gc
import itertools
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

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry._telemetry import hub
from aiohttp_adaptive_retry._telemetry.metrics import COUNTERS, LEVELS, Levels, levels
from aiohttp_adaptive_retry.events import Label

from ..kit.clock import Clock
from ..kit.fakes import Request, Rig, Upstream
from ..kit.metrics import HistogramProvider, by, metrics_in


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

    def counted(registry: Any) -> dict[Label, Levels]:
        nonlocal passes
        passes += 1
        return levels(registry)

    monkeypatch.setattr(hub, "levels", counted)
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
    monkeypatch.setattr(hub, "time", SimpleNamespace(monotonic=lambda: now))
    group = hub._hubs[rig.provider].group
    last = "window.memory.usage"
    group.read(last, LEVELS[last])
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
    assert len(hub._hubs[provider].group._live) == 1
    assert keep.snapshot().requests.total == 0


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Makes the process as it is before any provider is set, as often as it is called."""

    def unset_now() -> None:
        monkeypatch.setattr(internals, "_METER_PROVIDER", None)
        monkeypatch.setattr(internals, "_METER_PROVIDER_SET_ONCE", Once())
        monkeypatch.setattr(internals, "_PROXY_METER_PROVIDER", internals._ProxyMeterProvider())
        monkeypatch.setattr(hub, "_unbound", hub._Group())
        monkeypatch.setattr(hub, "_early_delays", deque(maxlen=hub._MAX_EARLY_DELAYS))

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
                if name.removeprefix("adaptive_retry.") in COUNTERS:
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
    assert len(instruments) == 2 * len({**COUNTERS, **LEVELS})
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
    rig = Rig([503, 200] * (2 * hub._MAX_EARLY_DELAYS + 1))
    rig.middleware = AdaptiveRetryMiddleware(clock=rig.clock, sleep=rig.clock.sleep)

    async def calls(number: int) -> None:
        for _ in range(number):
            await rig.call()

    asyncio.run(calls(2 * hub._MAX_EARLY_DELAYS))
    assert rig.middleware.snapshot().attempts["retry"] == 2 * hub._MAX_EARLY_DELAYS
    assert len(hub._early_delays) == hub._MAX_EARLY_DELAYS
    api.set_meter_provider(MeterProvider([reader := InMemoryMetricReader()]))
    asyncio.run(calls(1))
    metrics_in(reader)
    assert delay_count(reader) == hub._MAX_EARLY_DELAYS + 1
    assert not hub._early_delays


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
    with hub._hubs_lock:
        thread.start()
        thread.join(10)
        assert not thread.is_alive()


def test_without_a_provider_nothing_fails() -> None:
    """The API alone, without an SDK, is enough to run."""
    rig = Rig([503, 200])
    rig.middleware = AdaptiveRetryMiddleware(sleep=Clock().sleep)
    assert asyncio.run(rig.call()).status == 200
    assert rig.middleware.snapshot().requests.retry_success == 1


async def test_an_instrument_is_touched_only_by_a_retry() -> None:
    """On the success path no call goes into OpenTelemetry."""
    rig, delays = Rig([200] * 100 + [503, 200]), list[float]()
    rig.middleware = AdaptiveRetryMiddleware(
        meter_provider=HistogramProvider(delays.append), clock=rig.clock, sleep=rig.clock.sleep
    )
    for _ in range(100):
        await rig.call()
    assert delays == []
    await rig.call()
    assert delays == rig.clock.waits
    assert len(delays) == 1
