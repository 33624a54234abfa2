"""A client that knows everything that can be known: the bound for all policies.

It knows the servers' state and timetable (up and down, when that ends, speed, error rates), all
load and capacity, the state of the queues, the rate limits, the work that it has itself reserved
at every client (the clients act as one), and which requests can never succeed. It does not know
coins that have not been tossed: which server an attempt will meet, whether an independent error
will strike, how long a service will take, when the next request comes. Knowing those would set a
bound that nothing can approach; what is left to chance for everyone stays a chance here.

For each call it takes what is best for all calls together by the value of ``scoring``: an attempt
costs 0.1, a second of waiting 0.025, a success brings 1.

- A hopeless call is never sent.
- **When to send.** In a stretch of time in which an attempt succeeds with chance ``a``, a success
  costs 1/a attempts. The best stretch minimises 0.1/a + 0.025 * (time until it begins), among
  those that begin early enough for the deadline. At 1 or more the call is not worth it. Shortly
  before an outage ``a`` is reduced by the chance that the answer comes too late.
- **Load.** Calls that the servers cannot begin at once are held at the client in order of arrival
  and sent when there is room, so no attempt is lost in a queue. One call more in a backlog keeps
  one place in it taken until the backlog is gone, at time T, whoever waits in that place; so it
  costs 0.025 * (T - now) for all together, and is given up at once if that exceeds what it brings,
  1 - 0.1/a. T comes from integrating expected arrivals against capacity.
- **Rate limits.** A call reserves a place in the first window that has one.
- A failed attempt is a new call to all these rules, with the same deadline.

The load rule is fluid and ours; nothing proves it optimal to the last digit. So the bound is the
best, in each world, of a few forms that differ in how early they hold calls back; and
``report`` prints a line whenever a policy still comes out above it.

One coin it does see: which queue its next attempt will join, so that it holds a call until there is
room there. This raises the bound a little above what a real client could reach under overload.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, GiveUp, Wait

from .engine import Run, Simulation
from .policy import Call
from .scoring import ATTEMPT_COST, WAIT_COST, score
from .world import World

_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Form:
    """One way to deal with load.

    ``room``: how much backlog the servers may have before calls are held back, in units of all
    workers. Little room keeps waiting at the client, where it costs no capacity when the server
    stops; much room keeps every worker busy although attempts spread unevenly over servers.
    ``hold``: wait while the queue is too long, rather than give up.
    """

    room: float
    hold: bool = True


FORMS = (Form(0.5), Form(2.0), Form(8.0), Form(math.inf))
"""Forms of the bound."""

RETRY_FORMS = (Form(2.0), Form(math.inf), Form(math.inf, hold=False))
"""Forms of the bound of those who send first attempts at once: under overload they may do best
not to retry at all."""


@dataclass(slots=True)
class Stretch:
    """A stretch of time in which nothing changes.

    ``chance``: that an attempt succeeds, apart from load; ``work``: attempts/s that the servers
    can serve; ``demand``: attempts/s that the callers' requests need.
    """

    start: float
    end: float
    chance: float
    work: float
    demand: float


def timetable(world: World) -> list[Stretch]:
    """Return the world's stretches from 0 on, in order; the last has no end."""
    times = {0.0, world.horizon}
    for steps in (world.rate, world.speed, *world.errors):
        times.update(steps.times[1:])
    for outages in world.outages:
        for outage in outages:
            times.update((outage.start, outage.end))
    ordered = [*sorted(times), math.inf]
    possible = 1.0 - sum(a.hopeless for a in world.arrivals) / max(1, len(world.arrivals))
    table = []
    for start, end in pairwise(ordered):
        chances = [
            0.0
            if any(o.start <= start < o.end for o in world.outages[server])
            else 1.0 - world.errors[server].at(start)
            for server in range(world.servers)
        ]
        up = sum(1 for c in chances if c > 0.0)
        chance = sum(chances) / world.servers
        work = up * world.workers * world.speed.at(start) / world.service_mean
        rate = world.rate.at(start) * possible if start < world.horizon else 0.0
        # Where hardly anything succeeds, calls are held for better times: one attempt each.
        demand = rate / chance if chance >= 0.1 else rate
        table.append(Stretch(start, end, chance, work, demand))
    return table


