"""Calls of one client to one simulated origin, through the driver that ships, on a fake clock."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, GiveUp, Send, Wait

from .bench import REFUSED
from .driving import Call, Driving, Factory, adaptive

#: What an attempt that is sent at some moment comes to, and after how many seconds.
Origin = Callable[[float], tuple[AttemptOutcome, float]]


def refuses(since: float, until: float, latency: float = 0.02) -> Origin:
    """An origin that answers, but refuses connections between two moments."""

    def origin(now: float) -> tuple[AttemptOutcome, float]:
        if since <= now < until:
            return REFUSED, 0.001
        return AttemptOutcome(True), latency

    return origin


@dataclass(frozen=True, eq=False)
class Sent:
    """One retry: of which call, when, and for how many tokens."""

    call: Call
    at: float
    price: float


class Crowd(Driving):
    """Calls that come when they come. Each is sent, held, woken and ended as it is told.

    Args:
        origin: what attempts come to.
        late: seconds by which the next wake is late.
        and_then: called at the end of each call, with whether it succeeded.
    """

    def __init__(
        self,
        origin: Origin,
        factory: Factory = adaptive,
        *,
        late: Callable[[], float] = lambda: 0.0,
        and_then: Callable[[Call, bool], None] = lambda call, ok: None,
        **fields: Any,
    ) -> None:
        super().__init__(factory, **fields)
        self._answers, self._late, self._and_then = origin, late, and_then
        self._number = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.retries: list[Sent] = []
        #: For each call that is over: when it ended, and why it failed ("" if it did not).
        self.ended: dict[Call, tuple[float, str]] = {}
        #: For each call that is under way: whether it is held.
        self.held: dict[Call, bool] = {}

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Let something happen at a moment."""
        heapq.heappush(self._events, (when, next(self._number), what))

    def call(self, when: float, time: float | None = None, is_resend: bool = False) -> None:
        """Let a call begin at a moment, with so much time."""

        def begin() -> None:
            call, action = self.begin(time)
            call.is_resend = is_resend
            self._go(call, action)

        self.at(when, begin)

    def run(self, until: float = float("inf")) -> None:
        """Let everything happen that happens until then."""
        while self._events and self._events[0][0] <= until:
            when, _, what = heapq.heappop(self._events)
            self.clock.now = max(self.clock.now, when)
            what()

    def _go(self, call: Call, action: Action) -> None:
        self.held[call] = isinstance(action, Wait) and not action.committed
        if isinstance(action, Send):
            if call.attempts > 1:
                self.retries.append(Sent(call, self.clock.now, call.state.paid))
            outcome, seconds = self._answers(self.clock.now)
            outcome = outcome._replace(latency=seconds)
            self.at(self.clock.now + seconds, lambda: self._known(call, outcome))
        elif isinstance(action, Wait):
            due = self.clock.now + action.seconds + self._late()
            self.at(due, lambda: self._go(call, self.wake(call)))
        else:
            self._over(call, action)

    def _known(self, call: Call, outcome: AttemptOutcome) -> None:
        action = self.outcome(call, outcome)
        if outcome.ok:
            self._over(call, action)
        else:
            self._go(call, action)

    def _over(self, call: Call, action: Action) -> None:
        del self.held[call]
        why = action.reason if isinstance(action, GiveUp) else ""
        self.ended[call] = self.clock.now, why
        self._and_then(call, not why)

    def assert_nothing_left(self) -> None:
        """Nothing is reserved, held or under way."""
        assert self.faults.count == 0
        assert self.policy.parked_calls == 0
        assert self.adaptive.callers.pending == 0
        assert self.origin.in_flight == 0
        assert all(
            call.state is None or not getattr(call.state, "paid", 0.0) for call in self.ended
        )
