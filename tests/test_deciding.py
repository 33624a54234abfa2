"""The rules, driven on a fake clock: what is retried, what is held, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveStrategy
from aiohttp_adaptive_retry.budget import RetryBudget
from aiohttp_adaptive_retry.deciding import MOST_HELD
from aiohttp_adaptive_retry.trial import Decision, Evidence, Trial

from .kit.clock import Clock

REFUSED = Evidence(absent=True)
TIMED_OUT = Evidence(absent=True, overload=True)
ANSWERED = Evidence()
OVERLOADED = Evidence(overload=True)


@dataclass
class Bench:
    """A strategy, its clock, and chance as it is asked for."""

    fields: dict[str, Any] = field(default_factory=dict)
    chance: float = 0.5

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.strategy = AdaptiveStrategy(
            clock=self.clock, random=lambda: self.chance, **self.fields
        )

    def ok(self, count: int = 1, latency: float = 0.05, trial: Trial | None = None) -> None:
        for _ in range(count):
            self.clock.now += 0.1
            self.strategy.succeeded(self.clock.now, latency, trial)

    def fail(
        self,
        evidence: Evidence = REFUSED,
        trial: Trial | None = None,
        *,
        code: int = 1,
        remaining: float | None = None,
        patient: bool = True,
    ) -> Decision:
        return self.strategy.failed(
            self.clock.now,
            code,
            Trial() if trial is None else trial,
            evidence,
            remaining=remaining,
            patient=patient,
        )

    def down(self) -> None:
        """Bring an outage about."""
        self.ok(30)
        for _ in range(5):
            self.clock.now += 0.01
            self.fail(ANSWERED, trial := Trial())
            self.strategy.abandoned(trial)
        assert self.strategy.health.state(self.clock.now) == "down"

    def wait(self, decision: Decision, trial: Trial, **more: Any) -> Decision:
        self.clock.now += decision.delay
        return self.strategy.woken(self.clock.now, trial, **more)


def test_a_single_refusal_may_be_a_blip_and_is_tried_again_soon() -> None:
    """The first failure of a kind is retried at the usual pace, the next ones wait for news."""
    bench = Bench()
    bench.ok(30)
    first = bench.fail()
    assert (first.reason, first.hold, first.delay) == (None, False, 0.1)
    assert bench.fail().hold
    assert Bench().fail(TIMED_OUT).hold


def test_a_held_call_goes_when_another_succeeds() -> None:
    """No token is needed to wait; one is taken for the retry, and comes back with one more."""
    bench = Bench()
    bench.down()
    tokens = bench.strategy.budget.tokens
    trial = Trial()
    decision = bench.fail(trial=trial)
    for _ in range(5):
        assert decision.hold
        decision = bench.wait(decision, trial)
    assert bench.strategy.budget.tokens == tokens
    bench.ok()
    for _ in range(20):
        decision = bench.wait(decision, trial)
        if not decision.hold:
            break
    assert decision == Decision(0.0, None)
    assert trial.reserved
    assert bench.strategy.health.held == 0
    held_down = bench.strategy.budget.tokens
    bench.ok(trial=trial)
    assert bench.strategy.budget.tokens >= min(20.0, held_down + 1)


def test_a_call_nobody_brings_news_for_probes_and_then_gives_up() -> None:
    """The only caller finds out after four and a half seconds, and again later; it costs two."""
    bench = Bench({"max_attempts": 10})
    trial, waited, sent = Trial(), 0.0, 0
    decision = bench.fail(TIMED_OUT, trial)
    while decision.reason is None:
        waited += decision.delay
        if decision.hold:
            decision = bench.wait(decision, trial)
            continue
        sent += 1
        decision = bench.fail(TIMED_OUT, trial)
    assert decision.reason == "origin_down"
    assert sent == 2
    assert 9.0 <= waited <= 12.5


def test_a_call_that_cannot_be_held_does_not_knock_at_a_closed_door() -> None:
    """Where its answer can't be kept it is given up at once while the origin is down."""
    bench = Bench()
    bench.down()
    assert bench.fail(patient=False).reason == "origin_down"
    bench = Bench({"hold_cap": 0})
    bench.down()
    assert bench.fail(patient=True).reason == "origin_down"


