"""What `AdaptiveRetryMiddleware.snapshot()` gives: plain frozen values, nothing secret in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass

from .._origin.origin import Origin
from .._origin.registry import Registry
from .._policy.protocol import State
from ..events import RESULTS
from . import metrics


class Counts(Mapping[str, int]):
    """Numbers by name: a dict that nobody can change, hashable, shown as a dict is."""

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = dict(counts)

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __hash__(self) -> int:
        return hash(frozenset(self._counts.items()))

    def __repr__(self) -> str:
        return repr(self._counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCounts:
    """Calls by what the caller got."""

    first_success: int = 0
    retry_success: int = 0
    failed_without_retry: int = 0
    failed_after_retry: int = 0
    refused: int = 0
    ignored: int = 0

    @property
    def total(self) -> int:
        """All calls that have ended."""
        return sum(astuple(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSnapshot:
    """What is known of one origin at this moment.

    `state` is healthy, congested, limited or down; `held` is how many of the calls in flight wait
    for the origin to come back. `state` is not healthy while calls are held. `suppressed` has the
    calls that got no further attempt, by reason. `error_messages` has the newest hundred texts,
    oldest first, if `record_error_messages` is set. Both begin anew when the origin was evicted.
    """

    scheme: str
    host: str
    port: int | None
    state: State
    in_flight: int
    held: int
    window_length: int
    success_rate: float
    errors: Counts
    budget_available: float
    budget_limit: float
    suppressed: Counts
    error_messages: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySnapshot:
    """Bytes: the process as last sampled, where pressure begins, and the windows' arrays."""

    usage: int
    threshold: int
    pressure: bool
    windows: int
    windows_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Totals since the middleware was made, and the origins in use, least recently used first.

    `attempts` has the keys original and retry; `failures` is by error type; `suppressed` (retries
    not made), `evicted` (attempts), `cleanups` and `origins_evicted` are by reason. `faults` counts
    errors of our own bookkeeping; each is a bug worth a report. `bypassed` counts requests whose
    own `middlewares=` left ours out, where `attach` or `instrument` is in use.
    """

    requests: RequestCounts
    attempts: Counts
    failures: Counts
    suppressed: Counts
    evicted: Counts
    cleanups: Counts
    origins_evicted: Counts
    faults: int
    bypassed: int
    memory: MemorySnapshot
    origins: tuple[OriginSnapshot, ...]


def take_snapshot(registry: Registry) -> Snapshot:
    """The numbers of one middleware as values. O(origins); the loop's thread."""
    counters, guard, now = registry.counters, registry.guard, registry.now()
    sent, ended = _by_value(metrics.attempts(registry)), _by_value(metrics.requests(registry))
    states = tuple(_origin_snapshot(origin, registry, now) for origin in registry.listed())
    return Snapshot(
        requests=RequestCounts(**{result: ended[result] for result in RESULTS}),
        attempts=Counts({kind: sent[kind] for kind in ("original", "retry")}),
        failures=Counts(_by_value(metrics.failures(registry))),
        suppressed=Counts(_by_value(metrics.suppressed(registry))),
        evicted=Counts(_by_value(metrics.evicted(registry))),
        cleanups=Counts(dict(counters.cleanups)),
        origins_evicted=Counts(dict(counters.origins_evicted)),
        faults=counters.faults.count,
        bypassed=counters.bypassed,
        memory=MemorySnapshot(
            usage=guard.usage,
            threshold=guard.threshold,
            pressure=guard.pressure,
            windows=sum(origin.window.memory for origin in registry.listed()),
            windows_limit=metrics.windows_limit(registry),
        ),
        origins=states,
    )


def _by_value(sums: metrics.Sums) -> Counter[str]:
    totals: Counter[str] = Counter()
    for (_, value), count in sums.items():
        totals[value] += count
    return totals


def _origin_snapshot(origin: Origin, registry: Registry, now: float) -> OriginSnapshot:
    policy, window, name = origin.policy, origin.window, registry.catalogue.name
    first = window.start_at(now)
    return OriginSnapshot(
        scheme=origin.scheme,
        host=origin.host,
        port=origin.port,
        state=policy.state(now),
        in_flight=origin.in_flight,
        held=policy.parked_calls,
        window_length=window.length_at(now),
        success_rate=window.success_rate_at(now),
        errors=Counts({name(code): count for code, count in window.errors_at(now).items()}),
        budget_available=policy.tokens_at(now, origin.untold),
        budget_limit=policy.capacity,
        suppressed=Counts(origin.suppressed or {}),
        error_messages=tuple(text for at, text in origin.texts or () if at >= first),
    )
