"""The rules, asked one by one on a fake clock: what is retried, when, and for how many tokens."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry._policy.cost import RetryFlow
from aiohttp_adaptive_retry._policy.tuning import TUNING
from aiohttp_adaptive_retry.policy import REASONS, SEND, AttemptOutcome, GiveUp, Wait

from .bench import ANSWERED, OVERLOADED, REFUSED, TIMED_OUT, Bench, View, holds, limited

LOST = REFUSED._replace(reused_connection=True)
LIMITED = limited()


def test_a_failure_is_retried_after_a_jittered_wait_with_a_token_in_hand() -> None:
    """The token is taken before the wait, and comes back when the retry mends."""
    bench = Bench({"budget_deposit": 0})
    call = View()
    assert bench.fail(ANSWERED, call) == Wait(0.1, committed=True)
    assert bench.tokens == 0.0
    assert bench.policy.wake(bench.clock.now + 0.1, call) is SEND
    bench.ok(call=call)
    assert bench.tokens == 1.0


def test_without_a_token_there_is_no_retry() -> None:
    """What waits for its retry has the only one; the other call is over, if it may not look."""
    bench = Bench({"budget_deposit": 0})
    bench.fail(LIMITED)
    assert bench.fail(LIMITED) == GiveUp("budget_exhausted")
    assert bench.policy.callers.pending == 1


def test_a_retry_that_fails_has_cost_its_token() -> None:
    """And so has each one after it; a call that is cancelled gets back the one in hand."""
    bench = Bench({"budget_initial": 5, "budget_deposit": 0})
    call = View()
    for left in (4.0, 3.0, 2.0):
        bench.ok()
        bench.fail(ANSWERED, call)
        assert bench.tokens == left
    for _ in range(2):
        bench.policy.cancel(bench.clock.now, call)
        assert bench.tokens == 3.0
    bench = Bench()
    bench.fail(LIMITED, call := View())
    assert bench.fail(LIMITED, call) == GiveUp("budget_exhausted")
    assert bench.tokens == 0.0


def test_who_has_no_token_looks_unless_that_costs_too_much() -> None:
    """An answer of 500 or 503, or a refusal, is looked after; a time-out or a limit is not."""
    for failure in (ANSWERED, OVERLOADED, REFUSED):
        bench = Bench({"budget_initial": 0})
        call = bench.view(8.0)
        seconds, action = bench.held(bench.fail(failure, call), call)
        assert action is SEND
        assert 0.0 < seconds <= 0.2
        assert bench.tokens == 0.0
    for failure in (TIMED_OUT, LIMITED):
        bench = Bench({"budget_initial": 0})
        assert bench.fail(failure, bench.view(8.0)) == GiveUp("budget_exhausted")


def test_an_error_that_the_next_call_does_not_have_is_no_trouble_of_the_origin() -> None:
    """A lone caller, whom nobody else's successes teach, learns from its next call's success."""
    bench = Bench({"budget_initial": 0})
    sent = 0
    for _ in range(20):
        bench.ok()
        call = bench.view(8.0)
        action = bench.fail(ANSWERED, call)
        while not isinstance(action, GiveUp):
            if isinstance(action, Wait):
                action = bench.wake(action, call)
                continue
            sent += 1
            assert sent <= 20
            action = bench.fail(ANSWERED, call)
    assert action == GiveUp("unpromising")


def test_waits_grow_and_leave_time_for_the_answer() -> None:
    """Spans triple up to `backoff_cap`; no wait takes more than two thirds of what is left."""
    bench, waits = Bench({"budget_initial": 20}, chance=1.0), []
    call = View()
    for _ in range(5):
        action = bench.fail(ANSWERED, call)
        assert isinstance(action, Wait)
        waits.append(action.seconds)
    assert waits == pytest.approx([0.2, 0.6, 1.8, 5.0, 5.0])
    bench.ok()
    action = bench.fail(ANSWERED, bench.view(0.15))
    assert isinstance(action, Wait)
    assert action.seconds == pytest.approx(TUNING.look_share * 0.15)


def test_a_call_without_a_deadline_keeps_its_pace() -> None:
    """However long it has been under way: a server that fails slowly gets no burst."""
    bench = Bench({"budget_initial": 20}, chance=1.0)
    call = View()
    for span in (0.2, 0.6, 1.8):
        bench.ok()
        action = bench.fail(ANSWERED, call)
        assert isinstance(action, Wait)
        assert action.seconds == pytest.approx(span)
        bench.clock.now += 10.0


def test_what_cannot_be_sent_again_teaches_and_is_given_up() -> None:
    """Five calls whose request can't be replayed tell an outage; no token is touched."""
    bench = Bench()
    for _ in range(5):
        assert bench.fail(REFUSED._replace(replayable=False)) == GiveUp("not_retryable")
    assert bench.state == "down"
    assert bench.tokens == 1.0
    assert bench.policy.callers.pending == 0


