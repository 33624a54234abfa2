"""What is fixed before a run begins: the load, the servers and what will befall them.

All times are seconds from the run's start, all rates are per second.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal


class Steps:
    """A piecewise constant function of time.

    >>> speed = Steps(1.0, [(10.0, 0.6), (30.0, 1.0)])
    >>> speed.at(9.9), speed.at(10.0), speed.at(40.0)
    (1.0, 0.6, 1.0)
    """

    __slots__ = ("times", "values")

    def __init__(self, first: float, changes: Iterable[tuple[float, float]] = ()) -> None:
        self.times = [-math.inf]
        self.values = [first]
        for time, value in changes:
            if time < self.times[-1]:
                raise ValueError(f"changes must be in order of time, got {time}")
            self.times.append(time)
            self.values.append(value)

    def at(self, time: float) -> float:
        """Return the value at ``time``; at a change, the new one."""
        if len(self.times) == 1:
            return self.values[0]
        return self.values[bisect_right(self.times, time) - 1]


@dataclass(frozen=True, slots=True)
class Outage:
    """A server cannot be reached from ``start`` to ``end``.

    ``refused``: the process is gone. Connections are refused at once, work in hand is lost and its
    clients see a disconnect. ``silent``: the network is cut. Nothing arrives, no answer comes
    back, clients time out; the server goes on working at what it has.
    """

    start: float
    end: float
    mode: Literal["refused", "silent"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A fixed-window limit per client: ``count`` requests in each window of ``window`` s.

    Windows of client c begin at ``offset(c) + n * window``. Above the count the answer is 429 with
    Retry-After in whole seconds until the window ends, as the header's format has it (RFC 9110,
    10.2.3).
    """

    window: float
    count: Steps

    def index(self, client: int, time: float) -> int:
        """Return the number of the window of ``client`` at ``time``."""
        return math.floor(time / self.window - self._phase(client))

    def start(self, client: int, index: int) -> float:
        """Return when window ``index`` of ``client`` begins."""
        return (index + self._phase(client)) * self.window

    @staticmethod
    def _phase(client: int) -> float:
        # Golden ratio: phases of the clients are spread evenly, windows do not turn in step.
        return (client * 0.6180339887498949) % 1.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, before anything has happened to it. ``hopeless`` ones can never succeed."""

    time: float
    client: int
    deadline: float
    key: int
    hopeless: bool


@dataclass(slots=True)
class World:
    """Everything about a run but the policy. See the fields' comments for units."""

    name: str
    seed: int
    clients: int
    arrivals: list[Arrival]  # in order of time
    rate: Steps  # of all clients together, requests/s
    horizon: float  # arrivals end here, s
    servers: int
    workers: int  # per server
    queue: int  # places per server, beside those being worked at
    service_mean: float  # s, at speed 1
    service: Literal["exponential", "lognormal"]
    sigma: float  # of the lognormal's logarithm
    latency: float  # one way, s
    attempt_timeout: float  # s
    speed: Steps  # of all servers; 0.6: a service takes 1 / 0.6 as long
    errors: list[Steps]  # per server: chance that an attempt fails, 0 to 1
    error_mix: list[tuple[float, str]]  # cumulative share, error type
    outages: list[list[Outage]]  # per server, in order, not overlapping
    limit: RateLimit | None = None
    hopeless_error: str = "500"
    faults: list[tuple[float, float]] = field(default_factory=list)  # for reporting

    @property
    def capacity(self) -> float:
        """Requests per second that all servers can work off at speed 1."""
        return self.servers * self.workers / self.service_mean

    def in_fault(self, time: float) -> bool:
        """Tell whether ``time`` lies in one of the fault's windows."""
        return any(start <= time < end for start, end in self.faults)
