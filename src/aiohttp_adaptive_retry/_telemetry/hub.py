"""What OpenTelemetry sees: observable instruments over the origins' plain integers.

The hot path touches no instrument: an SDK call costs as much as the whole middleware. `Counters`
counts in integers, and an exporter's thread reads them when it collects. Only a retry, which has
waited anyway, is recorded at once (`retry.delay`).

An SDK makes an instrument of one name once per provider, and drops the callback of a second one
silently. So there is one `_Hub` per provider, which reports for all middlewares of that provider.
Middlewares made without a provider are `_unbound`: the hub of the global provider reports for
them. That hub is looked up at each collection, so the order of set-up does not matter.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Histogram, MeterProvider, Observation

from .._origin.registry import Registry
from ..events import CallInfo, Label
from .metrics import COUNTERS, LEVELS, Key, Levels, Metric, Sums, levels
from .scope import SCHEMA_URL, SCOPE, VERSION

_PREFIX: Final = "adaptive_retry."
# Full jitter over 0.2 to 5 seconds, and Retry-After up to a minute.
_DELAY_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Seconds after which the rest of a pass is too old: the collection that began it was cut short.
_PASS_LASTS: Final = 1.0
# Delays kept until a global provider is set; about 300 bytes each. The oldest are dropped first.
_MAX_EARLY_DELAYS: Final = 1000


class Telemetry:
    """One middleware's side of the metrics. Cheap to make; nothing to close."""

    __slots__ = ("_delay",)

    def __init__(
        self, owner: object, registry: Registry, meter_provider: MeterProvider | None
    ) -> None:
        group, self._delay = _connect(meter_provider)
        registry.counters.on_retry = self.record_retry
        group.join(owner, registry)

    def record_retry(self, call: CallInfo, attributes: dict[str, str | int], waited: float) -> None:
        """Record the wait before a retry, and the number of resends on the current span.

        About 6 microseconds with an SDK; the loop's thread.
        """
        self._delay.record(waited, attributes)
        span = trace.get_current_span()
        if span.is_recording():
            span.set_attribute("http.request.resend_count", call.resends)


