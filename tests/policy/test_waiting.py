"""Memory is looked at while calls wait, and those that wait are bounded over all origins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_adaptive_retry._call import Call
from aiohttp_adaptive_retry._origin.waiting import WaitingCalls
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, GiveUp, Send, Wait

from .driving import Driving, adaptive

REFUSED = AttemptOutcome(False, "ClientConnectorError", no_response=True)
ANSWERED = AttemptOutcome(False, "500", 0.01)
PATIENT = {"hold_cap": 60.0, "hold_share": 0.7, "max_attempts": 100, "budget_initial": 20.0}


class Sized(Call):
    """A call that keeps so many bytes."""

    size = 0

    def kept_bytes(self) -> int:
        return self.size


class Site(Driving):
    """Calls of given sizes to any origin, in a container as full as a test says."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(adaptive, chance=0.5, **(PATIENT | fields))
        self.open: list[Sized] = []
        self.looks = 0
        self.driver._guard._fullness = self._looked

    def _looked(self) -> float:
        self.looks += 1
        return self.fullness

    @property
    def waiting(self) -> WaitingCalls:
        return self.driver._waiting

    def fail(self, size: int = 0, host: str = "origin", outcome: AttemptOutcome = REFUSED) -> Any:
        """A new call of that size fails: what is to be done."""
        origin = self.registry.find(URL(f"http://{host}.example/"))
        now = self.clock.now
        origin.begun += 1
        call = Sized(origin, now, now)
        call.size = size
        call.deadline = now + 600
        self.driver.arrive(now, call)
        self.driver.sent(now, call)
        self.open.append(call)
        return call, self.decided(call, self.driver.outcome(now, call, outcome))

    def decided(self, call: Sized, action: Action) -> Action:
        """Note what became of a call."""
        if isinstance(action, Send):
            self.driver.sent(self.clock.now, call)
        if call.ended:
            self.open.remove(call)
        return action

    def held(self, count: int) -> list[Sized]:
        """So many calls that are held."""
        calls: list[Sized] = []
        while len(calls) < count:
            call, action = self.fail()
            self.clock.now += 0.01
            if isinstance(action, Wait) and not action.committed:
                calls.append(call)
            elif not call.ended:
                self.driver.cancel(self.clock.now, call)
        return calls


def test_the_container_is_looked_at_while_all_calls_wait() -> None:
    """No call ends for seconds, but failures and wakings look, once a second at most."""
    site = Site()
    calls = site.held(20)
    site.looks = 0
    for step in range(100):
        site.clock.now += 0.1
        site.driver.wake(site.clock.now, calls[step % len(calls)])
        site.fail()
    assert 9 <= site.looks <= 11
    site.looks = 0
    for _ in range(100):
        site.clock.now += 0.1
        site.fail()
    assert 9 <= site.looks <= 11


def test_pressure_of_the_container_ends_holds() -> None:
    """A held call ends as it asks again; its place is free, and the metrics show the pressure."""
    site = Site()
    calls = site.held(20)
    site.fullness = 0.95
    site.clock.now += 1.0
    for call in calls:
        assert site.driver.wake(site.clock.now, call) == GiveUp("memory_pressure")
        assert call.ended
    guard = site.driver._guard
    assert (guard.pressure, guard.container_pressure) == (True, True)
    assert site.policy.parked_calls == site.waiting.count == 0
    assert site.counters.suppressed["memory_pressure"] == len(calls)
    # And it is over when there is room again.
    site.fullness = 0.5
    site.clock.now += 1.0
    assert site.fail()[1] != GiveUp("memory_pressure")
    assert not guard.pressure


def test_growth_of_the_process_is_seen_while_calls_wait() -> None:
    """Windows are cut at once, and the gauge shows what is resident now; holds go on."""
    site = Site()
    (call,) = site.held(1)
    guard = site.driver._guard
    guard._resident = lambda: 500 * 1024 * 1024
    site.clock.now += 1.0
    assert not isinstance(site.driver.wake(site.clock.now, call), GiveUp)
    assert guard.pressure
    assert guard.usage == 500 * 1024 * 1024
    assert site.registry.counters.cleanups["memory"] == 1


def test_a_call_whose_answer_was_let_go_of_is_sent_under_pressure() -> None:
    """It can't end without another attempt, so pressure does not end it."""
    site = Site()
    call, action = site.fail(outcome=ANSWERED)
    assert isinstance(action, Wait)
    assert call.must_send
    site.fullness = 0.95
    site.clock.now += 2.0
    assert isinstance(site.driver.wake(site.clock.now, call), Send)


def test_an_unsent_call_is_refused_under_pressure() -> None:
    """With admission a call that waits for its first attempt holds its body too."""
    site = Site(admission=True)
    site.held(5)
    call, action = site.begin(600.0)
    while isinstance(action, Send):
        site.outcome(call, REFUSED)
        site.cancel(call)
        call, action = site.begin(600.0)
    assert isinstance(action, Wait)
    site.fullness = 0.95
    site.clock.now += 1.0
    assert site.wake(call) == GiveUp("memory_pressure")
    assert site.counters.refused == 1


@pytest.mark.parametrize("hosts", [1, 5])
def test_the_bounds_are_over_all_origins(hosts: int) -> None:
    """As many calls wait as may, whichever origins they are for; the others end at once."""
    site = Site(max_held_calls=10)
    reasons = [site.fail(host=f"h{number % hosts}")[1] for number in range(40)]
    assert site.waiting.count == 10
    assert GiveUp("memory_pressure") in reasons
    site = Site(max_held_mb=1)
    for number in range(40):
        site.fail(300_000, f"h{number % hosts}")
    assert site.waiting.count == 3


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["fail", "answer", "wake", "cancel", "succeed", "full", "empty"]),
            st.integers(0, 1_000_000),
        ),
        max_size=120,
    )
)
def test_in_any_order_what_waits_is_counted_and_bounded(steps: list[tuple[str, int]]) -> None:
    """Failures, wakings, cancellations, successes and pressure: the sums are exact throughout."""
    site = Site(max_held_calls=6, max_held_mb=2)
    for kind, number in steps:
        site.clock.now += number % 7 / 10
        call = site.open[number % len(site.open)] if site.open else None
        if kind in ("fail", "answer"):
            site.fail(number, f"h{number % 3}", REFUSED if kind == "fail" else ANSWERED)
        elif kind in ("full", "empty"):
            site.fullness = 0.95 if kind == "full" else 0.1
        elif call is not None and kind == "cancel":
            site.driver.cancel(site.clock.now, call)
            site.open.remove(call)
        elif call is not None and call.waits_with is None:
            ok = kind == "succeed"
            outcome = AttemptOutcome(True, latency=0.01) if ok else REFUSED
            site.decided(call, site.driver.outcome(site.clock.now, call, outcome))
        elif call is not None:
            site.decided(call, site.driver.wake(site.clock.now, call))
        waits = [call.waits_with for call in site.open if call.waits_with is not None]
        assert (site.waiting.count, site.waiting.bytes) == (len(waits), sum(waits))
        assert site.waiting.count <= 6
        assert site.waiting.bytes <= 2 * 1024 * 1024 or site.waiting.count == 1
    for call in site.open:
        site.driver.cancel(site.clock.now, call)
    assert (site.waiting.count, site.waiting.bytes, site.faults.count) == (0, 0, 0)
