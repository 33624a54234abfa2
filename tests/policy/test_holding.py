"""The rules in an outage, asked one by one: who is held, for how long, who looks, who is let go."""

from __future__ import annotations

import math

import pytest

from aiohttp_adaptive_retry._policy.adaptive import MOST_HELD
from aiohttp_adaptive_retry._policy.tuning import TUNING
from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, GiveUp, Wait

from .bench import ANSWERED, OVERLOADED, REFUSED, TIMED_OUT, Bench, View, holds, limited


def until_the_end(bench: Bench, call: View, action: Action, news: bool) -> tuple[float, int]:
    """For how long a call that never mends goes on, and with how many further attempts.

    With `news` other calls fail all the time.
    """
    began, sent = bench.clock.now, 0
    while not isinstance(action, GiveUp):
        if isinstance(action, Wait):
            action = bench.wake(action, call)
            if news:
                bench.lose()
        else:
            sent += 1
            action = bench.fail(call.state.failure, call)
    assert bench.policy.parked_calls == 0
    return bench.clock.now - began, sent


def test_a_single_refusal_may_be_a_blip_and_is_tried_again_soon() -> None:
    """The first one is retried at the usual pace, the next ones wait for news."""
    bench = Bench()
    bench.ok(30)
    assert bench.fail() == Wait(0.1, committed=True)
    assert holds(bench.fail())


@pytest.mark.parametrize("outcome", [ANSWERED, OVERLOADED, TIMED_OUT, REFUSED], ids=str)
def test_in_an_outage_every_failure_is_held(outcome: AttemptOutcome) -> None:
    """Whatever its kind: the others' news will help."""
    bench = Bench()
    bench.down()
    tokens = bench.tokens
    assert holds(bench.fail(outcome, bench.view(3.0)))
    assert bench.tokens == tokens, "to wait costs nothing"
    assert bench.policy.parked_calls == 1


def test_a_held_call_goes_when_another_succeeds() -> None:
    """It takes a token, which comes back when it succeeds."""
    bench = Bench({"budget_deposit": 0})
    bench.down()
    action = bench.fail(call=(call := bench.view(8.0)))
    bench.ok()
    assert bench.wake(action, call) is SEND
    assert (bench.policy.parked_calls, bench.tokens) == (0, 0.0)
    bench.ok(call=call)
    assert bench.tokens == 1.0
    assert bench.policy.callers.pending == 0


# For how long.


@pytest.mark.parametrize(
    ("time", "fields", "hold"),
    [
        (1.0, {}, 0.25),
        (8.0, {}, 2.0),
        (60.0, {}, 12.0),
        (61.0, {}, 0.5),
        (300.0, {}, 0.5),
        (None, {}, 0.5),
        (None, {"hold_cap": 0.2}, 0.2),
        (40.0, {"hold_cap": 5}, 5.0),
        (10.0, {"hold_share": 0.6}, 6.0),
    ],
)
def test_a_hold_takes_a_small_part_of_what_the_caller_has(
    time: float | None, fields: dict[str, float], hold: float
) -> None:
    """`hold_share` of its time and `hold_cap` at most; little where the caller named no time."""
    bench = Bench(dict(fields), chance=0.99)
    bench.down()
    action = bench.fail(call=(call := bench.view(time)))
    held, sent = until_the_end(bench, call, action, news=True)
    assert sent == 0, "others look"
    assert hold - 0.01 <= held <= hold + 0.03


def test_when_the_origin_is_back_a_call_waits_for_its_turn_until_there_is_time_for_an_answer() -> (
    None
):
    """Two thirds of its time. Then it is given up, as it can't get what it needs."""
    bench = Bench({"budget_deposit": 0})
    bench.down()
    first, second = bench.view(6.0), bench.view(6.0)
    actions = [bench.fail(call=call) for call in (first, second)]
    began = bench.clock.now
    bench.ok()
    # There is one token.
    assert bench.policy.wake(bench.clock.now, first) is SEND
    _, end = bench.held(actions[1], second)
    assert end == GiveUp("origin_down")
    assert bench.clock.now - began == pytest.approx(TUNING.look_share * 6.0)


