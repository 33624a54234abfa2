"""What OpenTelemetry sees: observable instruments over the origins' plain integers.

The hot path touches no instrument: an SDK call costs as much as the whole middleware. Counting is
done in integers by `Ledger`; what is here reads them when an exporter asks, on the exporter's
thread, and so only reads what cannot change under it. Only a granted retry, which waits anyway,
records at once (`retry.delay`).

An instrument of one name exists once per provider: making it again would silently drop the new
callback. So there is one `_Hub` per provider, which reports for all middlewares that use it, and
keeps in its totals what a collected one had counted.
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
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

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

    __slots__ = ("_attributes", "_hub")

    def __init__(
        self, owner: object, origins: Origins, meter_provider: MeterProvider | None
    ) -> None:
        self._hub = _hub_for(meter_provider)
        self._attributes: dict[Label, dict[str, str | int]] = {}
        self._hub.join(owner, origins)

    def retry_delay(self, label: Label, seconds: float) -> None:
        """Record the wait before a retry. About 6 microseconds with an SDK; the loop's thread."""
        attributes = self._attributes.get(label)
        if attributes is None:
            # As many as there are labels, which is bounded.
            attributes = self._attributes[label] = labelled(label)
        self._hub.delay.record(seconds, attributes)


class _Hub:
    """The instruments of one provider, and the middlewares that they report for."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self._lock = threading.Lock()
        # Origins and not middlewares: the callbacks must not keep a middleware alive. An entry
        # leaves when its middleware is collected.
        self._live: dict[int, Origins] = {}
        # Filled by finalizers, which may run anywhere, also while the lock is held: so no lock.
        self._gone: deque[int] = deque()
        self._retired: dict[str, Sums] = {name: Counter() for name in _COUNTERS}
        self._reported: dict[str, Sums] = {name: Counter() for name in _COUNTERS}
        self._attributes: dict[str, dict[Key, dict[str, str | int]]] = {
            name: {} for name in (*_COUNTERS, *_LEVELS)
        }
        # When a pass over a middleware's origins was made, and what nobody has asked for yet.
        self._passes: dict[int, tuple[float, dict[str, Sums]]] = {}
        meter = metrics.get_meter(SCOPE, VERSION, meter_provider=provider, schema_url=SCHEMA_URL)
        self.delay = meter.create_histogram(
            _PREFIX + "retry.delay",
            unit="s",
            description="Time waited before a retry.",
            explicit_bucket_boundaries_advisory=_DELAY_BUCKETS,
        )
        for name, counter in _COUNTERS.items():
            meter.create_observable_counter(
                _PREFIX + name,
                [partial(self._count, name, counter)],
                unit=counter.unit,
                description=counter.description,
            )
        for name, level in _LEVELS.items():
            create = (
                meter.create_observable_gauge
                if level.is_gauge
                else meter.create_observable_up_down_counter
            )
            create(
                _PREFIX + name,
                [partial(self._level, name, level)],
                unit=level.unit,
                description=level.description,
            )

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
        for sums in (*self._retired.values(), *self._reported.values()):
            sums.clear()
        self._passes.clear()
        for origins in self._live.values():
            origins.start_anew()

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

    def _count(self, name: str, counter: _Metric, _: CallbackOptions) -> list[Observation]:
        with self._lock:
            self._reap()
            sums = Counter(self._retired[name])
            for origins in self._live.values():
                sums.update(self._read(name, counter, origins))
            reported = self._reported[name]
            for key, value in sums.items():
                # What an origin counted moves to its ledger while we read the one and then the
                # other: a sum may miss it for a moment. An exported counter never falls.
                if value >= reported.get(key, 0):
                    reported[key] = value
            return self._observations(name, counter, reported)

    def _level(self, name: str, level: _Metric, _: CallbackOptions) -> list[Observation]:
        with self._lock:
            self._reap()
            sums: dict[Key, float] = {}
            for origins in self._live.values():
                for key, value in self._read(name, level, origins).items():
                    sums[key] = level.merge(sums[key], value) if key in sums else value
            return self._observations(name, level, sums)

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


_hubs_lock = threading.Lock()
_hubs: weakref.WeakKeyDictionary[object, _Hub] = weakref.WeakKeyDictionary()
# The hub that was made while no global provider was set: it reports to whichever comes.
_proxy_hub: _Hub | None = None


def _hub_for(provider: MeterProvider | None) -> _Hub:
    """The one hub of a provider. None, and the global provider by name, are the same."""
    global _proxy_hub
    with _hubs_lock:
        current = metrics.get_meter_provider()
        unset = type(current).__name__ == "_ProxyMeterProvider"
        if provider is None or provider is current:
            if _proxy_hub is not None:
                return _proxy_hub
            if unset:
                _proxy_hub = _Hub(None)
                return _proxy_hub
            provider = current
        hub = _hubs.get(provider)
        if hub is None:
            hub = _hubs[provider] = _Hub(provider)
        return hub


def _start_anew() -> None:
    """In a forked child, which inherits our memory and no thread but the one that forked.

    What was counted before is the parent's, who goes on reporting it: reported by the child as
    well, it would be there twice. Calls in flight are the parent's too.
    """
    global _hubs_lock
    _hubs_lock = threading.Lock()
    for hub in (*_hubs.values(), _proxy_hub):
        if hub is not None:
            hub.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
