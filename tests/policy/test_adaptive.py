"""The rules, driven on a fake clock: what is retried, what is parked, and what it costs."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry._policy.adaptive import MOST_PARKED
from aiohttp_adaptive_retry._policy.cost import RetryBudget
from aiohttp_adaptive_retry._policy.health import SUSPICIOUS
from aiohttp_adaptive_retry.policy import (
    REASONS,
    SEND,
    Action,
    AttemptOutcome,
    GiveUp,
    Send,
    Wait,
)

from .bench import ANSWERED, OVERLOADED, REFUSED, TIMED_OUT, Bench, View, limited, parks


def test_a_single_refusal_may_be_a_blip_and_is_tried_again_soon() -> None:
    """The first failure of a kind is retried at the usual pace, the next ones wait for news."""
    bench = Bench()
    bench.ok(30)
    assert bench.fail() == Wait(0.1, committed=True)
    assert parks(bench.fail())
    assert parks(Bench().fail(TIMED_OUT))


def test_a_parked_call_goes_when_another_succeeds() -> None:
    """No token is needed to wait; one is taken for the retry, and comes back with one more."""
    bench = Bench()
    bench.down()
    tokens = bench.tokens
    call = View()
    action = bench.fail(call=call)
    for _ in range(5):
        assert parks(action)
        assert bench.policy.parked_calls == 1
        action = bench.wait(action, call)
    floor = bench.config.budget_floor
    assert tokens <= bench.tokens <= tokens + floor
    bench.ok()
    for _ in range(20):
        before = bench.tokens
        action = bench.wait(action, call)
        if not parks(action):
            break
    assert action is SEND
    assert bench.tokens == pytest.approx(before - 1, abs=floor)
    assert bench.policy.parked_calls == 0
    left = bench.tokens
    bench.ok(call=call)
    assert bench.tokens >= min(20.0, left + 2)


def test_a_call_nobody_brings_news_for_probes_and_then_gives_up() -> None:
    """The only caller finds out after four and a half seconds, and again later; it costs two."""
    bench = Bench()
    call, waited, sent = View(), 0.0, 0
    action = bench.fail(TIMED_OUT, call)
    while not isinstance(action, GiveUp):
        if isinstance(action, Wait):
            waited += action.seconds
            action = bench.wait(action, call)
            continue
        sent += 1
        action = bench.fail(TIMED_OUT, call)
    assert action.reason == "origin_down"
    assert sent == 2
    assert 9.0 <= waited <= 12.5


@pytest.mark.parametrize("hold_cap", [12, 0])
def test_a_call_that_cannot_wait_does_not_knock_at_a_closed_door(hold_cap: int) -> None:
    """Where its answer can't be kept it is given up at once while the origin is down."""
    bench = Bench({"hold_cap": hold_cap})
    bench.down()
    outcome = REFUSED._replace(can_wait=hold_cap == 0)
    assert bench.fail(outcome) == GiveUp("origin_down")


def test_a_crowd_that_is_parked_asks_no_more_often_than_a_few() -> None:
    """A thousand calls ask four thousand times a second at most, and ten ask twenty times each."""
    for count, longest in ((10, 0.05), (MOST_PARKED - 1, 0.25)):
        bench = Bench()
        bench.down()
        for _ in range(count):
            assert parks(bench.fail())
        action = bench.fail()
        assert isinstance(action, Wait)
        assert not action.committed
        assert action.seconds == pytest.approx(longest, rel=0.02)


def test_old_trouble_is_not_waited_for() -> None:
    """An outage of forty seconds will hardly end within a caller's patience."""
    bench = Bench()
    bench.down()
    for _ in range(19):
        bench.clock.now += 2
        assert parks(bench.fail())
    bench.clock.now += 1
    assert parks(bench.fail())
    bench.clock.now += 2
    assert bench.fail() == GiveUp("origin_down")


@pytest.mark.parametrize("outcome", [OVERLOADED, TIMED_OUT])
def test_overload_is_left_alone(outcome: AttemptOutcome) -> None:
    """While successes are slow, errors that speak of overload are not retried; others are."""
    bench = Bench()
    bench.ok(100)
    bench.ok(40, latency=0.2)
    assert bench.fail(outcome) == GiveUp("congested")
    bench.ok()
    assert isinstance(bench.fail(ANSWERED), Wait)


def perhaps_congested() -> Bench:
    """A bench of an origin that gives many 503, and is a little slower than usual for now."""
    bench = Bench()
    bench.ok(200)
    while bench.state != "congested":
        bench.ok(3, latency=0.08)
        bench.fail(OVERLOADED, call := View())
        bench.policy.cancel(bench.clock.now, call)
    return bench


