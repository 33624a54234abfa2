"""Reading the numbers of one middleware: sums by label, and the snapshot.

These functions run on the exporter's thread beside the loop. They read integers, and copies that
are made in one step of the interpreter, and change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import cast

from .health import STATES
from .ledger import OUTCOMES, Label, Ledger
from .origins import Origin, Origins
from .snapshot import Counts, MemorySnapshot, OriginSnapshot, RequestCounts, Snapshot
from .window import BYTES_PER_ATTEMPT

__all__ = (
    "Key",
    "Sums",
    "attempts",
    "cleanups",
    "evicted",
    "failures",
    "faults",
    "origins_evicted",
    "requests",
    "single",
    "states",
    "summed",
    "suppressed",
    "take_snapshot",
    "windows_limit",
)

# What is summed: the label, or None for metrics that have none, and the value of the one attribute
# beside it ("" for none).
Key = tuple[Label | None, str]
Sums = Counter[Key]


def requests(origins: Origins) -> Sums:
    return Counter(
        {
            (tally.label, outcome): getattr(tally, outcome)
            for tally in origins.ledger.tallies
            for outcome in OUTCOMES
        }
    )


def attempts(origins: Origins) -> Sums:
    sums: Sums = Counter()
    for tally in origins.ledger.tallies:
        sums[tally.label, "original"] = tally.originals
        sums[tally.label, "retry"] = tally.retries
    return sums


def failures(origins: Origins) -> Sums:
    ledger = origins.ledger
    sums: Sums = Counter()
    for tally in ledger.tallies:
        for code, count in tuple(tally.failures.items()):
            sums[tally.label, ledger.catalogue.name(code)] += count
    return sums


def suppressed(origins: Origins) -> Sums:
    return Counter(
        {
            (tally.label, reason): count
            for tally in origins.ledger.tallies
            for reason, count in tuple(tally.suppressed.items())
        }
    )


def states(origins: Origins) -> Sums:
    """How many of a label's origins are in each state; zeros are told too, so that a series ends
    in a zero and not in a gap."""
    now = origins.now()
    sums: dict[Key, int] = {}
    for origin in origins.listed():
        label = origin.label
        if (label, STATES[0]) not in sums:
            sums.update({(label, state): 0 for state in STATES})
        sums[label, origin.strategy.health.state(now)] += 1
    return cast(Sums, sums)


def evicted(origins: Origins) -> Sums:
    now = origins.now()
    # The ledger before the windows: what moves meanwhile is then missed, never counted twice.
    sums: Sums = Counter(
        {(None, reason): count for reason, count in origins.ledger.evicted.items()}
    )
    for origin in origins.listed():
        # With what has expired and is not removed yet: it is in no length any more.
        capacity, expired, memory = origin.strategy.window.evicted_at(now)
        sums[None, "capacity"] += capacity
        sums[None, "expired"] += expired
        sums[None, "memory"] += memory
    return sums


def cleanups(origins: Origins) -> Sums:
    return Counter({(None, reason): count for reason, count in origins.ledger.cleanups.items()})


def origins_evicted(origins: Origins) -> Sums:
    counts = origins.ledger.origins_evicted
    return Counter({(None, reason): count for reason, count in counts.items()})


def faults(origins: Origins) -> Sums:
    count = origins.ledger.faults.count
    return Counter({(None, ""): count} if count else {})


def summed(read: Callable[[Origin, float], float]) -> Callable[[Origins], Sums]:
    """A level that each origin has, summed by label."""

    def sums(origins: Origins) -> Sums:
        now = origins.now()
        totals: dict[Key, float] = {}
        for origin in origins.listed():
            key = (origin.label, "")
            totals[key] = totals.get(key, 0) + read(origin, now)
        return cast(Sums, totals)

    return sums


def single(read: Callable[[Origins], float]) -> Callable[[Origins], Sums]:
    """A level that a middleware has once."""
    return lambda origins: cast(Sums, {(None, ""): read(origins)})


def windows_limit(origins: Origins) -> int:
    config = origins.config
    return config.max_origins * config.window_size * BYTES_PER_ATTEMPT


def take_snapshot(origins: Origins) -> Snapshot:
    """The numbers of one middleware as values. O(origins); the loop's thread."""
    ledger = origins.ledger
    now = origins.now()
    sent, ended = _by_value(attempts(origins)), _by_value(requests(origins))
    states = tuple(_origin_snapshot(origin, ledger, now) for origin in origins.listed())
    return Snapshot(
        requests=RequestCounts(**{outcome: ended.get(outcome, 0) for outcome in OUTCOMES}),
        attempts=Counts({kind: sent.get(kind, 0) for kind in ("original", "retry")}),
        failures=Counts(_by_value(failures(origins))),
        suppressed=Counts(_by_value(suppressed(origins))),
        evicted=Counts(_by_value(evicted(origins))),
        cleanups=Counts(dict(ledger.cleanups)),
        origins_evicted=Counts(dict(ledger.origins_evicted)),
        faults=ledger.faults.count,
        memory=MemorySnapshot(
            usage=origins.guard.usage,
            threshold=origins.guard.threshold,
            pressure=origins.guard.pressure,
            windows=sum(origin.strategy.window.memory for origin in origins.listed()),
            windows_limit=windows_limit(origins),
        ),
        origins=states,
    )


def _by_value(sums: Sums) -> dict[str, int]:
    totals: Counter[str] = Counter()
    for (_, value), count in sums.items():
        totals[value] += count
    return dict(totals)


def _origin_snapshot(origin: Origin, ledger: Ledger, now: float) -> OriginSnapshot:
    strategy = origin.strategy
    window = strategy.window
    return OriginSnapshot(
        scheme=origin.scheme,
        host=origin.host,
        port=origin.port,
        state=strategy.health.state(now),
        in_flight=origin.in_flight,
        held=strategy.health.held,
        window_length=window.length_at(now),
        success_rate=strategy.success_rate,
        errors=Counts(
            {ledger.catalogue.name(code): count for code, count in window.errors_at(now).items()}
        ),
        budget_available=strategy.budget.balance(now),
        budget_limit=strategy.budget.capacity,
    )