class Oracle:
    """What all clairvoyant clients of one run share."""

    def __init__(self, simulation: Simulation, form: Form) -> None:
        self.world = simulation.world
        self.cluster = simulation.cluster
        self.form = form
        self.table = timetable(self.world)
        self._current = 0
        self._backlog = 0.0  # attempts reserved and, by the fluid reckoning, not yet begun
        self._reckoned = 0.0
        self._room = form.room * self.world.servers * self.world.workers
        self._windows: dict[tuple[int, int], int] = {}

    def index(self, now: float) -> int:
        """Return the number of the stretch at ``now``; ``now`` never goes back."""
        while self.table[self._current].end <= now:
            self._current += 1
        return self._current

    def _reckon(self, now: float) -> None:
        """Work the backlog off up to ``now``."""
        time, backlog = self._reckoned, self._backlog
        position = self._current
        while time < now and backlog > 0.0:
            stretch = self.table[position]
            end = min(stretch.end, now)
            backlog -= stretch.work * (end - time)
            time = end
            position += 1
        self._backlog, self._reckoned = max(0.0, backlog), now
        self.index(now)

    def begin(self, now: float) -> float:
        """Return when one attempt more could be sent, for load alone."""
        excess = self._backlog - self._room
        time = now
        for stretch in self.table[self._current :]:
            if excess <= 0.0:
                return time
            span = stretch.end - time
            if stretch.work * span >= excess:
                return time + excess / stretch.work
            excess -= stretch.work * span
            time = stretch.end
        return time

    def clear(self, now: float) -> float:
        """Return when the backlog will be gone if all calls to come join it."""
        backlog = self._backlog + 1.0
        time = now
        for stretch in self.table[self._current :]:
            shrink = stretch.work - stretch.demand
            span = stretch.end - time
            if shrink > 0.0 and shrink * span >= backlog:
                return time + backlog / shrink
            backlog -= shrink * span
            time = stretch.end
        return time

    def chance(self, number: int, start: float, delay: float) -> float:
        """Return the chance of an attempt that is sent at ``start``, in stretch ``number``."""
        stretch = self.table[number]
        if stretch.end == math.inf or self.table[number + 1].chance > 0.0:
            return stretch.chance
        left = stretch.end - start - self.world.latency - delay
        return stretch.chance * (1.0 - math.exp(-max(0.0, left) / self.world.service_mean))

    def best(self, now: float, call: Call) -> tuple[float, float]:
        """Return (when it is best to send, what it costs); the cost is inf if never."""
        delay = self.delay(now)
        latest = call.deadline - self.world.service_mean - 2 * self.world.latency
        choice = (math.inf, math.inf)
        for number in range(self._current, len(self.table)):
            start = max(now, self.table[number].start)
            if start > latest or WAIT_COST * (start - now) >= choice[1]:
                break
            chance = self.chance(number, start, delay if start == now else 0.0)
            if chance > 0.0:
                cost = ATTEMPT_COST / chance + WAIT_COST * (start - now)
                if cost < choice[1]:
                    choice = (start, cost)
        return choice

    def delay(self, now: float) -> float:
        """Return the mean time that work would now wait at a server, s."""
        servers = self.cluster.servers
        return sum(server.delay(now) for server in servers) / len(servers)

    def congested(self, now: float, call: Call) -> float:
        """Return how long the queue that the next attempt will join is too long, s.

        Too long is: full, or so that the attempt would time out in it.
        """
        arrival = now + self.world.latency
        server = self.cluster.servers[self.cluster.pick(call.key, call.attempts)]
        outage = server.outage(arrival)
        if outage is not None and outage.start <= arrival:
            return 0.0
        service = self.world.service_mean / self.world.speed.at(arrival)
        patience = self.world.attempt_timeout - 3.0 * service - 2.0 * self.world.latency
        wait = server.delay(arrival) - max(0.0, patience)
        if server.full(arrival):
            wait = max(wait, server.starts[0] - arrival + _EPSILON)
        return max(0.0, wait)

    def window(self, now: float, client: int) -> tuple[float, tuple[int, int] | None]:
        """Return when the client's rate limit next has a place, and that window."""
        limit = self.world.limit
        if limit is None:
            return now, None
        arrival = now + self.world.latency
        index = limit.index(client, arrival)
        time = arrival
        while self._windows.get((client, index), 0) >= limit.count.at(time):
            index += 1
            time = limit.start(client, index) + _EPSILON
        return max(now, time - self.world.latency), (client, index)

    def admit(self, now: float, call: Any) -> Action:
        """Decide about an attempt of ``call`` that has no reservation yet."""
        if call.hopeless:
            return GiveUp("hopeless")
        self._reckon(now)
        start, cost = self.best(now, call)
        if cost >= 1.0:
            return GiveUp("not worth it")
        room = self.begin(now)
        place, window = self.window(now, call.client)
        begin = max(start, room, place)
        if begin > call.deadline - self.world.service_mean - 2 * self.world.latency:
            return GiveUp("too late")
        if begin > now:
            # The backlog of a rate limit is gone by the time of the call's own place in it.
            until = max(begin, self.clear(now) if room > now or start > now else begin)
            gain = 1.0 - ATTEMPT_COST / self.table[self._current].chance if start <= now else 0.9
            if WAIT_COST * (until - now) >= gain:
                return GiveUp("crowded out")
        self._backlog += 1.0
        if window is not None:
            self._windows[window] = self._windows.get(window, 0) + 1
        call.state = window
        return self.send(now, call) if begin <= now else Wait(begin - now)

    def force(self, now: float, call: Any) -> Action:
        """Send an attempt that may not be held back."""
        self._reckon(now)
        if self.table[self._current].work > 0.0:
            self._backlog += 1.0
        place, window = self.window(now, call.client)
        if window is not None and place <= now:
            self._windows[window] = self._windows.get(window, 0) + 1
        return SEND

    def send(self, now: float, call: Any) -> Action:
        """Send an attempt that has its reservation, as soon as the servers are fit for it."""
        self._reckon(now)
        start, cost = self.best(now, call)
        if cost >= 1.0:
            return GiveUp("not worth it")
        if start > now:
            return Wait(start - now)
        wait = self.congested(now, call)
        if wait > 0.0:
            return Wait(max(0.001, wait)) if self.form.hold else GiveUp("no room")
        limit = self.world.limit
        if limit is not None and call.state is not None:
            index = limit.index(call.client, now + self.world.latency)
            if call.state != (call.client, index):
                # Held beyond its window: take a place in the present one, or in a later one.
                place, window = self.window(now, call.client)
                assert window is not None
                self._windows[window] = self._windows.get(window, 0) + 1
                call.state = window
                if place > now:
                    return Wait(place - now)
        return SEND


