"""The worlds that policies are judged in.

Each condition names a kind of trouble; the seed settles every number of it: clients, load, servers,
service times, timeouts, deadlines, when trouble starts, how long it lasts and how bad it is. The
numbers in the code are nominal, ``_Plan.vary`` spreads each of them around it (by up to a third
either way on a logarithmic scale, unless said otherwise), so that nothing can be tuned to one
value.

A run lasts about a minute and has some 5,000 to 12,000 requests.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from .world import Arrival, Outage, RateLimit, Steps, World

# An outage is as long in every condition; what differs is who sees it. s
_OUTAGE = 12.0
_TRANSIENT = ("503", "502", "ServerDisconnected", "500")


@dataclass(slots=True)
class _Plan:
    """A world in the making: nominal numbers, varied by the seed, then adapted by a condition."""

    name: str
    seed: int
    rng: random.Random
    total: float = 120.0  # requests/s of all clients
    clients: int = 16
    servers: int = 4
    workers: int = 4
    load: float = 0.45  # of capacity
    horizon: float = 60.0
    latency: float = 0.001
    attempt_timeout: float = 1.5
    deadline: float = 10.0
    queue_timeouts: float = 3.0  # the queue's length, in attempt timeouts of work
    queue: int | None = None
    error: float = 0.0
    hopeless: float = 0.0
    only: str = ""  # the one error that servers give, instead of a mix
    even: bool = False  # all clients equally busy
    changes: list[tuple[float, float]] = field(default_factory=list)  # of the total rate, factor
    speed: list[tuple[float, float]] = field(default_factory=list)
    outages: list[tuple[int | None, Outage]] = field(default_factory=list)
    server_errors: dict[int, list[tuple[float, float]]] = field(default_factory=dict)
    limit: Callable[[float], RateLimit] | None = None  # of a client's mean rate
    faults: list[tuple[float, float]] = field(default_factory=list)

    def vary(self, nominal: float, spread: float = 0.33) -> float:
        """Return ``nominal`` times exp(U(-spread, spread))."""
        return nominal * math.exp(self.rng.uniform(-spread, spread))

    def whole(self, nominal: float, least: int = 1) -> int:
        """Return a varied whole number."""
        return max(least, round(self.vary(nominal)))

    def fault(self, start: float, length: float) -> tuple[float, float]:
        """Draw a fault's window around nominal numbers, s, and note it for the report."""
        begin = self.vary(start)
        window = (begin, begin + self.vary(length))
        self.faults.append(window)
        return window

    def down(
        self,
        start: float,
        end: float,
        mode: Literal["refused", "silent"],
        server: int | None = None,
    ) -> None:
        """Let one server, or all, be down."""
        self.outages.append((server, Outage(start, end, mode)))

    def build(self) -> World:
        """Draw what is left and the requests."""
        rng = self.rng
        service_mean = self.load * self.servers * self.workers / self.total
        attempt_timeout = max(self.attempt_timeout, 8.0 * service_mean)
        queue = self.queue
        if queue is None:
            queue = 1 + int(self.queue_timeouts * attempt_timeout * self.workers / service_mean)
        rate = Steps(self.total, [(time, self.total * factor) for time, factor in self.changes])
        weights = [1.0 if self.even else rng.lognormvariate(0.0, 0.5) for _ in range(self.clients)]
        shares = [rng.uniform(0.5, 1.5) for _ in _TRANSIENT]
        if self.only:
            shares = [float(name == self.only) for name in _TRANSIENT]
        cumulative = [sum(shares[: i + 1]) / sum(shares) for i in range(len(shares))]
        errors = []
        for server in range(self.servers):
            extra = self.server_errors.get(server, self.server_errors.get(-1, []))
            errors.append(Steps(self.error, [(t, max(p, self.error)) for t, p in extra]))
        return World(
            name=self.name,
            seed=self.seed,
            clients=self.clients,
            arrivals=self._arrivals(rate, weights),
            rate=rate,
            horizon=self.horizon,
            servers=self.servers,
            workers=self.workers,
            queue=queue,
            service_mean=service_mean,
            service=rng.choice(("exponential", "lognormal")),
            sigma=self.vary(0.7),
            latency=self.latency,
            attempt_timeout=attempt_timeout,
            speed=Steps(1.0, self.speed),
            errors=errors,
            error_mix=list(zip(cumulative, _TRANSIENT, strict=True)),
            outages=[
                [outage for where, outage in self.outages if where in (None, server)]
                for server in range(self.servers)
            ],
            limit=self.limit(self.total / self.clients) if self.limit else None,
            hopeless_error=rng.choice(("500", "500", "503")),
            faults=self.faults,
        )

    def _arrivals(self, rate: Steps, weights: list[float]) -> list[Arrival]:
        """Draw a Poisson process of piecewise constant rate, by thinning."""
        rng = self.rng
        peak = max(rate.values)
        clients = range(self.clients)
        arrivals: list[Arrival] = []
        time = 0.0
        while True:
            time += rng.expovariate(peak)
            if time >= self.horizon:
                return arrivals
            if rng.random() * peak < rate.at(time):
                client = rng.choices(clients, weights)[0]
                deadline = time + max(self.attempt_timeout, self.vary(self.deadline, 0.25))
                hopeless = rng.random() < self.hopeless
                arrivals.append(Arrival(time, client, deadline, rng.getrandbits(64), hopeless))