@pytest.mark.parametrize("outcome", [OVERLOADED, TIMED_OUT])
def test_what_may_be_chance_is_given_a_moment_to_pass(outcome: AttemptOutcome) -> None:
    """Such a call waits for a second and a half, without a token, and then gives up."""
    bench = perhaps_congested()
    assert bench.fail(outcome._replace(can_wait=False)) == GiveUp("congested")
    call, waited, tokens = View(), 0.0, bench.tokens
    action = bench.fail(outcome, call)
    while isinstance(action, Wait):
        assert not action.committed
        assert bench.tokens >= tokens
        waited += action.seconds
        action = bench.wait(action, call)
    assert action == GiveUp("congested")
    assert 1.5 <= waited <= 2.0
    assert bench.policy.parked_calls == 0


def test_overload_that_passes_at_once_was_none() -> None:
    """As soon as successes are as fast as usual the call is retried."""
    bench = perhaps_congested()
    call = View()
    action = bench.fail(OVERLOADED, call)
    assert parks(action)
    asked_at = bench.clock.now
    while bench.state == "congested":
        bench.ok(latency=0.02)
    tokens = bench.tokens
    bench.clock.now = asked_at
    assert bench.wait(action, call) is SEND
    assert bench.tokens == pytest.approx(tokens - 1, abs=0.1)


def test_a_wait_for_relief_ends_though_the_clock_stands_still() -> None:
    """No clock that breaks makes a call wait for ever."""
    bench = perhaps_congested()
    call, waited = View(), 0.0
    action = bench.fail(OVERLOADED, call)
    while isinstance(action, Wait):
        waited += action.seconds
        action = bench.policy.wake(bench.clock.now, call)
    assert action == GiveUp("congested")
    assert 12.0 <= waited <= 13.0


def test_what_never_mends_is_not_retried() -> None:
    """Retries of one type that fail while others succeed are learnt to be hopeless."""
    bench = Bench({"budget_initial": 20})
    for _ in range(6):
        call = View()
        bench.fail(ANSWERED, call)
        bench.ok()
        bench.fail(ANSWERED, call)
    assert bench.fail(ANSWERED) == GiveUp("unpromising")
    assert isinstance(bench.fail(ANSWERED._replace(error_type="502")), Wait)
    bench.chance = 0.001
    assert isinstance(bench.fail(ANSWERED), Wait)


def test_a_limiter_is_waited_for_with_a_token_in_hand() -> None:
    """The moment it names is when the retry goes, or later if others are told later."""
    bench = Bench()
    call, tokens = View(), bench.tokens
    action = bench.fail(limited(2.0), call)
    assert isinstance(action, Wait)
    assert parks(action)
    assert 2.0 <= action.seconds <= 2.5
    assert bench.tokens == tokens - 1
    bench.clock.now += 1
    bench.fail(limited(5.0))
    bench.clock.now -= 1
    action = bench.wait(action, call)
    assert parks(action)
    tokens = bench.tokens
    assert bench.wait(action, call) is SEND
    # It had its token before the wait, and takes no second one.
    assert bench.tokens >= tokens
    assert bench.clock.now >= 1000.0 + 6.0


@pytest.mark.parametrize(("remaining", "reason"), [(10.0, "deadline"), (None, "limited")])
def test_a_limit_that_moves_away_ends_the_wait_and_frees_the_token(
    remaining: float | None, reason: str
) -> None:
    """A call that waits is told of a longer limit when it wakes, and may have to give up."""
    bench = Bench({"budget_floor": 0})
    tokens = bench.tokens
    call = View(deadline=None if remaining is None else bench.clock.now + remaining)
    action = bench.fail(limited(2.0), call)
    assert bench.tokens == tokens - 1
    bench.fail(limited(30.0), other := View())
    bench.policy.cancel(bench.clock.now, other)
    assert bench.wait(action, call) == GiveUp(reason)
    assert bench.tokens == tokens
    assert bench.policy.parked_calls == 0


def test_a_limited_origin_is_not_down() -> None:
    """However many calls it turns away: it answers."""
    bench = Bench({"budget_initial": 20})
    for _ in range(20):
        bench.fail(limited(2.0))
    assert bench.state == "limited"


def test_a_sleep_that_does_not_move_the_clock_ends_all_the_same() -> None:
    """Parking is bounded by what was asked for, not by what the clock says."""
    bench = Bench()
    bench.down()
    call, rounds, waited = View(), 0, 0.0
    action = bench.fail(call=call)
    while isinstance(action, Wait) and rounds < 10_000:
        waited += action.seconds
        action = bench.policy.wake(bench.clock.now, call)
        rounds += 1
    assert action == GiveUp("origin_down")
    assert waited == pytest.approx(12.0, abs=1.0)


