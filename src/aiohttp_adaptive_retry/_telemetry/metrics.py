"""The table of metrics, and how the numbers of one middleware are read: as sums by label.

These functions run on the exporter's thread beside the loop. They change nothing, and read only
integers and copies that are made in one step of the interpreter.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import add, attrgetter
from typing import Final, NamedTuple, cast

from .._origin.counters import labelled
from .._origin.registry import Registry
from .._origin.window import BYTES_PER_ATTEMPT
from .._policy.protocol import STATES, State
from ..events import RESULTS, Label

_REASON: Final = "adaptive_retry.reason"
_STATE: Final = "adaptive_retry.state"
_OUTCOME: Final = "adaptive_retry.outcome"
_ATTEMPT_TYPE: Final = "adaptive_retry.attempt.type"
# The label, None for metrics without one, and the value of the attribute beside it, "" for none.
Key = tuple[Label | None, str]
Sums = Counter[Key]
# As `Window.evicted_at` has them.
_REASONS: Final = ("capacity", "expired", "memory")


def requests(registry: Registry) -> Sums:
    """Calls that ended, by result."""
    sums: Sums = Counter()
    for counters in registry.counters.labels:
        for result in RESULTS:
            sums[counters.label, result] = getattr(counters, result)
    return _with_fast_path(sums, registry, "first_success")


def attempts(registry: Registry) -> Sums:
    """Attempts sent, by type."""
    sums: Sums = Counter()
    for counters in registry.counters.labels:
        sums[counters.label, "original"] = counters.originals
        sums[counters.label, "retry"] = counters.retries
    return _with_fast_path(sums, registry, "original")


def _with_fast_path(sums: Sums, registry: Registry, value: str) -> Sums:
    """Add the successes that windows alone have recorded; to be called after reading the counters.

    A success that an eviction moves to the counters meanwhile is then missed, never counted twice.
    """
    for origin in registry.listed():
        sums[origin.counters.label, value] += origin.window.fast_total
    return sums


def failures(registry: Registry) -> Sums:
    """Attempts that failed, by the name of the error."""
    sums: Sums = Counter()
    for counters in registry.counters.labels:
        for name, count in tuple(counters.failures.items()):
            sums[counters.label, name] += count
    return sums


def suppressed(registry: Registry) -> Sums:
    """Retries not made, by reason."""
    sums: Sums = Counter()
    for counters in registry.counters.labels:
        for reason, count in tuple(counters.suppressed.items()):
            sums[counters.label, reason] = count
    return sums


def evicted(registry: Registry) -> Sums:
    """Attempts dropped from windows, by reason."""
    now = registry.now()
    # The counters before the windows: what moves meanwhile is then missed, never counted twice.
    sums = by_reason("evicted")(registry)
    for origin in registry.listed():
        # What has expired and is not removed yet is among these: no length shows it any more.
        for reason, count in zip(_REASONS, origin.window.evicted_at(now), strict=True):
            sums[None, reason] += count
    return sums


def by_reason(name: str) -> Callable[[Registry], Sums]:
    """A field of `Counters` that has no labels."""
    read = attrgetter(f"counters.{name}")
    return lambda registry: Counter(
        {(None, reason): count for reason, count in read(registry).items()}
    )


def faults(registry: Registry) -> Sums:
    """Errors of our own bookkeeping; nothing while there are none."""
    count = registry.counters.faults.count
    return Counter({(None, ""): count} if count else {})


def bypassed(registry: Registry) -> Sums:
    """Requests that left us out; nothing while there are none."""
    count = registry.counters.bypassed
    return Counter({(None, ""): count} if count else {})


@dataclass(slots=True)
class Levels:
    """What the origins of one label have at a moment, added up."""

    budget: float = 0.0
    budget_limit: float = 0.0
    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    parked: int = 0
    length: int = 0
    limit: int = 0
    memory: int = 0


def levels(registry: Registry) -> dict[Label, Levels]:
    """All levels that each origin has, summed by label, in one pass over the origins."""
    now, limit = registry.now(), registry.config.window_size
    sums: dict[Label, Levels] = defaultdict(Levels)
    for origin in registry.listed():
        level, policy, window = sums[origin.counters.label], origin.policy, origin.window
        level.budget += policy.tokens_at(now, origin.untold)
        level.budget_limit += policy.capacity
        level.states[policy.state(now)] += 1
        level.parked += policy.parked_calls
        level.length += window.length_at(now)
        level.limit += limit
        level.memory += window.memory
    return sums


def by_label(name: str) -> Callable[[dict[Label, Levels]], Sums]:
    """A level of each label, by its field's name."""
    read = attrgetter(name)
    return lambda sums: cast(Sums, {(label, ""): read(level) for label, level in sums.items()})


