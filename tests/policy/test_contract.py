"""What holds of every policy behind the driver, whatever calls and outcomes come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry._call import Call
from aiohttp_adaptive_retry._policy.adaptive import CallState
from aiohttp_adaptive_retry.policy import (
    REASONS,
    SEND,
    Action,
    AttemptOutcome,
    CallView,
    GiveUp,
    Send,
    Wait,
)

from .bench import ANSWERED, OVERLOADED, REFUSED, TIMED_OUT, limited
from .driving import Driving, Factory, adaptive, fixed, users

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
    """Whether nothing is reserved for the call, nor a place where it is parked."""
    state = call.state
    return not isinstance(state, CallState) or not (state.token_reserved or state.parked)


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
    What can't be kept through a wait is followed by an attempt. After its end a call has no token
    and is not parked.
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
            reserved = isinstance(state, CallState) and state.token_reserved
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
        parked = sum(
            isinstance(under.call.state, CallState) and under.call.state.parked
            for under in calls.values()
        )
        assert policy.parked_calls == parked
        assert driving.origin.in_flight == len(calls)
    for under in calls.values():
        driving.cancel(under.call)
    counters = driving.counters
    assert policy.parked_calls == 0
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
    call = driving.sent(remaining=0.09)
    # Half of the first span of 0.2 s.
    assert driving.outcome(call, ANSWERED) == GiveUp("deadline")
    assert driving.policy.tokens_at(driving.clock.now, 0) == tokens
    assert driving.counters.suppressed == {"deadline": 1}
    assert isinstance(driving.outcome(driving.sent(remaining=0.11), ANSWERED), Wait)


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


# Policies of a user's own.


class Scripted:
    """Answers with what it was given, and raises what is an exception."""

    def __init__(
        self, *, arrive: Any = SEND, outcome: Any = SEND, wake: Any = SEND, cancel: Any = None
    ) -> None:
        self._answers = {"arrive": arrive, "outcome": outcome, "wake": wake, "cancel": cancel}
        self.cancelled = 0

    def _answer(self, method: str) -> Any:
        answer = self._answers[method]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def arrive(self, now: float, call: CallView) -> Action:
        return self._answer("arrive")  # type: ignore[no-any-return]

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        return self._answer("outcome")  # type: ignore[no-any-return]

    def wake(self, now: float, call: CallView) -> Action:
        return self._answer("wake")  # type: ignore[no-any-return]

    def cancel(self, now: float, call: CallView) -> None:
        self.cancelled += 1
        self._answer("cancel")


def scripted(**answers: Any) -> Driving:
    """Calls under a policy with these answers."""
    return Driving(users(Scripted(**answers)))


nonsense = pytest.mark.parametrize(
    "answer",
    [
        None,
        True,
        "send",
        Send,
        Wait(math.nan),
        Wait(-1.0),
        Wait(math.inf),
        Wait("1"),  # type: ignore[arg-type]
        KeyError("a fault of the policy"),
    ],
    ids=repr,
)


@nonsense
def test_nonsense_before_the_first_attempt_sends_it(answer: Any) -> None:
    """The fault is counted, and the call goes on as without us."""
    driving = scripted(arrive=answer)
    call = driving.sent()
    assert driving.faults.count == 1
    driving.outcome(call, AttemptOutcome(True))
    assert driving.counted == {"first_success": 1}


@nonsense
def test_nonsense_after_a_failure_ends_the_call_as_a_failure(answer: Any) -> None:
    """The fault is counted, and is no reason."""
    driving = scripted(outcome=answer)
    call = driving.sent()
    assert isinstance(driving.outcome(call, ANSWERED), GiveUp)
    assert call.ended
    assert driving.faults.count == 1
    assert driving.counted == {"failed_without_retry": 1}
    assert driving.counters.suppressed == {}
    assert driving.origin.in_flight == 0


@nonsense
def test_nonsense_after_a_wait_ends_the_call_as_a_failure(answer: Any) -> None:
    """The call ends with what it has kept through the wait."""
    driving = scripted(outcome=Wait(1.0), wake=answer)
    call = driving.sent()
    assert isinstance(driving.outcome(call, ANSWERED), Wait)
    assert isinstance(driving.wake(call), GiveUp)
    assert call.ended
    assert driving.faults.count == 1
    assert driving.counted == {"failed_without_retry": 1}
    assert driving.origin.in_flight == 0


@nonsense
@pytest.mark.parametrize("committed", [False, True])
def test_nonsense_where_nothing_was_kept_sends(answer: Any, committed: bool) -> None:
    """The call can't end with what it has let go of, so that its attempt is sent."""
    driving = scripted(outcome=Wait(1.0, committed=committed), wake=answer)
    call = driving.sent()
    driving.outcome(call, ANSWERED._replace(can_wait=committed))
    assert driving.wake(call) == SEND
    assert (call.attempts, call.ended) == (2, False)


@pytest.mark.parametrize("answer", [None, True, "send", Send], ids=repr)
def test_nonsense_where_nothing_was_kept_is_counted_as_a_fault(answer: Any) -> None:
    """The attempt is sent, and the policy's fault is not hidden by that."""
    driving = scripted(outcome=Wait(1.0, committed=True), wake=answer)
    call = driving.sent()
    driving.outcome(call, ANSWERED)
    assert driving.wake(call) == SEND
    assert driving.faults.count == 1