def test_those_held_for_congestion_find_out_where_nobody_else_calls() -> None:
    """The last calls of a burst are sent one by one, and what they find ends the congestion."""
    bench = Bench({"admission": True}, chance=0.99)
    bench.ok(100)
    bench.ok(40, latency=0.5)
    health = bench.strategy.health
    assert health.congested
    assert health.flow < 1.0
    health.last_sent = bench.clock.now
    due: dict[Trial, float] = {}
    for trial in (Trial() for _ in range(8)):
        decision = bench.strategy.admit(bench.clock.now, trial)
        assert decision.hold
        due[trial] = bench.clock.now + decision.delay
    sent = 0
    while due:
        trial = min(due, key=due.__getitem__)
        bench.clock.now = due.pop(trial)
        decision = bench.strategy.woken(bench.clock.now, trial)
        assert decision.reason is None
        if decision.hold:
            due[trial] = bench.clock.now + decision.delay
        else:
            sent += 1
            bench.strategy.succeeded(bench.clock.now, 0.02, trial)
    assert sent == 8
    assert health.held == 0


def test_a_crowd_that_is_held_asks_no_more_often_than_a_few() -> None:
    """A thousand calls ask four thousand times a second at most, and ten ask twenty times each."""
    for count, longest in ((10, 0.05), (MOST_HELD - 1, 0.25)):
        bench = Bench()
        bench.down()
        for _ in range(count):
            assert bench.fail().hold
        trial = Trial()
        decision = bench.fail(trial=trial)
        assert decision.hold
        assert decision.delay == pytest.approx(longest, rel=0.02)


def test_old_trouble_is_not_waited_for() -> None:
    """An outage of forty seconds will hardly end within a caller's patience."""
    bench = Bench()
    bench.down()
    for _ in range(19):
        bench.clock.now += 2
        assert bench.fail().hold
    bench.clock.now += 1
    assert bench.fail().hold
    bench.clock.now += 2
    assert bench.fail().reason == "origin_down"


@pytest.mark.parametrize("evidence", [OVERLOADED, TIMED_OUT])
def test_overload_is_left_alone(evidence: Evidence) -> None:
    """While successes are slow, what a flooded origin does is not retried; other errors are."""
    bench = Bench()
    bench.ok(100)
    bench.ok(40, latency=0.2)
    assert bench.fail(evidence).reason == "congested"
    bench.ok()
    assert bench.fail(ANSWERED).reason is None


def perhaps_congested() -> Bench:
    """A bench of an origin that gives many 503, and is a little slower than usual for now."""
    bench = Bench()
    bench.ok(200)
    while not bench.strategy.health.congested:
        bench.ok(3, latency=0.08)
        bench.fail(OVERLOADED, trial := Trial())
        bench.strategy.abandoned(trial)
    assert not bench.strategy.health.flooded
    return bench


@pytest.mark.parametrize("evidence", [OVERLOADED, TIMED_OUT])
def test_what_may_be_chance_is_given_a_moment_to_pass(evidence: Evidence) -> None:
    """Such a call waits for a second and a half, without a token, and then gives up."""
    bench = perhaps_congested()
    assert bench.fail(evidence, patient=False).reason == "congested"
    trial = Trial()
    decision = bench.fail(evidence, trial)
    waited = 0.0
    while decision.reason is None:
        assert decision.hold
        assert not trial.reserved
        waited += decision.delay
        decision = bench.wait(decision, trial)
    assert decision.reason == "congested"
    assert 1.5 <= waited <= 2.0
    assert bench.strategy.health.held == 0


def test_overload_that_passes_at_once_was_none() -> None:
    """As soon as successes are as fast as usual the call is retried."""
    bench = perhaps_congested()
    trial = Trial()
    decision = bench.fail(OVERLOADED, trial)
    assert decision.hold
    while bench.strategy.health.congested:
        bench.ok(latency=0.02)
    bench.clock.now = trial.failed_at
    decision = bench.wait(decision, trial)
    assert decision == Decision(0.0, None)
    assert trial.reserved


def test_a_wait_for_relief_ends_though_the_clock_stands_still() -> None:
    """No clock that breaks makes a call wait for ever."""
    bench = perhaps_congested()
    trial, waited = Trial(), 0.0
    decision = bench.fail(OVERLOADED, trial)
    while decision.hold:
        waited += decision.delay
        decision = bench.strategy.woken(bench.clock.now, trial)
    assert decision.reason == "congested"
    assert 12.0 <= waited <= 13.0


