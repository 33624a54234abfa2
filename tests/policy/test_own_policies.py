"""What holds of policies of a user's own behind the driver, whatever they answer."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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

from .bench import ANSWERED, REFUSED
from .driving import Driving, users


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
