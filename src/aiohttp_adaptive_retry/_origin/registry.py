"""The origins in use: a table with a hard bound, each origin with its window, policy and counts."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Final

from yarl import URL

from .._policy.adaptive import AdaptivePolicy
from .._policy.protocol import Policy
from ..config import AdaptiveConfig
from ..events import Label, Listener
from .counters import OTHER_LABEL, OTHER_NAME, Counters, ErrorCatalogue, Faults
from .memory import MemoryGuard
from .newcomers import Newcomers, can_be_label, is_too_long
from .origin import Origin, UserPolicy
from .waiting import WaitingCalls
from .window import Window

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# What one sweep looks at, at most; the next one goes on where it stopped.
_SWEEP_LENGTH: Final = 64
# The part of all places that may go to origins that only redirects led to.
_SHARE_OF_BROUGHT: Final = 4


def _name(scheme: str, host: str, port: int | None) -> str:
    return f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"


def _label(host: str, port: int | None) -> Label:
    return (host, port) if can_be_label(host) else OTHER_LABEL


_NO_ORIGINS: Final[Mapping[str | None, Origin]] = MappingProxyType({})


class Registry:
    """The origins in use, at most `max_origins`; the least recently used one is the first to go.

    `find` is O(1). Memory is bounded by `max_origins` windows. One loop; any thread may call
    `listed` and read `counters`, `catalogue` and `guard`.

    `clock` never raises. `config_of` says which configuration an origin has, by its name; without
    it all have `config`. `make_policy` makes the policy of a new origin, from its name
    "scheme://host:port". `listeners` are told of each origin's calls, after the counters.

    A redirect can lead to any name, and a name can be of any length. So what only redirects led to
    has no place, label or budget of its own before it has succeeded; until then all such names are
    one origin, `_OTHER`, and names that are too long always are. Then they get a quarter of the
    places and labels at most. Who has never succeeded is the first to go when the table is full.
    """

    def __init__(
        self,
        config: AdaptiveConfig,
        clock: Callable[[], float],
        faults: Faults,
        make_policy: Callable[[str], Policy],
        guard: MemoryGuard | None = None,
        listeners: tuple[Listener, ...] = (),
        config_of: Callable[[str], AdaptiveConfig] | None = None,
    ) -> None:
        self.config = config
        self._config_of = config_of or (lambda _: self.config)
        #: The clock's reading.
        self.now = clock
        self._make_policy = make_policy
        self._listeners = listeners
        self.guard = MemoryGuard(config) if guard is None else guard
        self.waiting = WaitingCalls(config)
        self.catalogue = ErrorCatalogue(config.max_error_type_length)
        self.counters = Counters(config.max_labelled_origins, faults)
        #: By `host:port` as yarl spells it, or, where another scheme has that place, by scheme and
        #: that. The middleware looks things up by itself.
        self.table: OrderedDict[str | None, Origin] = OrderedDict()
        #: The same, or empty once there is an origin with a way: then places don't tell origins.
        self.direct: Mapping[str | None, Origin] = self.table
        self.newest: Origin | None = None
        #: The origin `_OTHER`, once it is needed. It has no place in the table.
        self.others: Origin | None = None
        self.newcomers = Newcomers.of(config)
        # Those in the table that have never succeeded, and those that only redirects led to.
        self._unproven: dict[Origin, None] = {}
        self._brought: dict[Origin, None] = {}

    def __len__(self) -> int:
        return len(self.table)

    def find(self, url: URL, way: str = "", brought: bool = False) -> Origin:
        """The origin of a URL, made if need be; it is then the most recently used one.

        `way` tells what leads there, if that is not the network itself. Of two ways to one place
        each is an origin, with one and the same name and label. `brought` by a redirect, a URL
        whose origin is unknown belongs to `_OTHER`.
        """
        if way:
            return self._find_slowly(url, way, brought)
        origin = self.table.get(url.host_port_subcomponent)
        if origin is None or origin.scheme != url.scheme:
            return self._find_slowly(url, way, brought)
        if origin is not self.newest:
            self.touch(origin)
        return origin

    def touch(self, origin: Origin) -> None:
        """Make it the most recently used one."""
        self.table.move_to_end(origin.key)
        self.newest = origin

    def listed(self) -> list[Origin]:
        """The origins at this moment, least recently used first. Any thread."""
        # No other thread can come between, but in a build without a global lock.
        while True:
            try:
                there = list(self.table.values())
            except RuntimeError:  # pragma: no cover
                continue
            return there if self.others is None else [*there, self.others]

    def settle(self, origin: Origin, url: URL, way: str, status: int, by_name: bool) -> None:
        """Note that a call to an origin that is not settled yet was answered, with no failure.

        `by_name`: the call began there, and did not come by a redirect. `way`: as for `find`.
        """
        try:
            if origin.is_shared:
                # A redirect proves nothing: whoever sent the first one sends the next one too.
                if status < 300 or status == 304:
                    self._find_slowly(url, way, False, named=False)
                return
            self._unproven.pop(origin, None)
            if not origin.proven:
                origin.prove()
            if by_name and not origin.named:
                origin.named = True
                self._brought.pop(origin, None)
                if origin.counters.label == OTHER_LABEL:
                    origin.move_to(self.counters.of_label(_label(origin.host, origin.port)))
            origin.settled = origin.named
        except Exception as fault:
            self.counters.faults(fault)

    def reconfigure(self, config: AdaptiveConfig) -> None:
        """Go by another configuration; windows, policies and counts stay."""
        self.config = config
        self.guard.reconfigure(config)
        self.waiting.reconfigure(config)
        self.catalogue.max_length = config.max_error_type_length
        self.counters.max_labels = config.max_labelled_origins
        now = self.now()
        for origin in self.listed():
            origin.reconfigure(self._config_of(origin.name), now, self.guard.pressure)
        while len(self.table) > config.max_origins:
            self._evict(self._least_useful(), "origin_limit")

    def reset_after_fork(self) -> None:
        """Know no origin and have counted nothing: in a forked child no call runs."""
        self.table.clear()
        self._unproven.clear()
        self._brought.clear()
        self.direct, self.newest, self.others = self.table, None, None
        self.waiting.reset()
        self.newcomers.reset()
        self.counters.reset()
        self.counters.faults.count = 0

    def retire(self) -> None:
        """Count all that is left as evicted: the middleware is gone, and so are its windows."""
        for origin in self.listed():
            self._remove(origin)

    def sweep(self, now: float) -> None:
        """Empty the windows of quiet origins, and let the idle ones go, from the oldest use on."""
        self.counters.cleanups["periodic"] += 1
        if self.others is not None:
            self.others.sweep(now)
        for _ in range(min(_SWEEP_LENGTH, len(self.table))):
            origin = next(iter(self.table.values()))
            origin.sweep(now)
            if origin.in_flight:
                # In use, however long ago that began: out of the way of those behind it.
                self.touch(origin)
            elif len(origin.window) == 0:
                self._evict(origin, "idle")
            else:
                break

    def on_pressure(self, now: float) -> None:
        """Memory is short: cut all windows, drop texts and idle origins. One clean-up event."""
        self.counters.cleanups["memory"] += 1
        for origin in self.listed():
            origin.on_pressure(now)
            if not origin.in_flight and not len(origin.window) and not origin.is_shared:
                self._evict(origin, "memory")

    def on_relief(self, now: float) -> None:
        """Memory is no longer short: let the windows grow again."""
        for origin in self.listed():
            origin.on_relief(now)

    def _find_slowly(self, url: URL, way: str, brought: bool, named: bool = True) -> Origin:
        """An origin that is new, spelt in another way, or has the place of another scheme's."""
        scheme = sys.intern(url.scheme.lower())
        host = (url.raw_host or "").lower()
        default = _DEFAULT_PORTS.get(scheme)
        port = None if url.port == default else url.port
        place = (url.host_port_subcomponent or "").lower()
        if url.explicit_port is not None and port is None:
            place = place.removesuffix(f":{url.explicit_port}")
        if place == host:
            # One text instead of two for each origin.
            place = host
        if way:
            # No host has a space in it.
            place = f"{way} {place}"
        first = self.table.get(place)
        # No host has a slash in it.
        key = place if first is not None and first.scheme == scheme else f"{scheme}://{place}"
        known = self.table.get(key)
        if known is not None:
            if first is None:
                # The origin that had this place has gone.
                del self.table[key]
                known.key = place
                self.table[place] = known
            self.touch(known)
            return known
        if default is None or port is not None:
            default = port
        if is_too_long(host) or (brought and self._is_stranger(scheme, host, default)):
            if self.others is None:
                self.others = self._made(OTHER_NAME, "", "", None)
                self.others.window = _UnleasedWindow(self.others.window)
            return self.others
        # Made before another has to go for it: a policy that can't be made costs nobody a place.
        origin = self._made(key, scheme, host, default, named)
        # Room first: the table is never over its bound, not even for a moment.
        if not named and len(self._brought) >= max(1, self.config.max_origins // _SHARE_OF_BROUGHT):
            self._evict_one(self._idle(self._brought))
        if len(self.table) >= self.config.max_origins:
            self._evict_one(self._least_useful())
        if place not in self.table:
            # The eviction may have made this place free.
            origin.key = place
        if way:
            self.direct = _NO_ORIGINS
        self.table[origin.key] = self.newest = origin
        if named:
            self._unproven[origin] = None
        else:
            self._brought[origin] = None
            origin.prove()
        return origin

    def _is_stranger(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether the application has not named an origin in its settings either."""
        return self._config_of(_name(scheme, host, port)) is self.config

    def _made(
        self, key: str, scheme: str, host: str, port: int | None, named: bool = True
    ) -> Origin:
        name = _name(scheme, host, port)
        if key == OTHER_NAME:
            name = host = OTHER_NAME
        policy = self._make_policy(name)
        if not isinstance(policy, AdaptivePolicy):
            policy = UserPolicy(policy)
        config = self._config_of(name)
        window = Window(config.window_size, config.window_duration.total_seconds())
        counters = self.counters.of_label(_label(host, port), brought=not named)
        listeners = (counters, *self._listeners)
        origin = Origin(key, scheme, host, port, config, policy, window, counters, listeners)
        origin.named, origin.newcomers = named, self.newcomers
        if self.guard.pressure:
            origin.on_pressure(self.now())
        return origin

    def _least_useful(self) -> Origin:
        """Who has to go when the table is full: one that is idle and never succeeded, if there is.

        Then one that only redirects led to; then the least recently used one near that is well.
        What is down or in debt is worth remembering.
        """
        for group in (self._unproven, self._brought):
            if (found := self._idle(group)) is not None:
                return found
        now, needed = self.now(), min(1.0, self.config.budget_initial)
        oldest, idle = next(iter(self.table.values())), None
        for origin in islice(self.table.values(), _SWEEP_LENGTH):
            if not origin.in_flight:
                policy = origin.policy
                if (
                    policy.state(now) == "healthy"
                    and policy.tokens_at(now, origin.untold) >= needed
                ):
                    return origin
                idle = idle or origin
        return idle or oldest

    def _idle(self, group: dict[Origin, None]) -> Origin | None:
        """The one of a group that was used least recently of the first few without a call."""
        idle = (origin for origin in islice(group, _SWEEP_LENGTH) if not origin.in_flight)
        return min(idle, key=lambda origin: origin.window.newest, default=None)

    def _evict_one(self, origin: Origin | None) -> None:
        """Let an origin go as there are too many."""
        if origin is not None:
            self._evict(origin, "origin_limit")
            self.counters.cleanups["origin_limit"] += 1

    def _evict(self, origin: Origin, reason: str) -> None:
        """Let an origin go while its middleware lives on."""
        self.counters.origins_evicted[reason] += 1
        self._remove(origin)

    def _remove(self, origin: Origin) -> None:
        """Take an origin out of the table; what its window held counts as evicted."""
        # Another thread reads the totals first. In this order that thread may miss an origin for a
        # moment, and never counts one twice.
        if origin is self.others:
            self.others = None
        else:
            del self.table[origin.key]
        self._unproven.pop(origin, None)
        self._brought.pop(origin, None)
        if self.newest is origin:
            self.newest = None
        window, evicted = origin.window, self.counters.evicted
        evicted["capacity"] += window.evicted_capacity
        evicted["expired"] += window.evicted_expired
        evicted["memory"] += window.evicted_memory
        evicted["origin"] += len(window)
        origin.policy.catch_up(origin.untold)
        origin.counters.first_success += window.fast_total
        origin.ended += window.fast_total
        # A call still in flight will record in the new window: recorded and evicted at once. The
        # call may hold the old window, which must not look as if something could be written there.
        window.lease_end = 0
        origin.window = _EvictedWindow(evicted)
        origin.caught_up = origin.swept = 0


class _UnleasedWindow(Window):
    """A window of which every success is told."""

    __slots__ = ()

    def __init__(self, window: Window) -> None:
        super().__init__(window.size, window.duration)

    def renew_lease(self, end: int, until: float) -> None:
        """Never: who succeeds gets a place of its own."""


class _EvictedWindow(Window):
    """The window of an origin that is no longer in the table: holds nothing, counts all."""

    __slots__ = ("_evicted",)

    def __init__(self, evicted: dict[str, int]) -> None:
        super().__init__(1, math.inf)
        self._evicted = evicted

    def append(self, now: float, code: int) -> None:
        """Count an attempt as evicted with its origin."""
        self._evicted["origin"] += 1

    def renew_lease(self, end: int, until: float) -> None:
        """Never: a success would be written down."""
