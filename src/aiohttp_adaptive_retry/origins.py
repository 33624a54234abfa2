"""One strategy per origin, in a table with a hard bound, and the sweeps that keep it small.

Clean-up needs no call, task or timer: `tick` runs with the traffic, every `cleanup_frequency`
operations and at least every second that sees any, and looks at the process's memory and at the
least recently used end of the table.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Final

from yarl import URL

from .config import AdaptiveConfig
from .errors import ErrorCatalogue
from .faults import Faults, SafeClock
from .ledger import OTHER_LABEL, Label, Ledger, Tally
from .memory import MemoryGuard
from .strategy import AdaptiveStrategy
from .window import Window

__all__ = ("Origin", "Origins")

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# What one sweep looks at, at most; the next one goes on where it stopped.
_SWEEP_LENGTH: Final = 64
# How soon after a tick the next one looks at the clock's due times again.
_TICK_INTERVAL: Final = 1.0


class Origin:
    """A scheme, host and port, and what is known of it."""

    __slots__ = (
        "counted",
        "host",
        "key",
        "port",
        "scheme",
        "strategy",
        "tally",
        "unended",
        "window",
    )

    def __init__(
        self,
        key: str,
        scheme: str,
        host: str,
        port: int | None,
        strategy: AdaptiveStrategy,
        tally: Tally,
    ) -> None:
        self.key = key
        self.scheme = scheme
        self.host = host
        self.port = port
        self.strategy = strategy
        #: The strategy's window, at hand for the hot path.
        self.window = strategy.window
        #: How many of its attempts were counted as operations.
        self.counted = 0
        self.tally = tally
        #: Calls that have begun, less those whose end was counted: a success that was only
        #: written into the window was not.
        self.unended = 0

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended. The loop's thread."""
        return self.unended - self.strategy.written

    @property
    def label(self) -> Label:
        """What it is counted under."""
        return self.tally.label


