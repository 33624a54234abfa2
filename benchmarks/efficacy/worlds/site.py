"""A site at work: servers with a few workers and one bounded queue each, dead connections.

The end of a service is computed on arrival, so an attempt costs one event. Arrivals must be offered
in order of time.
"""

from __future__ import annotations

import math
from collections import deque
from heapq import heapify, heappop, heappush, heapreplace
from statistics import NormalDist

from ..draws import ERROR, ERROR_TYPE, SERVER, SERVICE, uniform
from .limiter import Limiter
from .plan import DROPPED, REFUSED, TIMEOUT, Outage, Planned, Scaling, SitePlan

_inverse_normal = NormalDist().inv_cdf


class Server:
    """One server's workers and queue."""

    __slots__ = ("busy_until", "next_outage", "outages", "starts", "workers")

    def __init__(self, workers: int, outages: list[Outage]) -> None:
        self.workers = workers
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
            if outage.mode != "silent":
                # The process is a new one: its queue is empty.
                self.busy_until = [outage.end] * self.workers
                self.starts.clear()
        return None

    def waiting(self, time: float) -> int:
        """Return how many wait for a worker at ``time``."""
        starts = self.starts
        while starts and starts[0] <= time:
            starts.popleft()
        return len(starts)


class Scaler:
    """Adds and removes workers of all servers of a site."""

    __slots__ = ("_next", "_scaling", "_servers", "work")

    def __init__(self, scaling: Scaling, servers: list[Server]) -> None:
        self._scaling = scaling
        self._servers = servers
        self._next = scaling.period
        self.work = 0.0

    def scale(self, time: float) -> None:
        """Adapt the workers, if that is due, to the work that came since the last time."""
        scaling = self._scaling
        if time < self._next:
            return
        periods = 1 + math.floor((time - self._next) / scaling.period)
        busy = self.work / (periods * scaling.period * len(self._servers))
        self.work = 0.0
        self._next += periods * scaling.period
        wanted = min(scaling.most, max(1, math.ceil(busy / scaling.goal)))
        for server in self._servers:
            while server.workers < wanted:
                heappush(server.busy_until, time + scaling.boot)
                server.workers += 1
            while server.workers > wanted and server.busy_until[0] <= time:
                heappop(server.busy_until)
                server.workers -= 1


class Site:
    """All servers behind one address; each attempt meets one of them at random.

    ``offered`` counts the attempts that were sent here, by fate ("" is served, "lost" has met a
    dead connection); their sum is the number of attempts that clients sent.
    """

    def __init__(self, plan: SitePlan, attempt_timeout: float) -> None:
        self.plan = plan
        self.attempt_timeout = attempt_timeout
        self.servers = [Server(plan.workers, outages) for outages in plan.outages]
        for server in self.servers:
            heapify(server.busy_until)
        self.limiter = Limiter(plan.limit) if plan.limit else None
        self.scaler = Scaler(plan.scaling, self.servers) if plan.scaling else None
        self.offered: dict[str, int] = {}
        self._mu = math.log(plan.service) - plan.sigma**2 / 2
        self._bursts = 0
        self._dead: dict[int, int] = {}
        self._seen: dict[int, int] = {}

    def dead_connection(self, now: float, call: Planned, number: int) -> bool:
        """Tell whether the pooled connection that an attempt takes was lost unnoticed."""
        idle = self.plan.idle
        lost = number == 0 and idle > 0.0 and uniform(~call.key, 0, ERROR) < idle
        lost = lost or self._dead_in_pool(now, call.client)
        if lost:
            self.offered["lost"] = self.offered.get("lost", 0) + 1
        return lost

    def _dead_in_pool(self, now: float, client: int) -> bool:
        stale = self.plan.stale
        while self._bursts < len(stale) and stale[self._bursts][0] <= now:
            self._bursts += 1
        seen = self._seen.get(client)
        if seen != self._bursts:
            self._seen[client] = self._bursts
            # A client's pool holds as many dead connections as it had; a new client has none.
            self._dead[client] = stale[self._bursts - 1][1] if seen is not None else 0
        left = self._dead[client]
        if left <= 0:
            return False
        self._dead[client] = left - 1
        return True

    def attempt(
        self, now: float, call: Planned, number: int, deadline: float
    ) -> tuple[str, float, float, float | None]:
        """Send attempt ``number`` (from 0) of a call at ``now``.

        Return its error ("" if it succeeds), how long until the client knows, how long it was being
        served, round trip included (0 unless it succeeds), and Retry-After. All in s.
        """
        plan = self.plan
        latency = plan.latency
        fate, ready, served, said = self._handle(now + latency, call, number, deadline)
        self.offered[fate] = self.offered.get(fate, 0) + 1
        took = ready + latency - now
        if took > self.attempt_timeout:
            return TIMEOUT, self.attempt_timeout, 0.0, None
        return fate, took, served + 2 * latency if not fate else 0.0, said

    def _handle(
        self, time: float, call: Planned, number: int, deadline: float
    ) -> tuple[str, float, float, float | None]:
        """Return (error or "", when the answer leaves, service time, Retry-After)."""
        plan, key = self.plan, call.key
        count = len(self.servers)
        if count == 1:
            index = 0
        elif plan.sticky:
            index = call.client % count
        else:
            index = int(uniform(key, number, SERVER) * count)
        server = self.servers[index]
        outage = server.outage(time) if server.outages else None
        if outage is not None and outage.start <= time:
            if outage.mode == "silent":
                return TIMEOUT, math.inf, 0.0, None
            if outage.mode == "refused":
                return REFUSED, time, 0.0, None
            return "503", time, 0.0, outage.says
        if self.limiter is not None:
            wait = self.limiter.refuse(call.client, time)
            if wait is not None:
                return "429", time, 0.0, self.limiter.said(wait)
        error = plan.hopeless if call.hopeless else ""
        if not error and plan.errors[index]:
            error = self._error(plan, index, key, number, time)
        if error == TIMEOUT:
            return error, math.inf, 0.0, None
        if error and error != "500":
            # A gateway or a socket failed: no worker has seen the request.
            return error, time, 0.0, None
        if self.scaler is not None:
            self.scaler.scale(time)
        busy_until = server.busy_until
        start = busy_until[0]
        if start > time:
            if server.waiting(time) >= plan.queue:
                return plan.full, time, 0.0, None
            server.starts.append(start)
            if plan.forgets and start > min(time + self.attempt_timeout, deadline):
                # The client has gone when its turn comes.
                return TIMEOUT, math.inf, 0.0, None
        else:
            start = time
        u = uniform(key, number, SERVICE)
        if plan.sigma:
            work = math.exp(self._mu + plan.sigma * _inverse_normal(u))
        else:
            work = -math.log(u) * plan.service
        work *= call.weight
        speed = plan.speeds[index]
        end = start + work if speed is None else speed.end(start, work)
        heapreplace(busy_until, end)
        if self.scaler is not None:
            self.scaler.work += work
        if outage is not None and end > outage.start:
            if outage.mode != "silent":
                return DROPPED, max(time, outage.start), 0.0, None
            if end < outage.end:
                return TIMEOUT, math.inf, 0.0, None
        return error, end, end - start, None

    def _error(self, plan: SitePlan, index: int, key: int, number: int, time: float) -> str:
        for trouble in plan.errors[index]:
            if trouble.start <= time < trouble.end and uniform(key, number, ERROR) < trouble.chance:
                kinds = trouble.kinds
                if len(kinds) == 1:
                    return kinds[0]
                return kinds[int(uniform(key, number, ERROR_TYPE) * len(kinds))]
        return ""