def test_no_more_than_a_thousand_are_parked() -> None:
    """The next call is given up, because what waits holds memory. Cancelling twice does no harm."""
    bench = Bench()
    bench.down()
    calls = [View() for _ in range(MOST_PARKED + 1)]
    actions = [bench.fail(call=call) for call in calls]
    assert [parks(action) for action in actions] == [True] * MOST_PARKED + [False]
    assert actions[-1] == GiveUp("origin_down")
    for call in calls:
        bench.policy.cancel(bench.clock.now, call)
        bench.policy.cancel(bench.clock.now, call)
    assert bench.policy.parked_calls == 0


def test_decisions_about_time() -> None:
    """A wait that can't end before the deadline, or is longer than permitted, is not begun."""
    bench = Bench({"retry_after_cap": 10.0})
    tokens, now = bench.tokens, bench.clock.now

    def failed(retry_after: float, remaining: float | None = None) -> Action:
        deadline = None if remaining is None else now + remaining
        outcome = ANSWERED._replace(retry_after=retry_after)
        return bench.fail(outcome, View(deadline=deadline))

    granted = failed(9.9, 20.0)
    assert isinstance(granted, Wait)
    assert granted.committed
    assert 9.9 <= granted.seconds <= 10.0
    assert bench.tokens == tokens - 1
    assert failed(11.0) == GiveUp("retry_after")
    # Both too long and too late: that it is too late is what the caller can do something about.
    assert failed(3600.0, 9.0) == GiveUp("deadline")
    assert failed(5.0, 5.0) == GiveUp("deadline")
    assert bench.tokens == tokens - 1
    fresh = Bench()
    tokens = fresh.tokens
    assert fresh.fail(ANSWERED, View(deadline=fresh.clock.now + 0.05)) == GiveUp("deadline")
    assert fresh.tokens == tokens


def test_a_quiet_origin_need_not_be_told_of_every_success() -> None:
    """Fifty looks a second are enough; any failure asks for the next success at once."""
    bench = Bench()
    bench.policy.succeeded(100.0, 0.05)
    assert bench.policy.quiet_until == pytest.approx(100.02)
    bench.policy.outcome(100.01, View(), ANSWERED)
    assert bench.policy.quiet_until == -math.inf
    bench.policy.succeeded(100.02, 0.05)
    assert bench.policy.quiet_until > 100.02


def test_while_a_call_is_parked_no_time_is_quiet() -> None:
    """The successes that let it go have to be told."""
    bench = Bench()
    bench.down()
    call = View()
    assert parks(bench.fail(call=call))
    bench.ok(3)
    assert bench.policy.quiet_until == -math.inf
    bench.policy.cancel(bench.clock.now, call)
    bench.ok()
    assert bench.policy.quiet_until > bench.clock.now


def test_successes_that_are_told_later_earn_the_same_tokens() -> None:
    """A hundred successes of a quiet time, told one by one or at once, fill the budget alike."""
    one_by_one, at_once = Bench(), Bench()
    for _ in range(100):
        one_by_one.policy.succeeded(1000.0, 0.05)
    assert at_once.policy.tokens_at(1000.0, 100) == pytest.approx(14.0)
    assert one_by_one.tokens == pytest.approx(14.0)
    at_once.policy.catch_up(100)
    assert at_once.tokens == pytest.approx(14.0)


def test_what_cannot_be_sent_again_teaches_and_is_given_up() -> None:
    """Three calls whose request can't be replayed tell an outage; no token is touched."""
    bench = Bench()
    tokens = bench.tokens
    for _ in range(5):
        outcome = REFUSED._replace(replayable=False)
        assert isinstance(bench.fail(outcome), GiveUp)
    assert bench.state == "down"
    assert bench.tokens == tokens


def test_reasons_are_few_and_spelt_as_labels() -> None:
    """Reasons become labels: a closed list of snake case."""
    assert len(REASONS) == len(set(REASONS)) < 20
    assert all(reason == reason.lower() and " " not in reason for reason in REASONS)


class Counting(RetryBudget):
    """Counts what goes in and out."""

    __slots__ = ("given", "taken")
    given: float
    taken: int

    def deposit(self, successes: int = 1) -> None:
        self.given += self._deposit * successes
        super().deposit(successes)

    def reward(self) -> None:
        # The token of the retry that mended, and one that the retry earned.
        self.taken -= 1
        self.given += 1.0
        super().reward()

    def give_back(self) -> None:
        self.taken -= 1
        super().give_back()

    def try_withdraw(self, now: float) -> bool:
        got = super().try_withdraw(now)
        self.taken += got
        return got