class Origins:
    """The origins in use, at most `max_origins`, the least recently used one first to go.

    `find` is O(1); memory is bounded by `max_origins` windows. One loop; `listed` and `ledger`
    may be read from any thread.
    """

    __slots__ = (
        "_clock",
        "_interval",
        "_random",
        "_sweep_at",
        "config",
        "due",
        "guard",
        "ledger",
        "newest",
        "operations",
        "table",
    )

    def __init__(
        self,
        config: AdaptiveConfig,
        clock: SafeClock,
        random: Callable[[], float],
        faults: Faults,
        guard: MemoryGuard | None = None,
    ) -> None:
        self.config = config
        self._clock = clock
        self._random = random
        self.guard = MemoryGuard(config) if guard is None else guard
        catalogue = ErrorCatalogue(config.max_error_type_length)
        self.ledger = Ledger(catalogue, config.max_labelled_origins, faults)
        #: By `host:port` as yarl spells it, or, where another scheme has that place, by scheme and
        #: that. The middleware looks things up by itself.
        self.table: OrderedDict[str | None, Origin] = OrderedDict()
        self.newest: Origin | None = None
        #: Operations until the next sweep, as far as they were counted (`count`).
        self.operations = config.cleanup_frequency
        #: When `tick` wants to be called at the latest. After a clock was set back that is far
        #: away; then the countdown brings the next tick, and that puts it right.
        self.due = -math.inf
        self._sweep_at = math.inf
        self._interval = config.cleanup_interval.total_seconds()

    def __len__(self) -> int:
        return len(self.table)

    def find(self, url: URL) -> Origin:
        """The origin of a URL, made if need be; it is then the most recently used one."""
        origin = self.table.get(url.host_port_subcomponent)
        if origin is None or origin.scheme != url.scheme:
            return self._other(url)
        if origin is not self.newest:
            self.touch(origin)
        return origin

    def touch(self, origin: Origin) -> None:
        """Make it the most recently used one."""
        self.table.move_to_end(origin.key)
        self.newest = origin

    def listed(self) -> list[Origin]:
        """The origins at this moment, least recently used first. Any thread."""
        # One step of the interpreter, which no other thread can come between; a build without a
        # global lock may tell us that we were disturbed.
        while True:
            try:
                return list(self.table.values())
            except RuntimeError:  # pragma: no cover
                continue

    def count(self, origin: Origin, now: float) -> bool:
        """Count an operation, and the successes that the hot path wrote by itself before it; tick
        if that is due, and say so. Until something is due again the hot path is on its own."""
        window = origin.window
        new = window.end - origin.counted
        self.operations -= new if new > 0 else 1
        origin.counted = window.end
        ticks = self.operations <= 0 or not now < self.due
        if ticks:
            self.tick(now)
        calm = origin.strategy.health.calm_until
        # The operation that a sweep is due with has to come here.
        last = window.end + self.operations - 1
        window.open(last, calm if calm < self.due else self.due)
        return ticks

    def now(self) -> float:
        """The clock's reading."""
        return self._clock()

    def start_anew(self) -> None:
        """Know no origin and have counted nothing: for a forked child, where no call runs."""
        self.table.clear()
        self.newest = None
        self.ledger.start_anew()
        self.ledger.faults.count = 0

    def dissolve(self) -> None:
        """Count all that is left as evicted: the middleware is gone, and so are its windows."""
        for origin in self.listed():
            self._remove(origin)

    def tick(self, now: float) -> None:
        """Sample memory, sweep if a sweep is due, and say when to come again."""
        change = self.guard.sample(now)
        if change == "begun":
            self._shed(now)
        elif change == "over":
            for origin in self.listed():
                origin.strategy.relax()
        interval = self._interval
        # A clock set back by hours must not stop the sweeps for hours.
        if not self._sweep_at - interval <= now:
            self._sweep_at = now + interval
        if self.operations <= 0 or now >= self._sweep_at:
            self.operations = self.config.cleanup_frequency
            self._sweep_at = now + interval
            self._sweep(now)
        self.due = now + min(_TICK_INTERVAL, interval)

    def _other(self, url: URL) -> Origin:
        """An origin that does not stand where `find` looks: new, spelt in another way, or one of
        two schemes of the same host and port."""
        scheme = sys.intern(url.scheme.lower())
        host = (url.raw_host or "").lower()
        port = url.port
        if port == _DEFAULT_PORTS.get(scheme):
            port = None
        place = (url.host_port_subcomponent or "").lower()
        if url.explicit_port is not None and port is None:
            place = place.removesuffix(f":{url.explicit_port}")
        if place == host:
            # One text instead of two for each origin.
            place = host
        first = self.table.get(place)
        # No host has a slash in it.
        key = place if first is not None and first.scheme == scheme else f"{scheme}://{place}"
        known = self.table.get(key)
        if known is not None:
            if first is None:
                # Whose place it was has gone.
                del self.table[key]
                known.key = place
                self.table[place] = known
            self.touch(known)
            return known
        # Room first: the table is never over its bound, not even for a moment.
        if len(self.table) >= self.config.max_origins:
            self._evict(self._least_recent(), "origin_limit")
            self.ledger.cleanups["origin_limit"] += 1
        if place not in self.table:
            # Free, perhaps since a moment.
            key = place
        effective = port if port is not None else _DEFAULT_PORTS.get(scheme)
        label = (host, effective) if host else OTHER_LABEL
        strategy = AdaptiveStrategy.shared(
            self.config, self._clock, self._random, self.ledger.catalogue, self.guard
        )
        origin = Origin(key, scheme, host, effective, strategy, self.ledger.tally(label))
        self.table[key] = self.newest = origin
        return origin

    def _least_recent(self) -> Origin:
        """The least recently used origin, one without a call in flight if such is near."""
        candidates = islice(self.table.values(), _SWEEP_LENGTH)
        oldest = next(candidates)
        if not oldest.in_flight:
            return oldest
        return next((origin for origin in candidates if not origin.in_flight), oldest)

    def _sweep(self, now: float) -> None:
        """Empty the windows of quiet origins, and let the idle ones go, from the oldest use on."""
        self.ledger.cleanups["periodic"] += 1
        for _ in range(min(_SWEEP_LENGTH, len(self.table))):
            origin = next(iter(self.table.values()))
            origin.strategy.sweep(now)
            if origin.in_flight:
                # In use, however long ago that began: out of the way of those behind it.
                self.table.move_to_end(origin.key)
                self.newest = origin
            elif len(origin.strategy.window) == 0:
                self._evict(origin, "idle")
            else:
                break

    def _shed(self, now: float) -> None:
        """Memory is short: cut all windows, drop texts and idle origins. One clean-up event."""
        self.ledger.cleanups["memory"] += 1
        for origin in self.listed():
            origin.strategy.restrict(now)
            if not origin.in_flight and not len(origin.strategy.window):
                self._evict(origin, "memory")

    def _evict(self, origin: Origin, reason: str) -> None:
        """Let an origin go while its middleware lives on."""
        self.ledger.origins_evicted[reason] += 1
        self._remove(origin)

    def _remove(self, origin: Origin) -> None:
        """Take an origin out of the table; what its window held counts as evicted."""
        # Out of the table before it comes to the totals: another thread, which reads the totals
        # first, may then miss it for a moment, and never counts it twice.
        del self.table[origin.key]
        if self.newest is origin:
            self.newest = None
        window = origin.window
        evicted = self.ledger.evicted
        evicted["capacity"] += window.evicted_capacity
        evicted["expired"] += window.evicted_expired
        evicted["memory"] += window.evicted_memory
        evicted["origin"] += len(window)
        written = origin.strategy.hand_over()
        origin.unended -= written
        origin.tally.first_success += written
        # A call still in flight will record here: recorded and evicted at once.
        origin.window = origin.strategy.window = _EvictedWindow(evicted)
        origin.counted = 0


class _EvictedWindow(Window):
    """The window of an origin that is no longer in the table: holds nothing, counts all."""

    __slots__ = ("_evicted",)

    def __init__(self, evicted: dict[str, int]) -> None:
        super().__init__(1, math.inf)
        self._evicted = evicted

    def append(self, now: float, code: int) -> None:
        """Count an attempt as evicted with its origin."""
        self._evicted["origin"] += 1

    def open(self, upto: int, until: float) -> None:
        """Never: a success would be written down."""