class _Group:
    """Middlewares that are reported together, and the totals of those that were collected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Origins and not middlewares: the callbacks must not keep a middleware alive.
        self._live: dict[int, Registry] = {}
        # Filled without the lock by finalizers, which may run anywhere, also while it is held.
        self._gone: deque[int] = deque()
        self._retired: dict[str, Sums] = {name: Counter() for name in COUNTERS}
        # For each middleware: when a pass over its origins was made, what it found, who has asked.
        self._passes: dict[int, tuple[float, dict[Label, Levels], set[str]]] = {}

    def join(self, owner: object, registry: Registry) -> None:
        """Report for these origins too, as long as their owner lives."""
        with self._lock:
            # Without an exporter nothing else lets go of the dead.
            self._collect_dead()
            self._live[id(registry)] = registry
        weakref.finalize(owner, self._gone.append, id(registry)).atexit = False

    def reset_after_fork(self) -> None:
        """In a forked child: nothing counted yet, and a lock that no lost thread can hold."""
        self._lock = threading.Lock()
        for sums in self._retired.values():
            sums.clear()
        self._passes.clear()
        for registry in self._live.values():
            registry.reset_after_fork()

    def read(self, name: str, metric: Metric) -> list[Sums]:
        """The numbers of each middleware for one metric, and the total of those collected."""
        with self._lock:
            self._collect_dead()
            sums = [self._read(name, metric, registry) for registry in self._live.values()]
            if name in self._retired:
                sums.append(Counter(self._retired[name]))
            return sums

    def _collect_dead(self) -> None:
        """Move the counts of collected middlewares into the totals. Under the lock."""
        while self._gone:
            registry = self._live.pop(self._gone.popleft(), None)
            if registry is None:
                continue
            registry.retire()
            for name, counter in COUNTERS.items():
                self._retired[name].update(self._read(name, counter, registry))
            self._passes.pop(id(registry), None)

    def _read(self, name: str, metric: Metric, registry: Registry) -> Sums:
        """A middleware's numbers for one metric. Under the lock.

        An exporter asks for one metric after the other. The first of `LEVELS` makes a pass over the
        origins, and each of the others reads that pass once. A metric that is asked for a second
        time belongs to another collection, which gets a pass of its own.
        """
        if metric.read is not None:
            return metric.read(registry)
        now = time.monotonic()
        made, found, asked = self._passes.get(id(registry), (-math.inf, {}, {name}))
        if name in asked or now - made > _PASS_LASTS:
            found, asked = levels(registry), set()
            self._passes[id(registry)] = (now, found, asked)
        asked.add(name)
        return metric.of_levels(found)


class _Hub:
    """What one provider is told. Without instruments, so that callbacks can make a hub."""

    def __init__(self) -> None:
        self.group = _Group()
        self._lock = threading.Lock()
        # For each metric: the values of a counter that were reported last, and all attributes.
        self._reported: defaultdict[str, dict[Key, float]] = defaultdict(dict)
        self._attributes: defaultdict[str, dict[Key, dict[str, str | int]]] = defaultdict(dict)
        # For each metric: whether the proxy's callback reports it, or the provider's own.
        self._by_proxy: dict[str, bool] = {}

    def reset_after_fork(self) -> None:
        """In a forked child: nothing reported yet, and a lock that no lost thread can hold."""
        self._lock = threading.Lock()
        self._reported.clear()
        self.group.reset_after_fork()

    def observe(self, name: str, metric: Metric, by_proxy: bool) -> list[Observation]:
        """The values of one metric, for the one of its callbacks that is called first.

        A provider has two callbacks for a metric if it was given by argument and also became the
        global one. OpenTelemetry's SDK drops the second. In another SDK it reports nothing.
        """
        with self._lock:
            if self._by_proxy.setdefault(name, by_proxy) is not by_proxy:
                return []
            sums = self.group.read(name, metric)
            if _hubs.get(metrics.get_meter_provider()) is self:
                sums += _unbound.read(name, metric)
                while _early_delays:
                    _early_delays.popleft()()
            merged: dict[Key, float] = {}
            for part in sums:
                for key, value in part.items():
                    merged[key] = metric.merge(merged[key], value) if key in merged else value
            if name in COUNTERS:
                # A count may be missed while it moves from an origin to its ledger. An exported
                # counter never falls.
                reported = self._reported[name]
                for key, total in merged.items():
                    if total >= reported.get(key, 0):
                        reported[key] = total
                merged = reported
            known = self._attributes[name]
            return [
                Observation(total, known.get(key) or known.setdefault(key, metric.attributes(key)))
                for key, total in merged.items()
            ]


class _ProxyDelay:
    """The proxy's `retry.delay`. It keeps what is recorded before a global provider is set.

    OpenTelemetry's own proxy would drop those delays. The global provider's first collection
    records them.
    """

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def record(self, amount: float, attributes: dict[str, str | int]) -> None:
        if _is_proxy(metrics.get_meter_provider()):
            _early_delays.append(partial(self._histogram.record, amount, attributes))
        else:
            self._histogram.record(amount, attributes)


# Held while instruments are made. Callbacks must not take it: an SDK calls them under a lock of
# its own, which it also takes to make an instrument.
_hubs_lock = threading.Lock()
_hubs: weakref.WeakKeyDictionary[MeterProvider, _Hub] = weakref.WeakKeyDictionary()
# The providers that have their instruments, OpenTelemetry's proxy among them.
_Delay = Histogram | _ProxyDelay
_delays: weakref.WeakKeyDictionary[MeterProvider, _Delay] = weakref.WeakKeyDictionary()
_unbound = _Group()
_early_delays: deque[Callable[[], None]] = deque(maxlen=_MAX_EARLY_DELAYS)


def _connect(provider: MeterProvider | None) -> tuple[_Group, _Delay]:
    """The group that a new middleware joins, and the instrument for its delays.

    OpenTelemetry's proxy stands for the global provider, so any proxy means the same as None.
    """
    with _hubs_lock:
        # This may load a provider named in the environment, which must not happen on an exporter's
        # thread.
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


def _make_instruments(provider: MeterProvider) -> _Delay:
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
    for name, metric in (*COUNTERS.items(), *LEVELS.items()):
        create: Callable[..., object]
        if name in COUNTERS:
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


def _observe(hub: _Hub | None, name: str, metric: Metric, _: CallbackOptions) -> list[Observation]:
    """The callback of an instrument. The proxy's have no hub: they serve the global provider."""
    if hub is None:
        return _hub_of(metrics.get_meter_provider()).observe(name, metric, by_proxy=True)
    return hub.observe(name, metric, by_proxy=False)


def _reset_after_fork() -> None:
    """In a forked child: what was counted before is reported by the parent, and not twice."""
    global _hubs_lock
    _hubs_lock = threading.Lock()
    for hub in _hubs.values():
        hub.reset_after_fork()
    _unbound.reset_after_fork()
    _early_delays.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