# Errors that retries don't mend.


def test_what_never_mends_is_not_retried() -> None:
    """Retries of one error that fail while others succeed are learnt to be hopeless."""
    bench = Bench({"budget_initial": 20})
    for _ in range(4):
        call = View()
        assert isinstance(bench.fail(ANSWERED, call), Wait)
        bench.ok()
        bench.fail(ANSWERED, call)
        bench.policy.cancel(bench.clock.now, call)
    bench.chance = 0.9
    assert bench.fail(ANSWERED) == GiveUp("unpromising")
    assert isinstance(bench.fail(ANSWERED._replace(error_type="502")), Wait)
    bench.chance = 0.02
    assert isinstance(bench.fail(ANSWERED), Wait)


def test_an_outage_teaches_nothing_about_errors() -> None:
    """Retries that fail while nothing succeeds at all don't count against their error."""
    bench = Bench({"budget_initial": 20})
    for _ in range(50):
        call = View()
        bench.fail(ANSWERED, call)
        bench.fail(ANSWERED, call)
        bench.policy.cancel(bench.clock.now, call)
    bench.ok()
    bench.chance = 0.9
    assert isinstance(bench.fail(ANSWERED), Wait)


# Overload.


@pytest.mark.parametrize("outcome", [OVERLOADED, TIMED_OUT])
def test_overload_is_left_alone(outcome: AttemptOutcome) -> None:
    """While successes are slow, errors that speak of overload are not retried; others are."""
    bench = Bench()
    bench.congest()
    assert bench.fail(outcome) == GiveUp("congested")
    bench.ok()
    assert isinstance(bench.fail(ANSWERED), Wait)
    assert bench.policy.callers.pending == 1


@pytest.mark.parametrize("outcome", [OVERLOADED, TIMED_OUT])
def test_callers_who_wait_add_no_load_to_an_overload(outcome: AttemptOutcome) -> None:
    """A retry of theirs takes the place of their next call. So it is sent, and costs no token."""
    bench = Bench()
    bench.serial()
    bench.congest()
    tokens = bench.tokens
    assert isinstance(bench.fail(outcome), Wait)
    assert bench.tokens == tokens


def test_a_time_out_that_was_only_slow_is_not_retried() -> None:
    """Below five usual latencies a retry would be as slow, and the work would be done twice."""
    bench = Bench()
    bench.ok(30, latency=0.1)
    slow = TIMED_OUT._replace(latency=0.1 * TUNING.lost * 0.95)
    assert bench.fail(slow) == GiveUp("congested")
    bench.ok(30, latency=0.1)
    lost = slow._replace(latency=0.1 * TUNING.lost * 1.05)
    assert isinstance(bench.fail(lost), Wait)
    # An answer of overload is known at once, and costs little.
    bench.ok(30, latency=0.1)
    assert isinstance(bench.fail(OVERLOADED._replace(latency=0.1)), Wait)


def test_a_time_out_is_retried_where_nobody_knows_what_is_usual_or_callers_wait() -> None:
    """A cold client can't tell slow from lost, and who waits adds nothing."""
    slow = TIMED_OUT._replace(latency=0.2)
    assert isinstance(Bench().fail(slow), Wait)
    bench = Bench()
    bench.serial()
    bench.ok(30, latency=0.1)
    assert isinstance(bench.fail(slow), Wait)


def test_a_time_out_takes_more_tokens() -> None:
    """The first attempt and its retry may both be served in the end."""
    bench = Bench({"budget_initial": 5, "budget_deposit": 0})
    bench.ok(30)
    call = View()
    assert isinstance(bench.fail(TIMED_OUT._replace(latency=3.0), call), Wait)
    assert bench.tokens == 5.0 - TUNING.timeout_price
    bench.ok(call=call)
    assert bench.tokens == 5.0
    # Who never saw a success has one token at most, and may use it.
    bench = Bench()
    bench.fail(TIMED_OUT)
    assert bench.tokens == 0.0