def test_what_never_mends_is_not_retried() -> None:
    """Retries of one type that fail while others succeed are learnt to be hopeless."""
    bench = Bench({"budget_initial": 20})
    for _ in range(6):
        trial = Trial()
        bench.fail(ANSWERED, trial)
        bench.ok()
        bench.fail(ANSWERED, trial)
    assert bench.fail(ANSWERED).reason == "unpromising"
    assert bench.fail(ANSWERED, code=2).reason is None
    bench.chance = 0.001
    assert bench.fail(ANSWERED).reason is None


def test_a_limiter_is_waited_for_with_a_token_in_hand() -> None:
    """The moment it names is when the retry goes, or later if others are told later."""
    bench = Bench()
    trial = Trial()
    decision = bench.fail(Evidence(limited=True, retry_after=2.0), trial)
    assert decision.hold
    assert 2.0 <= decision.delay <= 2.5
    assert trial.reserved
    bench.clock.now += 1
    bench.fail(Evidence(limited=True, retry_after=5.0))
    bench.clock.now -= 1
    decision = bench.wait(decision, trial)
    assert decision.hold
    decision = bench.wait(decision, trial)
    assert decision == Decision(0.0, None)
    assert bench.clock.now >= 1000.0 + 6.0


def test_a_limited_origin_is_not_down() -> None:
    """However many calls it turns away: it answers."""
    bench = Bench({"budget_initial": 20})
    for _ in range(20):
        bench.fail(Evidence(limited=True, retry_after=2.0))
    assert bench.strategy.health.state(bench.clock.now) == "limited"


def test_a_clock_set_back_shuts_no_door() -> None:
    """A limit that seems to end in a day is none; a probe that seems to be yet to come is over."""
    bench = Bench({"admission": True})
    bench.fail(Evidence(limited=True, retry_after=5.0))
    assert bench.strategy.admit(bench.clock.now, Trial()).hold
    bench.clock.now -= 86_400
    assert bench.strategy.admit(bench.clock.now, Trial()) == Decision(0.0, None)
    bench = Bench({"admission": True})
    bench.down()
    assert not bench.strategy.admit(bench.clock.now + 5, Trial()).hold
    assert not bench.strategy.admit(bench.clock.now - 86_400, Trial()).hold


def test_a_sleep_that_does_not_move_the_clock_ends_all_the_same() -> None:
    """A hold is bounded by what was asked for, not by what the clock says."""
    bench = Bench()
    bench.down()
    trial, rounds = Trial(), 0
    decision = bench.fail(trial=trial)
    while decision.hold and rounds < 10_000:
        decision = bench.strategy.woken(bench.clock.now, trial)
        rounds += 1
    assert decision.reason == "origin_down"
    assert trial.held == pytest.approx(12.0, abs=1.0)


def test_no_more_than_a_thousand_are_held() -> None:
    """The next call is given up: what waits holds memory."""
    bench = Bench()
    bench.down()
    trials = [Trial() for _ in range(MOST_HELD + 1)]
    decisions = [bench.fail(trial=trial) for trial in trials]
    assert [decision.hold for decision in decisions] == [True] * MOST_HELD + [False]
    assert decisions[-1].reason == "origin_down"
    for trial in trials:
        bench.strategy.abandoned(trial)
        bench.strategy.abandoned(trial)
    assert bench.strategy.health.held == 0


def test_with_admission_one_probe_at_a_time_goes_to_an_origin_that_is_down() -> None:
    """The others wait, and all go, at a pace, when it is back."""
    bench = Bench({"admission": True})
    assert bench.strategy.admit(bench.clock.now, Trial()) == Decision(0.0, None)
    bench.down()
    bench.clock.now += 5
    trials = [Trial() for _ in range(10)]
    decisions = [bench.strategy.admit(bench.clock.now, trial) for trial in trials]
    assert [decision.hold for decision in decisions] == [False] + [True] * 9
    bench.ok(latency=0.05, trial=trials[0])
    gone, clock = 0, bench.clock
    waiting = trials[1:]
    for _ in range(200):
        clock.now += 0.05
        left = []
        for trial in waiting:
            decision = bench.strategy.woken(clock.now, trial)
            if decision.hold:
                left.append(trial)
            else:
                assert decision.reason is None
                gone += 1
                bench.ok(trial=trial)
        waiting = left
    assert gone == 9
    assert bench.strategy.health.held == 0


