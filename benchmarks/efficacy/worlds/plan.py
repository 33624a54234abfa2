"""What is fixed before a run begins: calls, sites and what will befall them.

All times are seconds from the run's start, all rates are per second.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

LoopKind = Literal["open", "closed"]
LOOPS: tuple[LoopKind, ...] = ("open", "closed")

REFUSED = "ClientConnectorError"
DROPPED = "ServerDisconnectedError"
RESET = "ClientOSError"
TIMEOUT = "ServerTimeoutError"


class Speed:
    """How fast a server works over time: piecewise constant, 0 for a pause.

    >>> speed = Speed([(10.0, 0.0), (12.0, 0.5)])
    >>> speed.end(9.0, 2.0)  # one second of work before the pause, two half speed seconds after it
    14.0
    """

    __slots__ = ("_done", "_times", "_values")

    def __init__(self, changes: Iterable[tuple[float, float]]) -> None:
        self._times, self._values, self._done = [0.0], [1.0], [0.0]
        for time, value in changes:
            if time < self._times[-1]:
                raise ValueError(f"changes must be in order of time, got {time}")
            self._done.append(self._done[-1] + (time - self._times[-1]) * self._values[-1])
            self._times.append(time)
            self._values.append(value)
        if not self._values[-1] > 0.0:
            raise ValueError("a server must not stop for ever")

    def end(self, start: float, work: float) -> float:
        """Return when ``work`` seconds of work at speed 1 that begin at ``start`` are done."""
        index = bisect_right(self._times, start) - 1
        goal = self._done[index] + (start - self._times[index]) * self._values[index] + work
        index = max(index, bisect_right(self._done, goal) - 1)
        while not self._values[index] > 0.0:
            index += 1
        return self._times[index] + (goal - self._done[index]) / self._values[index]


@dataclass(frozen=True, slots=True)
class Outage:
    """A server is of no use from ``start`` to ``end``.

    ``refused``: the process is gone, work in hand is lost. ``silent``: nothing arrives and no
    answer comes back. ``503``: a gateway answers for it, perhaps with a Retry-After, and work in
    hand is lost too.
    """

    start: float
    end: float
    mode: Literal["refused", "silent", "503"]
    says: float | None = None


@dataclass(frozen=True, slots=True)
class Errors:
    """From ``start`` to ``end`` an attempt fails with this chance, by one of ``kinds``."""

    start: float
    end: float
    chance: float
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``rate`` requests a second from ``start`` to ``end``; the rest gets a 429.

    ``span``: a window's length for ``window``, the bucket's depth in seconds of the rate for
    ``bucket``. ``says`` is what Retry-After tells: when there is room again exactly, the same
    rounded up to whole seconds, nothing, or the number ``absurd``. ``punish``: each request above
    the limit bans for so many seconds from then on at least, and one during a ban does the same.
    """

    shared: bool
    kind: Literal["window", "bucket"]
    rate: float
    span: float
    says: Literal["exact", "rounded", "absent", "absurd"]
    absurd: float
    punish: float
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """Every ``period`` s workers are added or removed, so that they are busy by ``goal``.

    New workers begin ``boot`` s later.
    """

    period: float
    goal: float
    boot: float
    most: int


@dataclass(slots=True)
class SitePlan:
    """One origin: its servers and their troubles."""

    servers: int
    workers: int  # per server
    queue: int  # places per server, beside those being worked at
    service: float  # mean, s, at speed 1
    sigma: float  # of the lognormal's logarithm; 0: exponential
    latency: float  # one way, s
    forgets: bool  # work is not begun whose client has gone
    sticky: bool = False  # a client always meets the same server
    full: str = "503"  # what is said when the queue is full
    speeds: list[Speed | None] = field(default_factory=list)  # per server
    outages: list[list[Outage]] = field(default_factory=list)  # per server, in order
    errors: list[list[Errors]] = field(default_factory=list)  # per server
    limit: Limit | None = None
    scaling: Scaling | None = None
    hopeless: str = "500"  # what hopeless requests get
    stale: list[tuple[float, int]] = field(default_factory=list)  # when, connections per client
    idle: float = 0.0  # chance that a call's first connection was closed while it was idle


class Planned:
    """A call before anything has happened to it.

    ``time`` is when it comes. In a closed loop that holds for a caller's first call; ``time`` of
    each ``next`` one is the pause after the one before has ended. ``weight``: how much more work
    it is than others.
    """

    __slots__ = ("client", "hopeless", "key", "next", "patience", "site", "time", "weight")

    def __init__(
        self,
        time: float,
        client: int,
        site: int,
        patience: float,
        key: int,
        hopeless: bool = False,
        weight: float = 1.0,
    ) -> None:
        self.time = time
        self.client = client
        self.site = site
        self.patience = patience
        self.key = key
        self.hopeless = hopeless
        self.weight = weight
        self.next: Planned | None = None


@dataclass(slots=True)
class RandomWorld:
    """Everything about a run but the policy."""

    number: int
    loop: LoopKind
    families: tuple[str, ...]
    description: str
    sites: list[SitePlan]
    attempt_timeout: float
    first: list[Planned]  # in order of time
    calls: int