def test_each_sign_of_overload_cuts_what_successes_earn() -> None:
    """A retry that is overloaded again, and a success while all are slow; a mended retry adds."""
    bench = Bench({"budget_initial": 20})
    flow = bench.policy._flow
    share = flow.share
    bench.ok(30)
    bench.fail(OVERLOADED, call := View())
    assert flow.share == share, "a first attempt's failure may have any reason"
    bench.fail(OVERLOADED, call)
    assert flow.share == pytest.approx(share * TUNING.share_cut)
    bench.ok(call=call)
    assert flow.share == pytest.approx(share * TUNING.share_cut + TUNING.share_step)
    bench = Bench()
    bench.congest()
    assert bench.policy._flow.share < share


# Limits.


def test_a_limiter_is_waited_for_with_a_token_in_hand() -> None:
    """The moment it names is when the retry goes, or later; jitter only adds."""
    for chance in (0.0, 0.5, 1.0):
        bench = Bench({"budget_initial": 20}, chance)
        action = bench.fail(limited(2.0))
        assert isinstance(action, Wait)
        assert action.committed
        assert 2.0 <= action.seconds <= 2.5
        assert bench.tokens == 19.0
        # What another call was told holds for this one too.
        bench.fail(limited(6.0))
        action = bench.fail(limited(2.0))
        assert isinstance(action, Wait)
        assert 6.0 <= action.seconds <= 7.5


@pytest.mark.parametrize("outcome", [limited(), OVERLOADED._replace(limited=True)], ids=str)
def test_a_wait_for_the_server_ends_in_time_and_is_not_too_long(outcome: AttemptOutcome) -> None:
    """Beyond the deadline or above `retry_after_cap` the answer is handed back at once."""
    bench = Bench({"retry_after_cap": 10.0, "budget_initial": 20})

    def asked(seconds: float, time: float | None = None) -> Any:
        return bench.fail(outcome._replace(retry_after=seconds), bench.view(time))

    granted = asked(9.9, 20.0)
    assert isinstance(granted, Wait)
    assert 9.9 <= granted.seconds <= 10.0
    assert bench.tokens == 19.0
    assert asked(11.0) == GiveUp("retry_after")
    # Both too long and too late: that it is too late is what the caller can do something about.
    assert asked(3600.0, 9.0) == GiveUp("deadline")
    assert asked(5.0, 5.0) == GiveUp("deadline")
    assert bench.tokens == 19.0
    assert bench.policy.callers.pending == 1


def test_a_limiter_that_names_no_time_is_left_alone_for_longer_each_time() -> None:
    """Its windows are seconds long, so that the pace of a blip is no use."""
    bench, spans = Bench({"budget_initial": 20}, chance=1.0), []
    call = View()
    for _ in range(4):
        action = bench.fail(limited(), call)
        assert isinstance(action, Wait)
        spans.append(action.seconds)
    assert spans == [1.0, 2.0, 4.0, 5.0]
    action = Bench(chance=0.0).fail(limited())
    assert action == Wait(0.5, committed=True)


def test_where_retries_only_take_others_places_a_limit_is_handed_back() -> None:
    """After a 429 six of ten retries must mend; callers who wait leave no place to take."""
    bench = Bench({"budget_initial": 20}, chance=0.99)
    for mended in (True, False) * 4:
        bench.policy.mending.retried("429", mended)
    assert bench.fail(limited(1.0)) == GiveUp("limited")
    bench.serial()
    assert isinstance(bench.fail(limited(1.0)), Wait)


def test_a_limited_origin_is_not_down() -> None:
    """However many calls it turns away: it answers. So no call is held."""
    bench = Bench({"budget_initial": 20})
    for _ in range(20):
        bench.fail(limited(2.0))
    assert bench.state == "limited"
    assert bench.policy.parked_calls == 0


# Lost reused connections, and other layers.


def learnt(bench: Bench) -> dict[str, str]:
    """All that a policy knows."""
    policy, flow = bench.policy, bench.policy._flow
    known = {name: repr(getattr(policy, name)) for name in AdaptivePolicy.__slots__}
    return known | {name: repr(getattr(flow, name)) for name in RetryFlow.__slots__}