def _errors(chance: float) -> Callable[[_Plan], None]:
    def apply(plan: _Plan) -> None:
        plan.error = plan.vary(chance, 0.2)

    return apply


def _outage(mode: Literal["refused", "silent"]) -> Callable[[_Plan], None]:
    def apply(plan: _Plan) -> None:
        start, end = plan.fault(16.0, _OUTAGE)
        plan.error = plan.vary(0.002)
        plan.down(start, end, mode)

    return apply


def _brownout(plan: _Plan) -> None:
    plan.load = plan.vary(0.8, 0.08)
    start, end = plan.fault(14.0, 20.0)
    plan.speed = [(start, plan.vary(0.6, 0.1)), (end, 1.0)]


def _spike(plan: _Plan) -> None:
    plan.load = plan.vary(0.8, 0.08)
    start, end = plan.fault(14.0, 20.0)
    plan.changes = [(start, plan.vary(1.5, 0.1)), (end, 1.0)]


def _one_bad(plan: _Plan) -> None:
    plan.servers = 5
    start, end = plan.fault(12.0, 30.0)
    plan.error = plan.vary(0.002)
    bad = plan.rng.randrange(5)
    # What a balancer says for a server that it can't use looks like shedding, but is not.
    plan.only = plan.rng.choice(("", "503", "502"))
    if plan.rng.random() < 0.3:
        plan.down(start, end, "refused", bad)
    else:
        plan.server_errors[bad] = [(start, plan.rng.uniform(0.6, 1.0)), (end, 0.0)]


def _hopeless(plan: _Plan) -> None:
    plan.error = plan.vary(0.01)
    plan.hopeless = plan.vary(0.05)


def _rate_limit(plan: _Plan) -> None:
    plan.even = True
    start, end = plan.fault(14.0, 25.0)
    window = plan.vary(3.0, 0.6)
    tightness = plan.vary(0.9, 0.25)

    def limit(mean_rate: float) -> RateLimit:
        count = max(1.0, round(tightness * mean_rate * window))
        return RateLimit(window, Steps(math.inf, [(start, count), (end, math.inf)]))

    plan.limit = limit
    plan.error = plan.vary(0.002)


def _periodic(every: float, length: float) -> Callable[[_Plan], None]:
    """The whole service is gone for ``length`` s about every ``every`` s."""

    def apply(plan: _Plan) -> None:
        plan.error = plan.vary(0.002)
        time = plan.vary(every)
        while time + 2 * length < plan.horizon - 8.0:
            end = time + plan.vary(length, 0.5)
            plan.faults.append((time, end))
            plan.down(time, end, "refused")
            time = end + plan.vary(every)

    return apply


def _rolling(plan: _Plan) -> None:
    plan.error = plan.vary(0.002)
    time = plan.vary(12.0)
    begin = time
    for server in range(plan.servers):
        end = time + plan.vary(4.0)
        plan.down(time, end, "refused", server)
        time = end + plan.vary(1.0)
    plan.faults.append((begin, time))


def _sparse(plan: _Plan, outage: float = _OUTAGE) -> None:
    """A request per 10 s and client; a restart and an outage among one or two percent errors."""
    plan.clients = plan.whole(250)
    plan.total = plan.clients / plan.vary(10.0)
    plan.load = plan.vary(0.1)
    plan.horizon = 240.0
    plan.error = plan.vary(0.015)
    start, end = plan.fault(40.0, 4.0)
    plan.down(start, end, "refused")
    start, end = plan.fault(120.0, outage)
    plan.down(start, end, plan.rng.choice(("refused", "silent")))


def _cold(plan: _Plan) -> None:
    """All clients are new, and meet an outage from their first request on."""
    plan.clients = plan.whole(300)
    plan.even = True
    end = plan.vary(_OUTAGE)
    plan.faults.append((0.0, end))
    plan.down(0.0, end, plan.rng.choice(("refused", "refused", "silent")))
    plan.horizon = 45.0