@dataclasses.dataclass(eq=False)
class Under:
    """A call under way, and what it waits for."""

    view: View
    at: Action
    failures: int = 0


STEPS = st.tuples(
    st.sampled_from(["call", "fail", "ok", "wake", "cancel", "wait"]),
    st.integers(0, 11),
    st.sampled_from([REFUSED, TIMED_OUT, ANSWERED, OVERLOADED, limited()])
    | st.floats(0.1, 40.0).map(limited),
    st.floats(0.0, 3.0),
    st.booleans(),
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
    steps: list[tuple[str, int, AttemptOutcome, float, bool]],
    admission: bool,
    initial: float,
    chance: float,
    remaining: float | None,
) -> None:
    """Twelve calls at once, in any order: each retry has its token, each token has its end."""
    bench = Bench({"admission": admission, "budget_initial": initial}, chance)
    policy, clock = bench.policy, bench.clock
    budget = Counting(bench.config, clock.now)
    budget.given, budget.taken = 0.0, 0
    policy._budget = budget
    calls: dict[int, Under] = {}
    # A success that ends an outage brings a token that no call had reserved.
    wasted = recovered = 0

    def go_on(number: int, call: Under, action: Action) -> None:
        call.at = action
        if isinstance(action, GiveUp):
            del calls[number]

    for step, number, outcome, seconds, can_wait in steps:
        call = calls.get(number)
        if step == "wait":
            clock.now += seconds
        elif step == "call" and call is None:
            deadline = None if remaining is None else clock.now + remaining
            call = calls[number] = Under(View(deadline=deadline), SEND)
            go_on(number, call, bench.arrive(call.view))
        elif call is None:
            continue
        elif step == "cancel":
            policy.cancel(clock.now, calls.pop(number).view)
        elif step == "ok" and isinstance(call.at, Send):
            recovered += policy.health.streak >= SUSPICIOUS
            policy.outcome(clock.now, call.view, AttemptOutcome(True, latency=seconds))
            del calls[number]
        elif step == "fail" and isinstance(call.at, Send):
            wasted += call.failures > 0
            call.failures += 1
            go_on(number, call, bench.fail(outcome._replace(can_wait=can_wait), call.view))
        elif step == "wake" and isinstance(call.at, Wait):
            committed = call.at.committed
            clock.now += call.at.seconds
            go_on(number, call, policy.wake(clock.now, call.view))
            assert not committed or isinstance(call.at, Send)
        for other in calls.values():
            if not parks(other.at):
                assert (other.view.state is not None and other.view.state.token_reserved) == (
                    other.failures > 0
                )
        reserved = sum(
            other.view.state is not None and other.view.state.token_reserved
            for other in calls.values()
        )
        assert budget.taken == reserved + wasted - recovered
        floor = bench.config.budget_floor * (clock.now - 1000.0)
        assert budget.taken <= initial + budget.given + floor + 1e-6
        assert 0.0 <= budget.balance(clock.now) <= budget.capacity
        parked = sum(parks(other.at) for other in calls.values())
        assert policy.parked_calls == parked
    for other in calls.values():
        policy.cancel(clock.now, other.view)
    assert budget.taken == wasted - recovered
    assert policy.parked_calls == 0
    assert not math.isnan(budget.tokens)


def test_the_state_that_is_shown_is_the_one_that_the_rules_go_by() -> None:
    """A congested origin is called congested as long as its time-outs are left alone; a limit that
    a clock step has moved a day away limits nobody, and is not shown."""
    bench = Bench({"hold_cap": 0})
    policy, clock = bench.policy, bench.clock
    for latency in [0.05] * 100 + [0.2] * 40:
        clock.now += 0.1
        policy.outcome(clock.now, View(1), AttemptOutcome(True, latency=latency))
    for seconds in (0.0, 11.0, 60.0):
        clock.now += seconds
        assert policy.state(clock.now) == "congested"
        assert policy.outcome(clock.now, View(1), OVERLOADED) == GiveUp("congested")
        policy.health.streak = 0.0
    bench = Bench({"admission": True})
    bench.policy.outcome(bench.clock.now, View(1), limited(20.0))
    assert bench.policy.state(bench.clock.now) == "limited"
    assert bench.policy.arrive(bench.clock.now, View()) != SEND
    bench.clock.now -= 86_400
    assert bench.policy.state(bench.clock.now) == "healthy"
    assert bench.policy.arrive(bench.clock.now, View()) == SEND