@pytest.mark.parametrize("failures", [0, 1])
def test_a_lost_reused_connection_is_no_evidence(failures: int) -> None:
    """The request is sent again at once, without a token, and nothing is learnt of it."""
    bench = Bench({"budget_initial": 20})
    bench.ok(30)
    call = View()
    if failures:
        bench.fail(ANSWERED, call)
    before = learnt(bench)
    for _ in range(100):
        assert bench.fail(LOST, call) is SEND
        assert bench.fail(LOST) is SEND
    assert learnt(bench) == before


def test_a_lost_reused_connection_that_can_not_be_replaced_is_no_evidence_either() -> None:
    """Its call ends, with what it had reserved; nothing is learnt of it."""
    bench = Bench()
    bench.ok(30)
    before = learnt(bench)
    for _ in range(10):
        assert bench.fail(LOST._replace(replayable=False)) == GiveUp("not_retryable")
    assert learnt(bench) == before
    assert bench.state == "healthy"
    tokens = bench.tokens
    bench.fail(ANSWERED, call := View())
    assert bench.tokens == tokens - 1
    assert bench.fail(LOST._replace(replayable=False), call) == GiveUp("not_retryable")
    assert bench.tokens == tokens
    assert bench.policy.callers.pending == 0


@dataclasses.dataclass(slots=True, eq=False)
class Resend(View):
    """A call that another layer has sent before."""

    is_resend: bool = True


def test_another_layers_retry_takes_a_token_and_is_not_held() -> None:
    """It is a retry already: it is counted as one, and waits for nobody's news."""
    bench = Bench({"budget_initial": 3, "budget_deposit": 0})
    call = Resend()
    bench.fail(ANSWERED, call)
    assert bench.tokens == 1.0, "one for the layer's retry, one for ours"
    bench.ok(call=call)
    assert bench.tokens == 2.0, "what the other layer sent is spent"
    bench.down()
    assert holds(bench.fail(REFUSED))
    assert bench.fail(REFUSED, Resend()) == GiveUp("origin_down")
    assert bench.tokens >= 0.0


# What is shown and written down.


def test_a_quiet_origin_need_not_be_told_of_every_success() -> None:
    """Fifty looks a second are enough; any failure asks for the next success at once."""
    bench = Bench()
    bench.policy.succeeded(100.0, 0.05)
    assert bench.policy.quiet_until == pytest.approx(100.02)
    bench.policy.outcome(100.01, call := View(), ANSWERED)
    assert bench.policy.quiet_until == -math.inf
    bench.policy.succeeded(100.02, 0.05)
    assert bench.policy.quiet_until == -math.inf, "a failed call waits for what is to be told"
    bench.policy.cancel(100.03, call)
    bench.policy.succeeded(100.04, 0.05)
    assert bench.policy.quiet_until > 100.04
    bench.congest()
    assert bench.policy.quiet_until < bench.clock.now


def test_successes_that_are_told_later_earn_the_same_tokens() -> None:
    """A hundred successes of a quiet time, told one by one or at once, earn alike."""
    one_by_one, at_once = Bench(), Bench()
    for _ in range(100):
        one_by_one.policy.succeeded(1000.0, 0.05)
    assert at_once.policy.tokens_at(1000.0, 100) == pytest.approx(11.0)
    assert one_by_one.tokens == pytest.approx(11.0)
    at_once.policy.catch_up(100)
    assert at_once.tokens == pytest.approx(11.0)


def test_the_state_that_is_shown_is_the_one_that_the_rules_go_by() -> None:
    """A limit that a clock step has moved a day away limits nobody, and is not shown."""
    bench = Bench()
    assert (bench.state, bench.policy.is_troubled) == ("healthy", False)
    bench.fail(limited(20.0))
    assert bench.state == "limited"
    bench.clock.now -= 86_400
    assert bench.state == "healthy"
    bench = Bench()
    bench.congest()
    assert (bench.state, bench.policy.is_troubled) == ("congested", True)
    bench.lose(ANSWERED, 10)
    assert bench.state == "down", "the worst is shown"
    bench = Bench()
    bench.lose()
    assert (bench.state, bench.policy.is_troubled) == ("healthy", True)


def test_reasons_are_few_and_spelt_as_labels() -> None:
    """Reasons become labels: a closed list of snake case."""
    assert len(REASONS) == len(set(REASONS)) < 20
    assert all(reason == reason.lower() and " " not in reason for reason in REASONS)
