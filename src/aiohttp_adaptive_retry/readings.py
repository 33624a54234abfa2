"""Reading the numbers of one middleware: sums by label, and the snapshot.

These functions run on the exporter's thread beside the loop. They read integers, and copies that
are made in one step of the interpreter, and change nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import cast

from .health import STATES, State
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
    "levels",
    "origins_evicted",
    "requests",
    "single",
    "suppressed",
    "take_snapshot",
    "windows_limit",
)

# What is summed: the label, or None for metrics that have none, and the value of the one attribute
# beside it ("" for none).
Key = tuple[Label | None, str]
Sums = Counter[Key]


def requests(origins: Origins) -> Sums:
    sums: Sums = Counter(
        {
            (tally.label, outcome): getattr(tally, outcome)
            for tally in origins.ledger.tallies
            for outcome in OUTCOMES
        }
    )
    return _with_written(sums, origins, "first_success")


def _with_written(sums: Sums, origins: Origins, value: str) -> Sums:
    """With the successes that the origins' windows count. To be called when the tallies have been
    read: what is handed over meanwhile is then missed, never counted twice."""
    for origin in origins.listed():
        sums[origin.tally.label, value] += origin.strategy.written
    return sums


def attempts(origins: Origins) -> Sums:
    sums: Sums = Counter()
    for tally in origins.ledger.tallies:
        sums[tally.label, "original"] = tally.originals
        sums[tally.label, "retry"] = tally.retries
    return _with_written(sums, origins, "original")


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


def evicted(origins: Origins) -> Sums:
    now = origins.now()
    # The ledger before the windows: what moves meanwhile is then missed, never counted twice.
    sums: Sums = Counter(
        {(None, reason): count for reason, count in origins.ledger.evicted.items()}
    )
    capacity = expired = memory = 0
    for origin in origins.listed():
        # With what has expired and is not removed yet: it is in no length any more.
        counts = origin.strategy.window.evicted_at(now)
        capacity += counts[0]
        expired += counts[1]
        memory += counts[2]
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


def levels(origins: Origins) -> dict[str, Sums]:
    """All levels that each origin has, summed by label, in one pass over the origins.

    A pass costs what it costs because it visits each origin; what it reads there costs little.
    States that no origin is in are told too, so that a series ends in a zero and not in a gap.
    """
    now = origins.now()
    sums: dict[Label, _Levels] = {}
    for origin in origins.listed():
        label = origin.tally.label
        level = sums.get(label)
        if level is None:
            level = sums[label] = _Levels()
        strategy = origin.strategy
        health, window = strategy.health, strategy.window
        level.budget += strategy.tokens_at(now)
        level.budget_limit += strategy.budget.capacity
        level.states[health.state(now)] += 1
        level.held += health.held
        level.length += window.length_at(now)
        level.limit += strategy.config.window_size
        level.memory += window.memory
    return {
        "budget.available": _by_label(sums, lambda level: level.budget),
        "budget.limit": _by_label(sums, lambda level: level.budget_limit),
        "origin.state": cast(
            Sums,
            {
                (label, state): count
                for label, level in sums.items()
                for state, count in level.states.items()
            },
        ),
        "calls.held": _by_label(sums, lambda level: level.held),
        "window.length": _by_label(sums, lambda level: level.length),
        "window.limit": _by_label(sums, lambda level: level.limit),
        "window.memory.usage": _by_label(sums, lambda level: level.memory),
    }


class _Levels:
    """The sums of one label."""

    __slots__ = ("budget", "budget_limit", "held", "length", "limit", "memory", "states")

    def __init__(self) -> None:
        self.budget = 0.0
        self.budget_limit = 0.0
        self.states: dict[State, int] = dict.fromkeys(STATES, 0)
        self.held = 0
        self.length = 0
        self.limit = 0
        self.memory = 0


def _by_label(sums: dict[Label, _Levels], read: Callable[[_Levels], float]) -> Sums:
    return cast(Sums, {(label, ""): read(level) for label, level in sums.items()})


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
        budget_available=strategy.tokens_at(now),
        budget_limit=strategy.budget.capacity,
    )
