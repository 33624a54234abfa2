"""What OpenTelemetry sees: observable instruments over the origins' plain integers.

The hot path touches no instrument: an SDK call costs as much as the whole middleware. `Ledger`
counts in integers, and an exporter's thread reads them when it collects. It reads only what cannot
change under it. Only a granted retry, which waits anyway, records at once (`retry.delay`).

An SDK makes an instrument of one name once per provider, and drops the callback of a second one
silently. So there is one `_Hub` per provider, which reports for all middlewares of that provider.
Middlewares made without a provider are `_unbound`: the hub of the global provider reports for
them. Which hub that is, is looked up at each collection, so the order of set-up does not matter.
"""

from __future__ import annotations

import math
import operator
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from . import readings
from .ledger import Label
from .origins import Origins
from .readings import Key, Sums, single, windows_limit

__all__ = ("SCHEMA_URL", "SCOPE", "VERSION", "Telemetry", "package_version")

SCOPE: Final = "aiohttp_adaptive_retry"
#: The semantic conventions that `server.address`, `server.port` and `error.type` are taken from.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

_PREFIX: Final = "adaptive_retry."
_REASON: Final = "adaptive_retry.reason"
_STATE: Final = "adaptive_retry.state"
_OUTCOME: Final = "adaptive_retry.outcome"
_ATTEMPT_TYPE: Final = "adaptive_retry.attempt.type"
# Full jitter over 0.2 to 5 seconds, and Retry-After up to a minute.
_DELAY_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Seconds after which the rest of a pass is too old: the collection that began it was cut short.
_PASS_LASTS: Final = 1.0
# Delays kept until a global provider is set; about 300 bytes each. The oldest are dropped first.
_MAX_EARLY_DELAYS: Final = 1000


def package_version() -> str:
    """The installed version of this distribution; 0 in a tree that is not installed."""
    try:
        return version("aiohttp-adaptive-retry")
    except PackageNotFoundError:
        return "0"


# Read at import: a middleware made on a running loop must not read files there.
VERSION: Final = package_version()


class Telemetry:
    """One middleware's side of the metrics. Cheap to make; nothing to close."""

    __slots__ = ("_attributes", "_delay")

    def __init__(
        self, owner: object, origins: Origins, meter_provider: MeterProvider | None
    ) -> None:
        group, self._delay = _connect(meter_provider)
        self._attributes: dict[Label, dict[str, str | int]] = {}
        group.join(owner, origins)

    def retry_delay(self, label: Label, seconds: float) -> None:
        """Record the wait before a retry. About 6 microseconds with an SDK; the loop's thread."""
        attributes = self._attributes.get(label)
        if attributes is None:
            # As many as there are labels, which is bounded.
            attributes = self._attributes[label] = labelled(label)
        self._delay.record(seconds, attributes)


