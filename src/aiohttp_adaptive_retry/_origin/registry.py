"""The origins in use: a table with a hard bound, each origin with its window, policy and counts."""

from __future__ import annotations

import math
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Final

from yarl import URL

from .._policy.adaptive import AdaptivePolicy
from .._policy.asking import reconfigure
from .._policy.protocol import Policy, State
from ..config import AdaptiveConfig
from ..events import Listener
from .counters import OTHER_LABEL, Counters, ErrorCatalogue, Faults, LabelCounters
from .memory import MemoryGuard
from .waiting import WaitingCalls
from .window import Window

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# What one sweep looks at, at most; the next one goes on where it stopped.
_SWEEP_LENGTH: Final = 64
# Texts are the only thing recorded that is not a small number, so they are few.
_MOST_TEXTS: Final = 100


class UserPolicy:
    """A user's own policy, with what an origin's policy has beside the Protocol."""

    __slots__ = ("arrive", "cancel", "outcome", "wake")

    quiet_until: Final = -math.inf
    is_troubled: Final = True
    parked_calls: Final = 0
    capacity: Final = 0.0

    def __init__(self, policy: Policy) -> None:
        self.arrive, self.outcome = policy.arrive, policy.outcome
        self.wake, self.cancel = policy.wake, policy.cancel

    def catch_up(self, successes: int) -> None:
        """Since it is never quiet, no success is only written down."""

    def succeeded(self, now: float, latency: float) -> None:
        """It is told of outcomes."""

    def state(self, now: float) -> State:
        """What it knows is its own affair."""
        return "healthy"

    def tokens_at(self, now: float, successes: int) -> float:
        """It has no budget that is known here."""
        return 0.0


@dataclass(slots=True, eq=False)
class Mood:
    """What was told of an origin's state, while that is or lately was more than healthy."""

    state: State
    since: float
    #: When the log's newest line about it was written, and whether that said "down".
    line_at: float = -math.inf
    line_is_down: bool = False


@dataclass(slots=True, eq=False)
class Origin:
    """A scheme, host and port, and what is kept of it."""

    key: str
    scheme: str
    host: str
    port: int | None
    config: AdaptiveConfig
    policy: AdaptivePolicy | UserPolicy
    window: Window
    counters: LabelCounters
    #: Told of its calls; the counters are the first of them.
    listeners: tuple[Listener, ...]
    #: Calls that began, and calls whose end was told: not those that ended on the fast path.
    begun: int = 0
    ended: int = 0
    #: The policy's cursor on `window.fast_total`, and the sweeper's on `window.end`.
    caught_up: int = 0
    swept: int = 0
    #: Texts of errors, if they are recorded: (number of the attempt, text), newest last.
    texts: deque[tuple[int, str]] | None = None
    #: Calls that got no further attempt, by reason; None while there are none.
    suppressed: dict[str, int] | None = None
    #: What was told of its state; None while there is nothing to tell.
    mood: Mood | None = None
    #: When the configuration was changed last, and what it was for calls from before.
    changed_at: float = -math.inf
    former: AdaptiveConfig | None = None

    @property
    def name(self) -> str:
        """The origin as "scheme://host:port"; without what it has not got."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended. The loop's thread."""
        return self.begun - self.ended - self.window.fast_total

    @property
    def untold(self) -> int:
        """Successes of the fast path that the policy has not been told of. Any thread."""
        return max(0, self.window.fast_total - self.caught_up)

    def retry_in(self, now: float) -> float | None:
        """Seconds until a first attempt may be sent again, where the policy knows."""
        # Only a policy that keeps first attempts back has an answer.
        ask: Callable[[float], float | None] | None = getattr(self.policy, "retry_in", None)
        return None if ask is None else ask(now)

    def note_text(self, text: str) -> None:
        """Keep the text of the newest attempt's error."""
        if self.texts is None:
            # Not before the first: an empty deque takes more than all the rest of an origin.
            self.texts = deque(maxlen=_MOST_TEXTS)
        self.texts.append((self.window.end - 1, text))

    def reconfigure(self, config: AdaptiveConfig, now: float, pressure: bool) -> None:
        """Go by another configuration; window and policy keep what they have."""
        former, self.config = self.config, config
        self.former, self.changed_at = former, now
        reconfigure(self.policy, config)
        if config.window_duration != former.window_duration:
            self.window.set_duration(config.window_duration.total_seconds())
        if pressure:
            self.on_pressure(now)
        elif config.window_size != self.window.size:
            self.window.set_limit(config.window_size, now)
        # The fast path comes by, and finds what is due.
        self.window.lease_end = 0

    # What a `Sweeper` asks for.

    def sweep(self, now: float) -> None:
        """Drop what has expired, and the arrays it stood in."""
        self.window.expire(now)
        self.window.compact()
        while self.texts and self.texts[0][0] < self.window.start:
            self.texts.popleft()

    def on_pressure(self, now: float) -> None:
        """Keep the newest attempts only, and no texts."""
        self.texts = None
        config = self.config
        self.window.set_limit(min(config.window_size, config.pressure_window_size), now)

    def on_relief(self, now: float) -> None:
        """Let the window grow again."""
        self.window.set_limit(self.config.window_size, now)