def _slow(plan: _Plan) -> None:
    """Long services with a long tail, some beyond the attempt's timeout, and a long network."""
    plan.workers = plan.whole(40, 20)
    plan.load = plan.vary(0.5, 0.15)
    plan.latency = plan.vary(0.04)
    plan.attempt_timeout = plan.vary(2.5, 0.2)
    plan.error = plan.vary(0.01)


def _flapping(plan: _Plan) -> None:
    plan.error = plan.vary(0.002)
    time = plan.vary(15.0)
    stop = time + plan.vary(22.0)
    begin = time
    while time < stop:
        end = time + plan.vary(1.5, 0.6)
        plan.down(time, end, "refused")
        time = end + plan.vary(1.5, 0.6)
    plan.faults.append((begin, end))


def _shedding(plan: _Plan) -> None:
    """Overload, and servers with short queues that answer 503 at once."""
    plan.load = plan.vary(0.75, 0.08)
    plan.queue = plan.workers * plan.whole(2.0)
    start, end = plan.fault(14.0, 22.0)
    plan.changes = [(start, plan.vary(1.7, 0.12)), (end, 1.0)]


def _quiet(plan: _Plan, outage: float = _OUTAGE) -> None:
    """The same outage, seen by a few clients of one request in two seconds each."""
    plan.clients = plan.whole(40)
    plan.total = plan.clients / plan.vary(2.0)
    plan.load = plan.vary(0.1)
    plan.horizon = 150.0
    start, end = plan.fault(50.0, outage)
    plan.error = plan.vary(0.005)
    plan.down(start, end, plan.rng.choice(("refused", "silent")))


def _partial(plan: _Plan) -> None:
    """For a while about half of all attempts fail, whatever the server."""
    start, end = plan.fault(15.0, 15.0)
    plan.error = plan.vary(0.002)
    plan.server_errors[-1] = [(start, plan.vary(0.5, 0.25)), (end, 0.0)]


def _metastable(plan: _Plan) -> None:
    """A pause of seconds at high load, the classic trigger of a metastable failure."""
    plan.load = plan.vary(0.86, 0.05)
    plan.queue_timeouts = plan.vary(4.0)
    start, end = plan.fault(15.0, 3.0)
    # A pause, not a crash: requests keep queueing while almost nothing is worked off.
    plan.speed = [(start, 0.15), (end, 1.0)]


CONDITIONS: dict[str, Callable[[_Plan], None]] = {
    "errors_0.1%": _errors(0.001),
    "errors_1%": _errors(0.01),
    "errors_5%": _errors(0.05),
    "errors_20%": _errors(0.2),
    "outage_refused": _outage("refused"),
    "outage_timeout": _outage("silent"),
    "brownout": _brownout,
    "spike_1.5": _spike,
    "one_bad_of_five": _one_bad,
    "hopeless_5%": _hopeless,
    "rate_limit": _rate_limit,
    "blips_200ms": _periodic(6.0, 0.2),
    "restarts_2s": _periodic(12.0, 2.0),
    "sparse_clients": _sparse,
    "cold_clients": _cold,
    "slow_service": _slow,
    "flapping": _flapping,
    "shedding_503": _shedding,
    "quiet_outage": _quiet,
    "partial_50%": _partial,
    "rolling_restart": _rolling,
    "pause_at_load": _metastable,
}
"""Conditions by name, in the order of the table."""

_LONG = 30.0

LONG_OUTAGES: dict[str, Callable[[_Plan], None]] = {
    "sparse_30s": partial(_sparse, outage=_LONG),
    "quiet_30s": partial(_quiet, outage=_LONG),
}
"""Shown below the table and not averaged. A client that makes a call in ten seconds can't tell a
restart from the first seconds of half a minute of outage; who knows the end beforehand can, so here
next to all of the regret is the price of not being clairvoyant."""

ALL = CONDITIONS | LONG_OUTAGES


def make_world(name: str, seed: int) -> World:
    """Return condition ``name`` with all numbers of ``seed``. Equal arguments, equal worlds."""
    rng = random.Random(f"{name}/{seed}")
    plan = _Plan(name, seed, rng)
    plan.total = plan.vary(plan.total)
    plan.clients = plan.whole(plan.clients, 4)
    plan.servers = plan.whole(plan.servers, 2)
    plan.workers = plan.whole(plan.workers, 2)
    plan.load = plan.vary(plan.load, 0.2)
    plan.latency = plan.vary(plan.latency)
    plan.attempt_timeout = plan.vary(plan.attempt_timeout)
    plan.deadline = plan.vary(plan.deadline)
    plan.queue_timeouts = plan.vary(plan.queue_timeouts)
    ALL[name](plan)
    return plan.build()