def by_state(sums: dict[Label, Levels]) -> Sums:
    """Origins in each state; also in states that none is in, so that a series ends in a zero."""
    pairs = ((label, level.states.items()) for label, level in sums.items())
    found = {(label, state): count for label, states in pairs for state, count in states}
    return cast(Sums, found)


def single(read: Callable[[Registry], float]) -> Callable[[Registry], Sums]:
    """A level that a middleware has once."""
    return lambda registry: cast(Sums, {(None, ""): read(registry)})


def windows_limit(registry: Registry) -> int:
    """Bytes that all windows can ever hold."""
    config = registry.config
    return config.max_origins * config.window_size * BYTES_PER_ATTEMPT


class Metric(NamedTuple):
    """One row of the table: what a metric is, and how a middleware's numbers are read."""

    unit: str
    description: str
    #: Reads a middleware's numbers; None for a level that every origin has.
    read: Callable[[Registry], Sums] | None
    #: The attribute beside the label's.
    attribute: str = ""
    #: For such a level: reads what one pass over the origins has found.
    of_levels: Callable[[dict[Label, Levels]], Sums] = by_state
    is_gauge: bool = False
    #: How the levels of several middlewares come to one.
    merge: Callable[[float, float], float] = add

    def attributes(self, key: Key) -> dict[str, str | int]:
        label, value = key
        attributes = {} if label is None else labelled(label)
        if self.attribute:
            attributes[self.attribute] = value
        return attributes


def _of_origins(unit: str, description: str, name: str) -> Metric:
    return Metric(unit, description, None, of_levels=by_label(name))


COUNTERS: Final[dict[str, Metric]] = {
    "requests": Metric("{request}", "Calls that ended, by outcome.", requests, _OUTCOME),
    "attempts": Metric("{attempt}", "Attempts sent.", attempts, _ATTEMPT_TYPE),
    "failures": Metric("{attempt}", "Attempts that failed.", failures, "error.type"),
    "retries.suppressed": Metric("{retry}", "Retries not made.", suppressed, _REASON),
    "window.evicted": Metric("{attempt}", "Attempts dropped from windows.", evicted, _REASON),
    "cleanups": Metric(
        "{cleanup}", "Clean-ups of windows and origins.", by_reason("cleanups"), _REASON
    ),
    "origins.evicted": Metric(
        "{origin}", "Origins dropped.", by_reason("origins_evicted"), _REASON
    ),
    "bypassed": Metric(
        "{request}", "Requests whose own middlewares left ours out, as far as seen.", bypassed
    ),
    "faults": Metric("{fault}", "Errors of our own bookkeeping.", faults),
}

LEVELS: Final[dict[str, Metric]] = {
    "budget.available": _of_origins("{token}", "Retries that could be paid for now.", "budget"),
    "budget.limit": _of_origins("{token}", "Retries that can be saved up.", "budget_limit"),
    "origin.state": Metric(
        "{origin}", "Origins in each state: healthy, congested, limited or down.", None, _STATE
    ),
    "calls.held": _of_origins(
        "{request}",
        "Calls that wait for their origin to come back.",
        "parked",
    ),
    "window.length": _of_origins("{attempt}", "Attempts in the windows.", "length"),
    "window.limit": _of_origins("{attempt}", "Attempts that the windows can hold.", "limit"),
    "window.memory.usage": _of_origins("By", "Memory held by the windows.", "memory"),
    "window.memory.limit": Metric(
        "By", "Memory that all windows can ever hold.", single(windows_limit)
    ),
    "memory.usage": Metric(
        "By",
        "Resident memory of the process as last sampled.",
        single(attrgetter("guard.usage")),
        is_gauge=True,
        merge=max,
    ),
    "memory.threshold": Metric(
        "By",
        "Resident memory at which windows are cut.",
        single(attrgetter("guard.threshold")),
        is_gauge=True,
        merge=min,
    ),
    "memory.pressure": Metric(
        "{process}",
        "Whether memory is short, 0 or 1.",
        single(lambda registry: int(registry.guard.pressure)),
        merge=max,
    ),
    "origins.active": Metric("{origin}", "Origins in the table.", single(len)),
    "origins.limit": Metric(
        "{origin}", "Origins that the table can hold.", single(attrgetter("config.max_origins"))
    ),
}