def test_with_admission_a_call_out_of_time_is_refused() -> None:
    """What can't be sent before its deadline is not sent."""
    bench = Bench({"admission": True})
    bench.down()
    bench.strategy.admit(bench.clock.now + 1, Trial())
    assert bench.strategy.admit(bench.clock.now + 1, Trial(), 0.01).reason == "deadline"


class Counting(RetryBudget):
    """Counts what goes in and out."""

    __slots__ = ("given", "taken")
    given: float
    taken: int

    def deposit(self, successes: int = 1) -> None:
        self.given += self.earned * successes
        super().deposit(successes)

    def reward(self) -> None:
        self.given += 1.0
        super().reward()

    def refund(self) -> None:
        self.taken -= 1
        super().refund()

    def try_withdraw(self, now: float) -> bool:
        got = super().try_withdraw(now)
        self.taken += got
        return got


STEPS = st.tuples(
    st.sampled_from(["call", "fail", "ok", "wake", "abandon", "wait"]),
    st.integers(0, 11),
    st.sampled_from([REFUSED, TIMED_OUT, ANSWERED, OVERLOADED, Evidence(limited=True)])
    | st.floats(0.1, 40.0).map(lambda s: Evidence(limited=True, retry_after=s)),
    st.floats(0.0, 3.0),
)


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(STEPS, max_size=150),
    admission=st.booleans(),
    initial=st.floats(0.0, 5.0),
    chance=st.floats(0.0, 1.0),
    remaining=st.none() | st.floats(0.0, 20.0),
)
def test_nothing_is_retried_without_a_token_and_no_token_is_lost(
    steps: list[tuple[str, int, Evidence, float]],
    admission: bool,
    initial: float,
    chance: float,
    remaining: float | None,
) -> None:
    """Twelve calls at once, in any order: each retry has its token, each token has its end."""
    bench = Bench({"admission": admission, "budget_initial": initial}, chance)
    strategy, clock = bench.strategy, bench.clock
    budget = Counting(strategy.config, clock.now)
    budget.given, budget.taken = 0.0, 0
    strategy.budget = budget
    # A call is a trial and what it waits for: "sent", a decision to hold, or a retry to send.
    calls: dict[int, tuple[Trial, str | Decision]] = {}
    retries = wasted = mended = 0
    for step, number, evidence, seconds in steps:
        trial, at = calls.get(number, (None, None))
        if step == "wait":
            clock.now += seconds
        elif step == "call" and trial is None:
            trial = Trial()
            decision = (
                strategy.admit(clock.now, trial, remaining) if admission else Decision(0.0, None)
            )
            if decision.reason is None:
                calls[number] = (trial, decision if decision.hold else "sent")
        elif trial is None:
            continue
        elif step == "abandon":
            strategy.abandoned(calls.pop(number)[0])
        elif step in {"fail", "ok"} and at == "sent":
            retried = trial.failures > 0
            if step == "ok":
                mended += retried
                strategy.succeeded(clock.now, seconds, trial)
                del calls[number]
                continue
            wasted += retried
            decision = bench.fail(evidence, trial, remaining=remaining)
            if decision.reason is None:
                calls[number] = (trial, decision)
            else:
                del calls[number]
        elif step == "wake" and isinstance(at, Decision):
            clock.now += at.delay
            decision = strategy.woken(clock.now, trial, remaining) if at.hold else at
            if decision.reason is not None:
                del calls[number]
            elif decision.hold:
                calls[number] = (trial, decision)
            else:
                calls[number] = (trial, "sent")
                retries += trial.failures > 0
        for other, place in calls.values():
            if place == "sent" or (isinstance(place, Decision) and not place.hold):
                assert other.reserved == (other.failures > 0)
        reserved = sum(other.reserved for other, _ in calls.values())
        assert budget.taken == reserved + wasted
        floor = strategy.config.budget_floor * (clock.now - 1000.0)
        assert budget.taken <= initial + budget.given + floor + 1e-6
        assert 0.0 <= budget.balance(clock.now) <= budget.capacity
        held = sum(other.holding for other, _ in calls.values())
        assert strategy.health.held == held
    for trial, _ in calls.values():
        strategy.abandoned(trial)
    assert budget.taken == wasted
    assert strategy.health.held == 0
    assert not math.isnan(budget.tokens)