class Clairvoyant:
    """One client of the ``Oracle``. Without ``admission`` it sends every first attempt at once."""

    def __init__(self, oracle: Oracle, admission: bool) -> None:
        self._oracle = oracle
        self._admission = admission

    def arrive(self, now: float, call: Any) -> Action:
        """Decide, or send if there is no choice."""
        return self._oracle.admit(now, call) if self._admission else self._oracle.force(now, call)

    def outcome(self, now: float, call: Any, outcome: AttemptOutcome) -> Action:
        """Decide anew about a failed call."""
        return SEND if outcome.ok else self._oracle.admit(now, call)

    def wake(self, now: float, call: Any) -> Action:
        """Send, or wait on."""
        return self._oracle.send(now, call)

    def cancel(self, now: float, call: Any) -> None:
        """Too late; rare, as this client knows when it is."""


def _client(oracle: Oracle, admission: bool, number: int) -> Clairvoyant:
    return Clairvoyant(oracle, admission)


def simulate_bound(world: World, admission: bool = True) -> tuple[Run, Form]:
    """Run ``world`` in each form; return the best run by value, and its form.

    With ``admission=False`` every first attempt is sent on arrival and only retries are
    clairvoyant: what a policy could reach at most that does nothing but retry.
    """
    best: tuple[float, Run, Form] | None = None
    for form in FORMS if admission else RETRY_FORMS:
        simulation = Simulation(world)
        clients = partial(_client, Oracle(simulation, form), admission)
        run = simulation.run(clients)
        value = score(run).value
        if best is None or value > best[0]:
            best = (value, run, form)
    assert best is not None
    return best[1], best[2]
