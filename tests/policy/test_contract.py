"""What holds of every policy behind the driver, whatever calls and outcomes come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry._policy.state import Arrival, CallState
from aiohttp_adaptive_retry.policy import (
    REASONS,
    SEND,
    Action,
    AttemptOutcome,
    GiveUp,
    Wait,
)

from .bench import ANSWERED, OVERLOADED, REFUSED, TIMED_OUT, limited
from .driving import Call, Driving, Factory, adaptive, fixed

KINDS: dict[str, tuple[Factory, dict[str, Any]]] = {
    "fixed": (fixed, {}),
    "adaptive": (adaptive, {}),
    "admitting": (adaptive, {"admission": True}),
}
every_policy = pytest.mark.parametrize("kind", KINDS)

FAILURES = st.sampled_from([REFUSED, TIMED_OUT, ANSWERED, OVERLOADED, limited()]) | st.builds(
    lambda outcome, seconds: outcome._replace(retry_after=seconds),
    st.sampled_from([OVERLOADED, limited()]),
    st.floats(0.1, 60.0),
)
# What happens to which of the calls. To go on is to begin, to end an attempt, or to end a wait.
STEPS = st.tuples(
    st.sampled_from(["go"] * 8 + ["cancel", "pass"]),
    st.integers(0, 3),
    st.just(AttemptOutcome(True, latency=0.05))
    | st.builds(
        lambda outcome, can_wait, replayable: outcome._replace(
            can_wait=can_wait, replayable=replayable
        ),
        FAILURES,
        st.booleans(),
        st.sampled_from([True] * 9 + [False]),
    ),
    st.floats(0.0, 5.0),
    st.none() | st.floats(0.05, 30.0),
)


@dataclass(eq=False)
class Under:
    """A call that is not over, and what it was told last."""

    call: Call
    action: Action
    #: Whether the wait that it is in has to be followed by an attempt.
    must_send: bool = False


def nothing_left(call: Call) -> bool:
    """Whether nothing is reserved for the call, nor a place where it is held."""
    state = call.state
    return not isinstance(state, CallState) or not (state.paid or state.held)


@every_policy
@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(STEPS, min_size=10, max_size=150),
    max_attempts=st.integers(1, 6),
    initial=st.floats(0.0, 20.0),
    chance=st.floats(0.0, 1.0),
)
def test_bounds_hold_and_nothing_is_left_behind(
    kind: str,
    steps: list[tuple[str, int, AttemptOutcome, float, float | None]],
    max_attempts: int,
    initial: float,
    chance: float,
) -> None:
    """Four calls at once, in any order: the caller's bounds hold, and each call ends once.

    No call sends more than `max_attempts`. No wait begins that ends at the deadline or after it.
    What can't be kept through a wait is followed by an attempt. After its end a call has no tokens,
    is not held, and is not counted as under way.
    """
    factory, fields = KINDS[kind]
    driving = Driving(
        factory,
        chance=chance,
        max_attempts=max_attempts,
        budget_initial=initial,
        # Tokens move by what calls do alone, and no bound hides one that comes back.
        budget_capacity=1e6,
        budget_floor=0.0,
        budget_deposit=0.0,
        **fields,
    )
    policy, clock = driving.policy, driving.clock
    calls: dict[int, Under] = {}
    begun = attempts = 0

    def tokens() -> float:
        return policy.tokens_at(clock.now, 0)

    def told(number: int, under: Under, action: Action) -> None:
        nonlocal attempts
        call = under.call
        assert call.attempts <= max_attempts
        assert call.ended is isinstance(action, GiveUp)
        if isinstance(action, Wait):
            assert 0.0 <= action.seconds < math.inf
            if call.deadline is not None:
                assert clock.now + action.seconds < call.deadline
            under.must_send = under.must_send or action.committed
        elif isinstance(action, GiveUp):
            assert not under.must_send
            assert nothing_left(call)
            del calls[number]
        else:
            attempts += 1
            under.must_send = False
        under.action = action

    for step, number, outcome, seconds, remaining in steps:
        under = calls.get(number)
        if step == "pass":
            clock.now += seconds
        elif step == "cancel" and under is not None:
            before = tokens()
            state = under.call.state
            reserved = state.paid if isinstance(state, CallState) else 0.0
            for _ in range(2):
                driving.cancel(under.call)
                assert tokens() == pytest.approx(before + reserved)
                assert nothing_left(under.call)
            policy.cancel(clock.now, under.call)
            assert tokens() == pytest.approx(before + reserved)
            del calls[number]
        elif under is None:
            begun += 1
            call, action = driving.begin(remaining)
            under = calls[number] = Under(call, action)
            told(number, under, action)
        elif isinstance(under.action, Wait):
            clock.now += under.action.seconds
            told(number, under, driving.wake(under.call))
        elif outcome.ok:
            driving.outcome(under.call, outcome)
            assert under.call.ended
            assert nothing_left(under.call)
            del calls[number]
        else:
            action = driving.outcome(under.call, outcome)
            under.must_send = isinstance(action, Wait) and not outcome.can_wait
            told(number, under, action)
        if kind != "fixed":
            states = [under.call.state for under in calls.values() if under.call.state is not None]
            known = [state for state in states if isinstance(state, CallState)]
            assert driving.adaptive.callers.pending == len(known)
            # The others were held before their first attempt.
            arrived = [state for state in states if isinstance(state, Arrival)]
            held = [state for state in known if state.held]
            waiting = [state for state in arrived if not state.admitted]
            assert len(states) == len(known) + len(arrived)
            assert policy.parked_calls == len(held) + len(waiting)
        assert driving.origin.in_flight == len(calls)
    for under in calls.values():
        driving.cancel(under.call)
    counters = driving.counters
    assert policy.parked_calls == 0
    assert kind == "fixed" or driving.adaptive.callers.pending == 0
    assert driving.faults.count == 0
    assert driving.origin.in_flight == 0
    assert sum(driving.counted.values()) == begun
    assert counters.originals + counters.retries == attempts
    # Each call that failed or was refused says once why, and in a word that is known.
    failed = counters.failed_without_retry + counters.failed_after_retry + counters.refused
    assert sum(counters.suppressed.values()) == failed
    assert set(counters.suppressed) <= set(REASONS)


@every_policy
def test_max_attempts_are_sent_and_not_one_more(kind: str) -> None:
    """A policy that would go on is ended by the driver, for that reason."""
    factory, fields = KINDS[kind]
    driving = Driving(factory, max_attempts=3, budget_initial=20, **fields)
    call = driving.sent()
    action: Action = SEND
    while not isinstance(action, GiveUp):
        if isinstance(action, Wait):
            driving.clock.now += action.seconds
            action = driving.wake(call)
        else:
            action = driving.outcome(call, ANSWERED)
    assert (action.reason, call.attempts) == ("max_attempts", 3)
    assert driving.counted == {"failed_after_retry": 1}
    assert driving.counters.failures == {"500": 3}
    assert driving.counters.retries == 2


@every_policy
def test_a_wait_past_the_deadline_is_not_begun(kind: str) -> None:
    """The call ends at once, with all that it had reserved given back."""
    factory, fields = KINDS[kind]
    driving = Driving(factory, **fields)
    tokens = driving.policy.tokens_at(driving.clock.now, 0)
    asks = OVERLOADED._replace(retry_after=2.0)
    call = driving.sent(remaining=1.9)
    assert driving.outcome(call, asks) == GiveUp("deadline")
    assert driving.policy.tokens_at(driving.clock.now, 0) == tokens
    assert driving.counters.suppressed == {"deadline": 1}
    assert isinstance(driving.outcome(driving.sent(remaining=2.6), asks), Wait)


@every_policy
@pytest.mark.parametrize("obstacle", ["not_idempotent", "body_not_replayable"])
def test_what_the_request_forbids_no_policy_permits(kind: str, obstacle: Any) -> None:
    """Its attempt is learnt from, and nothing stays reserved."""
    factory, fields = KINDS[kind]
    driving = Driving(factory, **fields)
    tokens = driving.policy.tokens_at(driving.clock.now, 0)
    assert driving.outcome(driving.sent(), ANSWERED, obstacle) == GiveUp(obstacle)
    assert driving.policy.tokens_at(driving.clock.now, 0) == tokens
    assert driving.counters.suppressed == {obstacle: 1}
    assert driving.origin.window.end == 1


@every_policy
def test_in_a_container_that_is_nearly_full_nothing_is_retried(kind: str) -> None:
    """A waiting call holds its request; near the limit that may be what kills."""
    factory, fields = KINDS[kind]
    driving = Driving(factory, **fields)
    driving.outcome(driving.sent(), AttemptOutcome(True))
    tokens = driving.policy.tokens_at(driving.clock.now, 0)
    driving.fullness = 0.95
    driving.clock.now += 2
    driving.outcome(driving.sent(), AttemptOutcome(True, latency=0.05))
    assert driving.outcome(driving.sent(), ANSWERED) == GiveUp("memory_pressure")
    assert driving.policy.tokens_at(driving.clock.now, 0) >= tokens
