"""The event loop: calls come, policies decide, attempts and waits run out.

A policy object belongs to one client and one origin, as in the middleware. What the driver of the
middleware does is done here: a wait that would end at or after the deadline ends the call at once,
and the policy's ``cancel`` is called; a call whose attempt outlasts the deadline ends there.

**Waiting** of a call is the time from its start to its end, except the time in which its
successful attempt was being served, round trip included. Queueing at a server, failed attempts,
backoff and holding back a first attempt all count.

A pooled connection that was lost unnoticed fails at once. aiohttp itself sends such a request a
second time, and so it does here for all policies but those that see it (``sees_reused``), as the
middleware takes that resend upon itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any

from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, GiveUp, Policy, Send, Wait

from ..policy import PolicyFactory
from .plan import DROPPED, REFUSED, TIMEOUT, Planned, RandomWorld
from .site import Site

_MAX_WAKES = 10_000
_NEXT, _OUTCOME, _WAKE, _DEADLINE = range(4)


class Running:
    """One call under way: the ``CallView`` of policies."""

    __slots__ = ("attempts", "deadline", "plan", "policy", "started", "state", "wakes")

    def __init__(self, plan: Planned, started: float, policy: Policy) -> None:
        self.plan = plan
        self.policy = policy
        self.started = started
        self.deadline = started + plan.patience
        self.attempts = 0
        self.wakes = 0
        self.state: Any = None


@dataclass(slots=True)
class Tally:
    """What all calls of a run came to: sums. ``waiting`` in s, ``share`` in patiences."""

    calls: int = 0
    succeeded: int = 0
    attempts: int = 0
    waiting: float = 0.0
    share: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)


def _failure(error: str, latency: float, said: float | None) -> AttemptOutcome:
    silent = error == TIMEOUT
    return AttemptOutcome(
        False,
        error,
        latency,
        silent or error == REFUSED,
        silent or error in ("503", "504"),
        error == "429" or said is not None,
        said,
    )


class Simulation:
    """One world, to be run once with one kind of policy."""

    def __init__(self, world: RandomWorld) -> None:
        self.world = world
        self.sites = [Site(plan, world.attempt_timeout) for plan in world.sites]
        self.now = 0.0
        self.tally = Tally()
        self._sees_reused = False
        self._heap: list[tuple[float, int, int, Any, AttemptOutcome | None, float]] = []
        self._sequence = 0

    def clock(self) -> float:
        """Return the simulated time, s."""
        return self.now

    def run(self, make: Callable[[int, int], Policy], sees_reused: bool = False) -> Tally:
        """Run to the end of the last call. ``make`` gives the policy of a client at a site."""
        self._sees_reused = sees_reused
        policies: dict[tuple[int, int], Policy] = {}
        heap, first = self._heap, self.world.first
        position, total = 0, len(first)
        due = first[0].time if total else math.inf
        while position < total or heap:
            plan: Planned | None = None
            if due <= (heap[0][0] if heap else math.inf):
                plan, now = first[position], due
                position += 1
                due = first[position].time if position < total else math.inf
            else:
                now, _, kind, call, outcome, served = heappop(heap)
                if kind == _NEXT:
                    plan = call
            self.now = now
            if plan is not None:
                who = plan.client, plan.site
                policy = policies.get(who)
                if policy is None:
                    policy = policies[who] = make(*who)
                call = Running(plan, now, policy)
                self._act(call, policy.arrive(now, call))
            elif kind == _WAKE:
                self._act(call, call.policy.wake(now, call))
            elif kind == _DEADLINE:
                call.policy.cancel(now, call)
                self._finish(call, False, now - call.started, "deadline")
            else:
                assert outcome is not None
                action = call.policy.outcome(now, call, outcome)
                if outcome.ok:
                    self._finish(call, True, now - call.started - served, "")
                else:
                    self._act(call, action)
        return self.tally

    def _act(self, call: Running, action: Action) -> None:
        now = self.now
        if isinstance(action, Send):
            self._send(call)
        elif isinstance(action, Wait):
            seconds = action.seconds
            if not seconds >= 0.0:
                raise ValueError(f"seconds must be >= 0, got {seconds}")
            call.wakes += 1
            if call.wakes > _MAX_WAKES:
                raise RuntimeError(f"a call waits again and again: {self.world.description}")
            if now + seconds >= call.deadline:
                call.policy.cancel(now, call)
                self._finish(call, False, now - call.started, "deadline")
            else:
                self._push(now + seconds, _WAKE, call, None, 0.0)
        elif isinstance(action, GiveUp):
            self._finish(call, False, now - call.started, action.reason)
        else:
            raise TypeError(f"a policy must answer with Send, Wait or GiveUp, got {action!r}")

    def _send(self, call: Running) -> None:
        now, plan = self.now, call.plan
        number = call.attempts
        call.attempts = number + 1
        self.tally.attempts += 1
        site = self.sites[plan.site]
        pooled = site.plan.stale or site.plan.idle
        if pooled and site.dead_connection(now, plan, number):
            lost = True
            if not self._sees_reused:
                # aiohttp's own second request.
                self.tally.attempts += 1
                lost = site.dead_connection(now, plan, number + 1)
            if lost:
                spent = 2 * site.plan.latency
                outcome = AttemptOutcome(False, DROPPED, spent, reused_connection=True)
                self._end_at(now + spent, call, outcome, 0.0)
                return
        error, took, served, said = site.attempt(now, plan, number, call.deadline)
        outcome = _failure(error, took, said) if error else AttemptOutcome(True, "", took)
        self._end_at(now + took, call, outcome, served)

    def _end_at(self, end: float, call: Running, outcome: AttemptOutcome, served: float) -> None:
        if end > call.deadline:
            self._push(call.deadline, _DEADLINE, call, outcome, 0.0)
        else:
            self._push(end, _OUTCOME, call, outcome, served)

    def _push(
        self, time: float, kind: int, what: Any, outcome: AttemptOutcome | None, served: float
    ) -> None:
        self._sequence += 1
        heappush(self._heap, (time, self._sequence, kind, what, outcome, served))

    def _finish(self, call: Running, ok: bool, waiting: float, reason: str) -> None:
        tally, plan = self.tally, call.plan
        tally.calls += 1
        if ok:
            tally.succeeded += 1
        # The subtraction of equal times can leave -1e-17.
        if waiting > 0.0:
            tally.waiting += waiting
            tally.share += waiting / plan.patience
        if reason:
            tally.reasons[reason] = tally.reasons.get(reason, 0) + 1
        if plan.next is not None:
            self._push(self.now + plan.next.time, _NEXT, plan.next, None, 0.0)


def simulate(world: RandomWorld, factory: PolicyFactory) -> Tally:
    """Run ``world`` with one policy of ``factory`` per client and origin.

    Each one's random source depends on the world's number, the client and the origin alone.
    """
    simulation = Simulation(world)

    def make(client: int, site: int) -> Policy:
        source = random.Random((world.number * 2_000 + client) * 16 + site)
        return factory(simulation.clock, source.random)

    return simulation.run(make, getattr(factory, "sees_reused", False))