def test_old_trouble_is_not_waited_for() -> None:
    """Beyond four times the hold an outage will hardly end within it: the call fails at once."""
    hold = 1.0
    for age, is_held in ((0.9 * TUNING.hold_young * hold, True), (4.2 * hold, False)):
        bench = Bench()
        bench.down(age)
        bench.lose()
        action = bench.fail(call=bench.view(4.0))
        assert holds(action) is is_held
        assert is_held or action == GiveUp("origin_down")


def test_where_nobody_else_calls_nobody_is_waited_for() -> None:
    """With less than one call to be expected within the hold, a call looks itself or fails."""
    for seconds, is_held in ((0.01, True), (10.0, False)):
        bench = Bench()
        for _ in range(30):
            bench.clock.now += seconds
            bench.policy.succeeded(bench.clock.now, 0.05)
        bench.lose()
        # It has no time for a look of its own.
        assert holds(bench.fail(call=bench.view(0.1))) is is_held


def test_a_call_is_held_to_the_end_of_its_hold_though_it_looked_meanwhile() -> None:
    """What it waited before its look counts once."""
    bench = Bench({"hold_cap": 60, "hold_share": 0.7})
    bench.down()
    call = bench.view(60.0)
    began, action = bench.clock.now, bench.fail(call=call)
    for _ in range(4):
        held, action = bench.held(action, call)
        assert action is SEND
        action = bench.fail(call=call)
    assert held > 5.0
    until_the_end(bench, call, action, news=True)
    assert bench.clock.now - began == pytest.approx(42.0, abs=0.1)


# Who looks.


def test_a_lone_call_looks_for_itself_after_growing_pauses() -> None:
    """The first comes as a plain loop's retry, each other at three times the age. None costs."""
    bench = Bench({"budget_initial": 0})
    began, ages, call = bench.clock.now, list[float](), bench.view(8.0)
    action = bench.fail(call=call)
    while not isinstance(action, GiveUp):
        if isinstance(action, Wait):
            action = bench.wake(action, call)
            continue
        ages.append(bench.clock.now - began)
        assert bench.tokens == 0.0
        action = bench.fail(call=call)
    assert ages == pytest.approx([0.1, 0.5, 1.5, 4.5], rel=0.1)
    assert bench.clock.now - began <= TUNING.look_share * 8.0


def test_the_look_of_an_overloaded_origin_costs_tokens() -> None:
    """A time-out's may be work that is done twice. Where callers wait it is free."""
    bench = Bench({"budget_initial": 0, "budget_deposit": 0})
    bench.fail(TIMED_OUT)
    assert bench.fail(TIMED_OUT, bench.view(3.0)) == GiveUp("origin_down")
    bench = Bench({"budget_deposit": 0})
    bench.serial()
    bench.lose(TIMED_OUT, 5)
    tokens = bench.tokens
    assert until_the_end(bench, call := bench.view(3.0), bench.fail(TIMED_OUT, call), False)[1] >= 1
    assert bench.tokens == tokens


def test_callers_who_wait_look_sooner() -> None:
    """Their look takes the place of their next call, so it comes after a share of their time."""
    bench = Bench()
    bench.serial()
    bench.lose(REFUSED, 5)
    bench.clock.now += 5.0
    bench.lose(REFUSED)
    looks = []
    for call in (bench.view(4.0), View()):
        held, action = bench.held(bench.fail(call=call), call)
        assert action is SEND
        looks.append(held)
    assert looks[0] == pytest.approx(TUNING.serial_share * 4.0, rel=0.2)
    assert looks[1] == pytest.approx(TUNING.serial_share * TUNING.untold, rel=0.2)


