"""Servers with a few workers and one bounded first-come, first-served queue each.

The end of a service is computed on arrival: in such a queue a later arrival cannot change it, and
the outages are known beforehand. So an attempt costs one event. Two consequences, both accepted:
a service runs at the speed of the moment in which it starts, and arrivals must be offered in order
of time (they are, as the network's latency is constant).

A server never learns that a client gave up. It works off whatever it accepted, so late answers
cost capacity, and overload can feed itself (Bronson et al.: Metastable failures in distributed
systems, HotOS 2021).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from heapq import heapify, heapreplace
from statistics import NormalDist

from aiohttp_adaptive_retry.policy import AttemptOutcome

from .draws import ERROR, ERROR_TYPE, SERVER, SERVICE, uniform
from .policy import Call, failure
from .world import Outage, World

_inverse_normal = NormalDist().inv_cdf


class Server:
    """One server's workers and queue. ``offered`` counts all that came, by what became of it."""

    __slots__ = ("busy_until", "next_outage", "outages", "queue", "starts", "workers")

    def __init__(self, workers: int, queue: int, outages: list[Outage]) -> None:
        self.workers = workers
        self.queue = queue
        self.outages = outages
        self.next_outage = 0
        self.busy_until = [-math.inf] * workers
        self.starts: deque[float] = deque()

    def outage(self, time: float) -> Outage | None:
        """Return the present outage, else the next, else None."""
        while self.next_outage < len(self.outages):
            outage = self.outages[self.next_outage]
            if time < outage.end:
                return outage
            self.next_outage += 1
            if outage.mode == "refused":
                # The process is a new one: its queue is empty.
                self.busy_until = [outage.end] * self.workers
                self.starts.clear()
        return None

    def delay(self, time: float) -> float:
        """Return how long work that arrives at ``time`` would wait for a worker, s."""
        return max(0.0, self.busy_until[0] - time)

    def full(self, time: float) -> bool:
        """Tell whether all places of the queue are taken at ``time``."""
        starts = self.starts
        while starts and starts[0] <= time:
            starts.popleft()
        return len(starts) >= self.queue

    def begin(self, time: float) -> float:
        """Return when work that arrives at ``time`` will be begun."""
        return max(time, self.busy_until[0])

    def occupy(self, start: float, end: float, time: float) -> None:
        """Give the worker that is free first the work from ``start`` to ``end``."""
        heapreplace(self.busy_until, end)
        if start > time:
            self.starts.append(start)


class Cluster:
    """All servers behind one address; each attempt meets one of them at random.

    ``offered`` counts the attempts that were sent here, by fate; their sum is the number of
    attempts that clients sent.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers = [
            Server(world.workers, world.queue, world.outages[index])
            for index in range(world.servers)
        ]
        for server in self.servers:
            heapify(server.busy_until)
        self.offered: Counter[str] = Counter()
        self.per_server = [0] * world.servers
        self._windows: dict[int, tuple[int, int]] = {}
        self._mu = math.log(world.service_mean) - world.sigma**2 / 2

    def service_time(self, key: int, attempt: int) -> float:
        """Return the service time of an attempt at speed 1, s; its mean is ``service_mean``."""
        u = uniform(key, attempt, SERVICE)
        if self.world.service == "exponential":
            return -math.log(u) * self.world.service_mean
        return math.exp(self._mu + self.world.sigma * _inverse_normal(u))

    def pick(self, key: int, attempt: int) -> int:
        """Return the server that an attempt meets; all are equally likely."""
        return int(uniform(key, attempt, SERVER) * self.world.servers)

    def attempt(self, now: float, call: Call, number: int) -> tuple[AttemptOutcome, float]:
        """Send attempt ``number`` (from 0) of ``call`` at ``now``.

        Return its outcome, known to the client ``outcome.latency`` s later, and the time in which
        it was being served, s, round trip included (0 unless it succeeds).
        """
        world = self.world
        arrival = now + world.latency
        index = self.pick(call.key, number)
        self.per_server[index] += 1
        fate, ready, served, retry_after = self._handle(arrival, call, number, index)
        self.offered[fate or "served"] += 1
        latency = ready + world.latency - now
        if latency > world.attempt_timeout:
            return failure("Timeout", world.attempt_timeout), 0.0
        if fate:
            return failure(fate, latency, retry_after), 0.0
        return AttemptOutcome(True, "", latency), served + 2 * world.latency

    def _handle(
        self, time: float, call: Call, number: int, index: int
    ) -> tuple[str, float, float, float | None]:
        """Return (error or "", when the answer leaves, service time, Retry-After)."""
        world = self.world
        server = self.servers[index]
        outage = server.outage(time)
        if outage is not None and outage.start <= time:
            if outage.mode == "refused":
                return "ConnectionRefused", time, 0.0, None
            return "Timeout", math.inf, 0.0, None
        if world.limit is not None:
            wait = self._limited(call.client, time)
            if wait is not None:
                return "429", time, 0.0, wait
        error = ""
        if call.hopeless:
            error = world.hopeless_error
        else:
            chance = world.errors[index].at(time)
            if chance > 0.0 and uniform(call.key, number, ERROR) < chance:
                error = self._error_type(call.key, number)
                if error == "Timeout":
                    # Lost on its way.
                    return error, math.inf, 0.0, None
                if error != "500":
                    # A gateway or a socket failed: no worker has seen the request.
                    return error, time, 0.0, None
        if server.full(time):
            return "503", time, 0.0, None
        start = server.begin(time)
        served = self.service_time(call.key, number) / world.speed.at(start)
        end = start + served
        server.occupy(start, end, time)
        if outage is not None and end > outage.start:
            if outage.mode == "refused":
                return "ServerDisconnected", outage.start, 0.0, None
            if end < outage.end:
                return "Timeout", math.inf, 0.0, None
        return error, end, served, None

    def _error_type(self, key: int, number: int) -> str:
        u = uniform(key, number, ERROR_TYPE)
        for share, error in self.world.error_mix:
            if u < share:
                return error
        return self.world.error_mix[-1][1]

    def _limited(self, client: int, time: float) -> float | None:
        """Count one request of ``client``; return Retry-After, s, if it is one too many."""
        limit = self.world.limit
        assert limit is not None
        index = limit.index(client, time)
        seen, count = self._windows.get(client, (index, 0))
        if seen != index:
            count = 0
        if count >= limit.count.at(time):
            return float(max(1, math.ceil(limit.start(client, index + 1) - time)))
        self._windows[client] = (index, count + 1)
        return None