_NO_ORIGINS: Final[Mapping[str | None, Origin]] = MappingProxyType({})


class Registry:
    """The origins in use, at most `max_origins`; the least recently used one is the first to go.

    `find` is O(1). Memory is bounded by `max_origins` windows. One loop; any thread may call
    `listed` and read `counters`, `catalogue` and `guard`.

    `clock` never raises. `config_of` says which configuration an origin has, by its name; without
    it all have `config`. `make_policy` makes the policy of a new origin, from its name
    "scheme://host:port". `listeners` are told of each origin's calls, after the counters.
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

    def __len__(self) -> int:
        return len(self.table)

    def find(self, url: URL, way: str = "") -> Origin:
        """The origin of a URL, made if need be; it is then the most recently used one.

        `way` tells what leads there, if that is not the network itself. Of two ways to one place
        each is an origin, with one and the same name and label.
        """
        if way:
            self.direct = _NO_ORIGINS
            return self._find_slowly(url, f"{way} ")
        origin = self.table.get(url.host_port_subcomponent)
        if origin is None or origin.scheme != url.scheme:
            return self._find_slowly(url)
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
                return list(self.table.values())
            except RuntimeError:  # pragma: no cover
                continue

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
            self._evict(self._least_recent(), "origin_limit")

    def reset_after_fork(self) -> None:
        """Know no origin and have counted nothing: in a forked child no call runs."""
        self.table.clear()
        self.direct, self.newest = self.table, None
        self.waiting.reset()
        self.counters.reset()
        self.counters.faults.count = 0

    def retire(self) -> None:
        """Count all that is left as evicted: the middleware is gone, and so are its windows."""
        for origin in self.listed():
            self._remove(origin)

    def sweep(self, now: float) -> None:
        """Empty the windows of quiet origins, and let the idle ones go, from the oldest use on."""
        self.counters.cleanups["periodic"] += 1
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
            if not origin.in_flight and not len(origin.window):
                self._evict(origin, "memory")

    def on_relief(self, now: float) -> None:
        """Memory is no longer short: let the windows grow again."""
        for origin in self.listed():
            origin.on_relief(now)

    def _find_slowly(self, url: URL, way: str = "") -> Origin:
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
            place = way + place
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
        # Made before another has to go for it: a policy that can't be made costs nobody a place.
        origin = self._made(key, scheme, host, default if port is None else port)
        # Room first: the table is never over its bound, not even for a moment.
        if len(self.table) >= self.config.max_origins:
            self._evict(self._least_recent(), "origin_limit")
            self.counters.cleanups["origin_limit"] += 1
        if place not in self.table:
            # The eviction may have made this place free.
            origin.key = place
        self.table[origin.key] = self.newest = origin
        return origin

    def _made(self, key: str, scheme: str, host: str, port: int | None) -> Origin:
        name = f"{scheme}://{host}" if port is None else f"{scheme}://{host}:{port}"
        policy = self._make_policy(name)
        if not isinstance(policy, AdaptivePolicy):
            policy = UserPolicy(policy)
        config = self._config_of(name)
        window = Window(config.window_size, config.window_duration.total_seconds())
        counters = self.counters.of_label((host, port) if host else OTHER_LABEL)
        listeners = (counters, *self._listeners)
        origin = Origin(key, scheme, host, port, config, policy, window, counters, listeners)
        if self.guard.pressure:
            origin.on_pressure(self.now())
        return origin

    def _least_recent(self) -> Origin:
        """The least recently used origin, one without a call in flight if such is near."""
        oldest = next(iter(self.table.values()))
        candidates = islice(self.table.values(), _SWEEP_LENGTH)
        return next((origin for origin in candidates if not origin.in_flight), oldest)

    def _evict(self, origin: Origin, reason: str) -> None:
        """Let an origin go while its middleware lives on."""
        self.counters.origins_evicted[reason] += 1
        self._remove(origin)

    def _remove(self, origin: Origin) -> None:
        """Take an origin out of the table; what its window held counts as evicted."""
        # Another thread reads the totals first. In this order that thread may miss an origin for a
        # moment, and never counts one twice.
        del self.table[origin.key]
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
