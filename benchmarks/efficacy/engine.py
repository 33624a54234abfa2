"""The event loop: calls arrive, policies decide, attempts and waits run out.

A call has at most one event under way (the end of an attempt or of a wait, or its deadline if that
comes first), so no event is ever cancelled. Simulated time only; two runs with the same world and
the same policy are equal to the last bit.

**Waiting** of a call is the time from its start to its end, except the time in which its
successful attempt was being served: that attempt's service at the worker and its round trip on
the network, which no policy can avoid. Queueing at a server, failed attempts, backoff and holding
back a first attempt all count. A call that fails has waited from start to end; one that is given
up at once has not waited at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, Policy, Send, Wait

from .policy import Call, PolicyFactory
from .servers import Cluster
from .world import World

_MAX_WAKES = 10_000

_OUTCOME, _WAKE, _DEADLINE = range(3)


@dataclass(slots=True)
class Record:
    """How one call ended. Times in s."""

    started: float
    ended: float
    ok: bool
    attempts: int
    waiting: float


@dataclass(slots=True)
class Run:
    """All that one run brought. ``attempt_times`` is when each attempt was sent, s."""

    world: World
    records: list[Record]
    attempt_times: list[float]
    failed_retries: int
    offered: dict[str, int]
    per_server: list[int]
    reasons: dict[str, int] = field(default_factory=dict)


class Simulation:
    """One world, to be run once with one kind of policy.

    ``now`` and ``cluster`` are public for the clairvoyant client, which sees everything.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.cluster = Cluster(world)
        self.now = 0.0
        self._heap: list[tuple[float, int, int, Call, AttemptOutcome | None, float]] = []
        self._sequence = 0
        self._run = Run(world, [], [], 0, {}, [])

    def clock(self) -> float:
        """Return the simulated time, s."""
        return self.now

    def run(self, make: Callable[[int], Policy]) -> Run:
        """Run to the end of the last call. ``make`` gives the policy of a client's number."""
        policies: dict[int, Policy] = {}
        arrivals = self.world.arrivals
        heap = self._heap
        position, total = 0, len(arrivals)
        while position < total or heap:
            if position < total and (not heap or arrivals[position].time <= heap[0][0]):
                new = arrivals[position]
                call = Call(position, new.client, new.time, new.deadline, new.key, new.hopeless)
                position += 1
                self.now = new.time
                policy = policies.get(call.client)
                if policy is None:
                    policy = policies[call.client] = make(call.client)
                self._act(call, policy.arrive(new.time, call))
                continue
            now, _, kind, call, outcome, served = heappop(heap)
            self.now = now
            policy = policies[call.client]
            if kind == _WAKE:
                self._act(call, policy.wake(now, call))
            elif kind == _DEADLINE:
                if outcome is not None and call.attempts > 1:
                    self._run.failed_retries += 1
                policy.cancel(now, call)
                self._finish(call, False, now - call.started, "deadline")
            else:
                assert outcome is not None
                action = policy.outcome(now, call, outcome)
                if outcome.ok:
                    self._finish(call, True, now - call.started - served, "")
                else:
                    if call.attempts > 1:
                        self._run.failed_retries += 1
                    self._act(call, action)
        self._run.offered = dict(self.cluster.offered)
        self._run.per_server = self.cluster.per_server
        return self._run

    def _act(self, call: Call, action: Action) -> None:
        now = self.now
        if type(action) is Send:
            number = call.attempts
            call.attempts = number + 1
            self._run.attempt_times.append(now)
            outcome, served = self.cluster.attempt(now, call, number)
            end = now + outcome.latency
            if end > call.deadline:
                self._push(call.deadline, _DEADLINE, call, outcome, 0.0)
            else:
                self._push(end, _OUTCOME, call, outcome, served)
        elif type(action) is Wait:
            if not action.seconds >= 0.0:
                raise ValueError(f"seconds must be >= 0, got {action.seconds}")
            call.wakes += 1
            if call.wakes > _MAX_WAKES:
                raise RuntimeError(f"call {call.id} waits again and again without time passing")
            end = now + action.seconds
            if end >= call.deadline:
                self._push(call.deadline, _DEADLINE, call, None, 0.0)
            else:
                self._push(end, _WAKE, call, None, 0.0)
        else:
            self._finish(call, False, now - call.started, getattr(action, "reason", "?"))

    def _push(
        self, time: float, kind: int, call: Call, outcome: AttemptOutcome | None, served: float
    ) -> None:
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, kind, call, outcome, served))

    def _finish(self, call: Call, ok: bool, waiting: float, reason: str) -> None:
        if reason:
            self._run.reasons[reason] = self._run.reasons.get(reason, 0) + 1
        # The subtraction of equal times can leave -1e-17.
        record = Record(call.started, self.now, ok, call.attempts, max(0.0, waiting))
        self._run.records.append(record)


def simulate(world: World, factory: PolicyFactory) -> Run:
    """Run ``world`` with one policy of ``factory`` per client.

    Each client's random source depends on the world's seed and the client's number alone.
    """
    simulation = Simulation(world)

    def make(client: int) -> Policy:
        source = random.Random(f"{world.name}:{world.seed}:{client}")
        return factory(simulation.clock, source.random)

    return simulation.run(make)