@pytest.mark.parametrize("fields", [{"hold_cap": 0}, {}], ids=["hold_cap=0", "can't wait"])
def test_without_a_hold_a_call_looks_at_a_moment_that_is_its_own(fields: dict[str, float]) -> None:
    """So calls that can't be held do not look all at once; what would be too late is given up."""
    bench = Bench(dict(fields))
    bench.down()
    outcome = REFUSED._replace(can_wait=bool(fields))
    actions = [bench.fail(outcome, bench.view(8.0)) for _ in range(5)]
    waits = [action.seconds for action in actions if isinstance(action, Wait) and action.committed]
    assert waits == pytest.approx([0.4, 1.24, 3.76], rel=0.1)
    assert actions[3:] == [GiveUp("origin_down")] * 2
    assert bench.policy.parked_calls == 0


def test_who_waits_for_a_limiter_keeps_nobody_from_looking() -> None:
    """In twenty seconds that retry will tell nothing that helps now."""
    bench = Bench()
    assert isinstance(bench.fail(limited(20.0), bench.view(59.0)), Wait)
    bench.lose()
    call = bench.view(3.0)
    held, action = bench.held(bench.fail(call=call), call)
    assert action is SEND
    assert held < 1.0


# Asking again.


def test_a_crowd_that_is_held_asks_no_more_often_than_a_few() -> None:
    """A few ask twenty times a second each, hundreds 500 times together, old ones less."""
    for count, age, least in ((10, 0.4, 0.05), (200, 0.4, 0.4), (999, 0.4, 1.8), (1, 3.0, 0.3)):
        bench = Bench({"hold_share": 1})
        bench.down(age)
        # Somebody has just looked.
        bench.lose()
        for _ in range(count - 1):
            bench.fail(call=bench.view(30.0))
        action = bench.fail(call=bench.view(30.0))
        assert holds(action)
        assert isinstance(action, Wait)
        # Up to the next twentieth of a second.
        assert least * 0.99 <= action.seconds <= least + 0.05


def test_calls_that_were_held_together_do_not_ask_together() -> None:
    """The pause is jittered from half to one and a half, and ends with a twentieth of a second."""
    pauses, ends = [], []
    for chance in (0.0, 1.0, math.nan, 7.0, -1.0):
        bench = Bench(chance=chance)
        bench.down()
        action = bench.fail(call=bench.view(8.0))
        assert isinstance(action, Wait)
        pauses.append(action.seconds)
        ends.append((bench.clock.now + action.seconds) * 20.0)
    for pause, least in zip(pauses, [0.025, 0.075, 0.075, 0.075, 0.075], strict=True):
        assert least - 1e-6 <= pause <= least + 0.05
    assert ends == pytest.approx([round(end) for end in ends])


@pytest.mark.parametrize("readings", ["stand", "nan", "inf", "back"])
@pytest.mark.parametrize("time", [8.0, None])
def test_a_clock_that_breaks_holds_nobody_for_ever(readings: str, time: float | None) -> None:
    """A hold is bounded by what was asked for too, not only by what the clock says."""
    bench = Bench()
    bench.down()
    call = bench.view(time)
    now = {"nan": math.nan, "inf": math.inf, "back": -1e9}.get(readings, bench.clock.now)
    action, rounds, waited, sent = bench.fail(call=call), 0, 0.0, 1
    # The driver ends a call after five attempts.
    while not isinstance(action, GiveUp) and sent < 5:
        rounds += 1
        assert rounds < 1000
        if isinstance(action, Wait):
            waited += action.seconds
            action = bench.policy.wake(now, call)
        else:
            sent += 1
            action = bench.policy.outcome(now, call, REFUSED)
    assert waited <= 8.0
    bench.policy.cancel(now, call)
    assert bench.policy.parked_calls == bench.policy.callers.pending == 0


def test_no_more_than_a_thousand_are_held() -> None:
    """The next call is given up, because what waits holds memory. Cancelling twice does no harm."""
    bench = Bench()
    bench.down()
    calls = [bench.view(8.0) for _ in range(MOST_HELD + 1)]
    actions = [bench.fail(call=call) for call in calls]
    assert [holds(action) for action in actions] == [True] * MOST_HELD + [False]
    assert actions[-1] == GiveUp("origin_down")
    for call in calls:
        bench.policy.cancel(bench.clock.now, call)
        bench.policy.cancel(bench.clock.now, call)
    assert bench.policy.parked_calls == bench.policy.callers.pending == 0