class _Group:
    """Middlewares that are reported together, and the totals of those that were collected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Origins and not middlewares: the callbacks must not keep a middleware alive. An entry
        # leaves when its middleware is collected.
        self._live: dict[int, Origins] = {}
        # Filled by finalizers, which may run anywhere, also while the lock is held: so no lock.
        self._gone: deque[int] = deque()
        self._retired: dict[str, Sums] = {name: Counter() for name in _COUNTERS}
        # For each middleware: when a pass over its origins was made, and the levels not yet read.
        self._passes: dict[int, tuple[float, dict[str, Sums]]] = {}

    def join(self, owner: object, origins: Origins) -> None:
        """Report for these origins too, as long as their owner lives."""
        with self._lock:
            # Where nothing collects, nothing else would let go of those that are gone.
            self._reap()
            self._live[id(origins)] = origins
        weakref.finalize(owner, self._gone.append, id(origins)).atexit = False

    def start_anew(self) -> None:
        """In a forked child: nothing counted yet, and a lock that no lost thread can hold."""
        self._lock = threading.Lock()
        for sums in self._retired.values():
            sums.clear()
        self._passes.clear()
        for origins in self._live.values():
            origins.start_anew()

    def read(self, name: str, metric: _Metric) -> list[Sums]:
        """The numbers of each middleware for one metric, and the total of those collected."""
        with self._lock:
            self._reap()
            sums = [self._read(name, metric, origins) for origins in self._live.values()]
            if name in self._retired:
                sums.append(Counter(self._retired[name]))
            return sums

    def _reap(self) -> None:
        """Move the counts of collected middlewares into the totals. Under the lock."""
        while self._gone:
            origins = self._live.pop(self._gone.popleft(), None)
            if origins is None:
                continue
            origins.dissolve()
            for name, counter in _COUNTERS.items():
                self._retired[name].update(self._read(name, counter, origins))
            self._passes.pop(id(origins), None)

    def _read(self, name: str, metric: _Metric, origins: Origins) -> Sums:
        """A middleware's numbers for one metric. Under the lock.

        An exporter asks for one metric after the other. The first that origins have makes a pass
        over them, and each of the others takes what that pass left for it, once: who asks for one
        a second time is another collection, and gets a pass of its own.
        """
        if metric.read is not None:
            return metric.read(origins)
        now = time.monotonic()
        made, left = self._passes.get(id(origins), (-math.inf, {}))
        if name not in left or now - made > _PASS_LASTS:
            left = readings.levels(origins)
            self._passes[id(origins)] = (now, left)
        return left.pop(name)


class _Hub:
    """What one provider is told.

    A hub holds no instrument, so a callback can make a hub without making instruments.
    """

    def __init__(self) -> None:
        self.group = _Group()
        self._lock = threading.Lock()
        self._reported: dict[str, dict[Key, float]] = {name: {} for name in _COUNTERS}
        self._attributes: dict[str, dict[Key, dict[str, str | int]]] = {
            name: {} for name in (*_COUNTERS, *_LEVELS)
        }
        # For each metric: whether the proxy's callback reports it, or the provider's own.
        self._by_proxy: dict[str, bool] = {}

    def start_anew(self) -> None:
        """In a forked child: nothing reported yet, and a lock that no lost thread can hold."""
        self._lock = threading.Lock()
        for reported in self._reported.values():
            reported.clear()
        self.group.start_anew()

    def observe(self, name: str, metric: _Metric, by_proxy: bool) -> list[Observation]:
        """The values of one metric, for the one of its callbacks that is called first.

        A provider has two callbacks for a metric if it was given by argument and also became the
        global one. OpenTelemetry's SDK keeps the first and drops the second. Another SDK may keep
        both, and then the second reports nothing.
        """
        with self._lock:
            if self._by_proxy.setdefault(name, by_proxy) is not by_proxy:
                return []
            sums = self.group.read(name, metric)
            if _hubs.get(metrics.get_meter_provider()) is self:
                sums += _unbound.read(name, metric)
                _record_early_delays()
            merged: dict[Key, float] = {}
            for part in sums:
                for key, value in part.items():
                    merged[key] = metric.merge(merged[key], value) if key in merged else value
            if name in self._reported:
                merged = self._never_less(name, merged)
            return self._observations(name, metric, merged)

    def _never_less(self, name: str, sums: dict[Key, float]) -> dict[Key, float]:
        """The sums of a counter, none of them below the one that was reported last."""
        reported = self._reported[name]
        for key, value in sums.items():
            # A count may be missed while it moves from an origin to its ledger: they are read one
            # after the other. An exported counter never falls.
            if value >= reported.get(key, 0):
                reported[key] = value
        return reported

    def _observations(
        self, name: str, metric: _Metric, values: Mapping[Key, float]
    ) -> list[Observation]:
        """The values with their attributes, which are made once: there is a bounded number."""
        known = self._attributes[name]
        observations = []
        for key, value in values.items():
            attributes = known.get(key)
            if attributes is None:
                attributes = known[key] = metric.attributes(key)
            observations.append(Observation(value, attributes))
        return observations


class _ProxyDelay:
    """The proxy's `retry.delay`. It keeps what is recorded before a global provider is set.

    OpenTelemetry's own proxy would drop those delays, while the counters report those retries. The
    first collection of the global provider records them.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def record(self, amount: float, attributes: dict[str, str | int]) -> None:
        if _is_proxy(metrics.get_meter_provider()):
            _early_delays.append(partial(self._histogram.record, amount, attributes))
        else:
            self._histogram.record(amount, attributes)