@pytest.mark.parametrize("step", ["outcome", "wake"])
def test_giving_up_without_a_reason_ends_the_call(step: str) -> None:
    """It is nonsense, which ends the call as a failure and is counted as a fault."""
    answers: dict[str, Any] = {"outcome": Wait(1.0)} | {step: GiveUp(None)}  # type: ignore[arg-type]
    driving = scripted(**answers)
    call = driving.sent()
    action = driving.outcome(call, ANSWERED)
    if step == "wake":
        action = driving.wake(call)
    assert isinstance(action, GiveUp)
    assert call.ended
    assert driving.faults.count == 1


@nonsense
def test_nonsense_after_a_wait_before_the_first_attempt_sends_it(answer: Any) -> None:
    """As nonsense in `arrive` does: a fault of ours is no reason to fail a call unsent."""
    driving = scripted(arrive=Wait(1.0), wake=answer)
    call, action = driving.begin()
    assert isinstance(action, Wait)
    assert driving.wake(call) == SEND
    assert (call.attempts, call.ended) == (1, False)


def test_a_policy_that_raises_at_a_success_leaves_it_a_success() -> None:
    """What the call came to is known, whatever the policy makes of it."""
    driving = scripted(outcome=KeyError("a fault of the policy"))
    driving.outcome(driving.sent(), AttemptOutcome(True))
    assert driving.faults.count == 1
    assert driving.counted == {"first_success": 1}


def test_a_policy_that_cannot_cancel_leaves_a_cancelled_call_ignored() -> None:
    """A cancelled call says nothing about the server."""
    driving = scripted(cancel=KeyError("a fault of the policy"))
    driving.cancel(driving.sent())
    assert driving.faults.count == 1
    assert driving.counted == {"ignored": 1}


def test_giving_up_where_nothing_was_kept_sends() -> None:
    """The policy was told that its wait is committed."""
    driving = scripted(outcome=Wait(1.0), wake=GiveUp("changed my mind"))
    call = driving.sent()
    driving.outcome(call, ANSWERED._replace(can_wait=False))
    assert driving.wake(call) == SEND
    assert not call.ended


def test_a_further_wait_past_the_deadline_sends_where_nothing_was_kept() -> None:
    """The last moment is used: waiting longer would end in nothing."""
    driving = scripted(outcome=Wait(1.0), wake=Wait(1.0))
    call = driving.sent(remaining=1.5)
    driving.outcome(call, ANSWERED._replace(can_wait=False))
    driving.clock.now += 1
    assert driving.wake(call) == SEND


def test_an_answer_after_a_success_does_not_matter() -> None:
    """Whatever it is, the call has succeeded, and no fault is counted."""
    driving = scripted(outcome=None)
    driving.outcome(driving.sent(), AttemptOutcome(True))
    assert driving.counted == {"first_success": 1}
    assert driving.faults.count == 0


def test_a_policy_that_cannot_cancel_breaks_no_cancellation() -> None:
    """The call is over all the same, once, and the fault is counted."""
    driving = scripted(cancel=KeyError("a fault of the policy"))
    call = driving.sent()
    driving.cancel(call)
    driving.cancel(call)
    assert call.ended
    assert driving.faults.count == 1
    assert sum(driving.counted.values()) == 1
    assert driving.origin.in_flight == 0


@pytest.mark.parametrize("step", ["arrive", "outcome", "wake"])
@given(reasons=st.lists(st.text(), min_size=1, max_size=20))
def test_a_reason_of_any_word_is_counted_as_other(step: str, reasons: list[str]) -> None:
    """However many words a policy has, only those of `REASONS` become labels of their own."""
    unknown = 0
    for reason in [*reasons, *REASONS]:
        answers: dict[str, Any] = {"outcome": Wait(1.0)} | {step: GiveUp(reason)}
        driving = scripted(**answers)
        call, action = driving.begin()
        if step != "arrive":
            action = driving.outcome(call, ANSWERED)
        if step == "wake":
            action = driving.wake(call)
        assert action == GiveUp(reason)
        assert call.ended
        known = reason in REASONS
        assert driving.counters.suppressed == {reason if known else "_OTHER": 1}
        unknown += not known
        assert sum(driving.counted.values()) == 1
        assert driving.faults.count == 0
    assert unknown >= sum(reason not in REASONS for reason in reasons)


def test_an_overruled_policy_is_told_to_cancel() -> None:
    """It wanted to go on; the driver's bound ends the call, and what was reserved comes back."""
    for answer in (SEND, Wait(1.0)):
        policy = Scripted(outcome=answer)
        driving = Driving(users(policy), max_attempts=1)
        assert driving.outcome(driving.sent(), ANSWERED) == GiveUp("max_attempts")
        assert policy.cancelled == 1


def test_policies_are_told_every_outcome() -> None:
    """A user's policy hears of each success too, and of errors by their names."""
    heard: list[tuple[bool, str]] = []

    class Listening(Scripted):
        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            heard.append((outcome.ok, outcome.error_type))
            return SEND

    driving = Driving(users(Listening()))
    call = driving.sent()
    for outcome in (ANSWERED, REFUSED, AttemptOutcome(True)):
        driving.outcome(call, outcome)
    driving.outcome(driving.sent(), AttemptOutcome(True))
    assert heard == [(False, "500"), (False, "ClientConnectorError"), (True, ""), (True, "")]
    assert driving.counted == {"retry_success": 1, "first_success": 1}