# Letting go.


def let_go(bench: Bench, calls: list[View]) -> list[View]:
    """Those of the held calls that are sent now."""
    return [call for call in calls if bench.policy.wake(bench.clock.now, call) is SEND]


def test_held_calls_are_let_go_at_the_pace_of_usual_successes() -> None:
    """One for each success, a half more for each that was let go; slow ones let nobody go."""
    bench = Bench({"hold_share": 1})
    bench.ok(30)
    bench.lose(ANSWERED, 5)
    calls = [bench.view(30.0) for _ in range(30)]
    for call in calls:
        bench.fail(call=call)
    assert let_go(bench, calls) == []
    bench.ok()
    # Enough to afford all, so that only the pace counts.
    bench.policy._flow.tokens = 20.0
    gone = let_go(bench, calls)
    assert len(gone) == 2
    held = [call for call in calls if call not in gone]
    bench.ok(latency=1.0)
    assert let_go(bench, held) == []
    bench.ok(call=gone[0])
    bench.ok(call=gone[1])
    gone = let_go(bench, held)
    assert len(gone) == 3
    held = [call for call in held if call not in gone]
    # A burst of four at most is saved up.
    bench.ok(50)
    assert len(let_go(bench, held)) == math.ceil(TUNING.release_most)


def test_while_successes_are_slow_nobody_is_let_go() -> None:
    """An origin that comes back slow gets no burst on top."""
    bench = Bench({"hold_share": 1})
    bench.ok(30)
    bench.lose(ANSWERED, 5)
    calls = [bench.view(30.0) for _ in range(10)]
    for call in calls:
        bench.fail(call=call)
    bench.ok(latency=0.5)
    gone = let_go(bench, calls)
    assert len(gone) == 1, "the first one that finds out"
    bench.ok(20, latency=0.5)
    assert let_go(bench, [call for call in calls if call not in gone]) == []


def test_where_successes_stay_slow_silence_lets_go_one_call_at_a_time() -> None:
    """Else the last ones would wait in vain, as no usual success comes."""
    bench = Bench({"hold_share": 1})
    bench.ok(30)
    bench.lose(ANSWERED, 5)
    calls = [bench.view(30.0) for _ in range(5)]
    for call in calls:
        bench.fail(call=call)
    bench.ok(10, latency=0.5)
    bench.policy._flow.tokens = 20.0
    gone = let_go(bench, calls)
    assert len(gone) == 1
    for count in range(2, 6):
        held = [call for call in calls if call not in gone]
        bench.clock.now += 0.9 * TUNING.look_least
        assert let_go(bench, held) == []
        bench.clock.now += 0.2 * TUNING.look_least
        gone += let_go(bench, held)
        assert len(gone) == count


def test_an_outage_leaves_few_tokens_but_one() -> None:
    """What was saved up before it is no measure after it; held calls need one to begin with."""
    bench = Bench({"budget_initial": 20, "budget_deposit": 0})
    bench.lose(count=2)
    assert bench.policy.state(bench.clock.now) == "healthy"
    assert bench.tokens == 20.0
    bench.lose(count=20)
    assert bench.policy.state(bench.clock.now) == "down"
    assert bench.tokens == TUNING.outage_tokens
    bench = Bench({"budget_initial": 0, "budget_deposit": 0})
    bench.lose(count=5)
    bench.ok()
    assert bench.tokens == 1.0
    bench.ok()
    assert bench.tokens == 1.0


def test_while_a_call_is_held_no_time_is_quiet() -> None:
    """The successes that let it go have to be told."""
    bench = Bench()
    bench.down()
    call = bench.view(8.0)
    assert holds(bench.fail(call=call))
    bench.ok(3)
    assert bench.policy.quiet_until == -math.inf
    bench.policy.cancel(bench.clock.now, call)
    bench.ok()
    assert bench.policy.quiet_until > bench.clock.now