class _Metric(NamedTuple):
    unit: str
    description: str
    #: None for a level that each origin has: one pass over the origins reads all of those.
    read: Callable[[Origins], Sums] | None
    #: The attribute beside the label's.
    attribute: str = ""
    is_gauge: bool = False
    #: How the levels of several middlewares come to one.
    merge: Callable[[float, float], float] = operator.add

    def attributes(self, key: Key) -> dict[str, str | int]:
        label, value = key
        attributes = {} if label is None else labelled(label)
        if self.attribute:
            attributes[self.attribute] = value
        return attributes


def labelled(label: Label) -> dict[str, str | int]:
    """A label as attributes."""
    address, port = label
    attributes: dict[str, str | int] = {"server.address": address}
    if port is not None:
        attributes["server.port"] = port
    return attributes


_COUNTERS: Final[dict[str, _Metric]] = {
    "requests": _Metric("{request}", "Calls that ended, by outcome.", readings.requests, _OUTCOME),
    "attempts": _Metric("{attempt}", "Attempts sent.", readings.attempts, _ATTEMPT_TYPE),
    "failures": _Metric("{attempt}", "Attempts that failed.", readings.failures, "error.type"),
    "retries.suppressed": _Metric("{retry}", "Retries not made.", readings.suppressed, _REASON),
    "window.evicted": _Metric(
        "{attempt}", "Attempts dropped from windows.", readings.evicted, _REASON
    ),
    "cleanups": _Metric(
        "{cleanup}", "Clean-ups of windows and origins.", readings.cleanups, _REASON
    ),
    "origins.evicted": _Metric("{origin}", "Origins dropped.", readings.origins_evicted, _REASON),
    "faults": _Metric("{fault}", "Errors of our own bookkeeping.", readings.faults),
}

_LEVELS: Final[dict[str, _Metric]] = {
    "budget.available": _Metric(
        "{token}",
        "Retries that could be paid for now.",
        None,
    ),
    "budget.limit": _Metric(
        "{token}",
        "Retries that can be saved up.",
        None,
    ),
    "origin.state": _Metric(
        "{origin}",
        "Origins in each state: healthy, congested, limited or down.",
        None,
        _STATE,
    ),
    "calls.held": _Metric(
        "{request}",
        "Calls that wait for their origin to come back, or for the moment it named.",
        None,
    ),
    "window.length": _Metric(
        "{attempt}",
        "Attempts in the windows.",
        None,
    ),
    "window.limit": _Metric(
        "{attempt}",
        "Attempts that the windows can hold.",
        None,
    ),
    "window.memory.usage": _Metric(
        "By",
        "Memory held by the windows.",
        None,
    ),
    "window.memory.limit": _Metric(
        "By",
        "Memory that all windows can ever hold.",
        single(windows_limit),
    ),
    "memory.usage": _Metric(
        "By",
        "Resident memory of the process as last sampled.",
        single(lambda origins: origins.guard.usage),
        is_gauge=True,
        merge=max,
    ),
    "memory.threshold": _Metric(
        "By",
        "Resident memory at which windows are cut.",
        single(lambda origins: origins.guard.threshold),
        is_gauge=True,
        merge=min,
    ),
    "memory.pressure": _Metric(
        "{process}",
        "Whether memory is short, 0 or 1.",
        single(lambda origins: int(origins.guard.pressure)),
        merge=max,
    ),
    "origins.active": _Metric("{origin}", "Origins in the table.", single(len)),
    "origins.limit": _Metric(
        "{origin}",
        "Origins that the table can hold.",
        single(lambda origins: origins.config.max_origins),
    ),
}


