"""First attempts with `admission=True`: parked, thinned or refused where there is trouble."""

from __future__ import annotations

from aiohttp_adaptive_retry.policy import SEND, GiveUp, Wait

from .bench import Bench, View, limited, parks


def test_calls_parked_for_congestion_find_out_where_nobody_else_calls() -> None:
    """The last calls of a burst are sent one by one, and what they find ends the congestion."""
    bench = Bench({"admission": True}, chance=0.99)
    bench.ok(100)
    bench.ok(40, latency=0.5)
    assert bench.state == "congested"
    assert bench.policy.health.admission_rate < 1.0
    bench.policy.health.last_sent = bench.clock.now
    due: dict[View, float] = {}
    for call in (View() for _ in range(8)):
        action = bench.arrive(call)
        assert isinstance(action, Wait)
        assert parks(action)
        due[call] = bench.clock.now + action.seconds
    sent = 0
    while due:
        call = min(due, key=due.__getitem__)
        bench.clock.now = due.pop(call)
        action = bench.policy.wake(bench.clock.now, call)
        assert not isinstance(action, GiveUp)
        if isinstance(action, Wait):
            due[call] = bench.clock.now + action.seconds
        else:
            sent += 1
            bench.policy.succeeded(bench.clock.now, 0.02, call.state)
    assert sent == 8
    assert bench.policy.parked_calls == 0


def test_a_clock_set_back_shuts_no_door() -> None:
    """A limit that seems to end in a day is none; a probe that seems to be yet to come is over."""
    bench = Bench({"admission": True})
    bench.fail(limited(5.0))
    assert parks(bench.arrive())
    assert bench.arrive(after=-86_400) is SEND
    bench = Bench({"admission": True})
    bench.down()
    assert bench.arrive(after=5) is SEND
    assert bench.arrive(after=-86_400) is SEND


def test_one_probe_at_a_time_goes_to_an_origin_that_is_down() -> None:
    """The others wait, and all go, at a pace, when it is back."""
    bench = Bench({"admission": True})
    assert bench.arrive() is SEND
    bench.down()
    bench.clock.now += 5
    calls = [View() for _ in range(10)]
    assert [parks(bench.arrive(call)) for call in calls] == [False] + [True] * 9
    bench.ok(latency=0.05, call=calls[0])
    gone, waiting = 0, calls[1:]
    for _ in range(200):
        bench.clock.now += 0.05
        left = []
        for call in waiting:
            action = bench.policy.wake(bench.clock.now, call)
            if parks(action):
                left.append(call)
            else:
                assert action is SEND
                gone += 1
                bench.ok(call=call)
        waiting = left
    assert gone == 9
    assert bench.policy.parked_calls == 0


def test_a_call_out_of_time_is_refused() -> None:
    """What can't be sent before its deadline is not sent, and nothing of it stays parked."""
    bench = Bench({"admission": True})
    bench.down()
    bench.arrive(after=1)
    now = bench.clock.now + 1
    assert bench.policy.arrive(now, View(deadline=now + 0.01)) == GiveUp("deadline")
    assert bench.policy.parked_calls == 0


def test_without_admission_first_attempts_are_sent_whatever_happens() -> None:
    """An origin that is down and limiting gets every first attempt."""
    bench = Bench()
    bench.fail(limited(5.0))
    assert bench.arrive() is SEND
    bench.down()
    assert [bench.arrive() for _ in range(5)] == [SEND] * 5
