"""What `AdaptiveRetryMiddleware.snapshot()` gives: plain frozen values, nothing secret in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from .health import State

__all__ = ("Counts", "MemorySnapshot", "OriginSnapshot", "RequestCounts", "Snapshot")


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
        return (
            self.first_success
            + self.retry_success
            + self.failed_without_retry
            + self.failed_after_retry
            + self.refused
            + self.ignored
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginSnapshot:
    """What is known of one origin at this moment.

    `state` is healthy, congested, limited or down; `held` is how many of the calls in flight wait
    for the origin to come back, or for a retry that it asked to come later.
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

    `attempts` has the keys original and retry; `failures` is by error type, `suppressed` by the
    reason why a retry was not made, `evicted` (attempts), `cleanups` and `origins_evicted` by
    their reasons. `faults` counts errors of our own bookkeeping; each is a bug worth a report.
    """

    requests: RequestCounts
    attempts: Counts
    failures: Counts
    suppressed: Counts
    evicted: Counts
    cleanups: Counts
    origins_evicted: Counts
    faults: int
    memory: MemorySnapshot
    origins: tuple[OriginSnapshot, ...]