# Held while instruments are made. Callbacks must not take it: an SDK calls them under a lock of
# its own, which it also takes to make an instrument.
_hubs_lock = threading.Lock()
_hubs: weakref.WeakKeyDictionary[MeterProvider, _Hub] = weakref.WeakKeyDictionary()
# The providers that have their instruments, OpenTelemetry's proxy among them.
_delays: weakref.WeakKeyDictionary[MeterProvider, Histogram | _ProxyDelay] = (
    weakref.WeakKeyDictionary()
)
# Middlewares made without a provider.
_unbound = _Group()
_early_delays: deque[Callable[[], None]] = deque(maxlen=_MAX_EARLY_DELAYS)


def _connect(provider: MeterProvider | None) -> tuple[_Group, Histogram | _ProxyDelay]:
    """The group that a new middleware joins, and the instrument for its delays.

    OpenTelemetry's proxy stands for the global provider, so any proxy means the same as None.
    """
    with _hubs_lock:
        # Called also if there is an argument: it may load a provider named in the environment,
        # which must not happen on an exporter's thread.
        current = metrics.get_meter_provider()
        if provider is None or _is_proxy(provider):
            provider, group = current, _unbound
        else:
            group = _hub_of(provider).group
        delay = _delays.get(provider)
        if delay is None:
            delay = _delays[provider] = _make_instruments(provider)
        return group, delay


def _is_proxy(provider: MeterProvider) -> bool:
    """Whether this is what OpenTelemetry gives as the global provider while none is set."""
    return type(provider).__name__ == "_ProxyMeterProvider"


def _hub_of(provider: MeterProvider) -> _Hub:
    """The one hub of a provider. Any thread, without a lock."""
    hub = _hubs.get(provider)
    return _hubs.setdefault(provider, _Hub()) if hub is None else hub


def _make_instruments(provider: MeterProvider) -> Histogram | _ProxyDelay:
    """Make all instruments of a provider, and return the one for delays."""
    is_proxy = _is_proxy(provider)
    hub = None if is_proxy else _hub_of(provider)
    meter = metrics.get_meter(SCOPE, VERSION, meter_provider=provider, schema_url=SCHEMA_URL)
    delay = meter.create_histogram(
        _PREFIX + "retry.delay",
        unit="s",
        description="Time waited before a retry.",
        explicit_bucket_boundaries_advisory=_DELAY_BUCKETS,
    )
    for name, metric in (*_COUNTERS.items(), *_LEVELS.items()):
        create: Callable[..., object]
        if name in _COUNTERS:
            create = meter.create_observable_counter
        elif metric.is_gauge:
            create = meter.create_observable_gauge
        else:
            create = meter.create_observable_up_down_counter
        create(
            _PREFIX + name,
            [partial(_observe, hub, name, metric)],
            unit=metric.unit,
            description=metric.description,
        )
    return _ProxyDelay(delay) if is_proxy else delay


def _observe(hub: _Hub | None, name: str, metric: _Metric, _: CallbackOptions) -> list[Observation]:
    """The callback of an instrument. Instruments of the proxy have no hub: they serve whichever
    provider is the global one."""
    if hub is None:
        return _hub_of(metrics.get_meter_provider()).observe(name, metric, by_proxy=True)
    return hub.observe(name, metric, by_proxy=False)


def _record_early_delays() -> None:
    """Record the delays that were kept while no global provider was set."""
    while _early_delays:
        _early_delays.popleft()()


def _start_anew() -> None:
    """In a forked child, which inherits our memory and no thread but the one that forked.

    What was counted before is the parent's, who goes on reporting it: reported by the child as
    well, it would be there twice. Calls in flight are the parent's too.
    """
    global _hubs_lock
    _hubs_lock = threading.Lock()
    for hub in _hubs.values():
        hub.start_anew()
    _unbound.start_anew()
    _early_delays.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
