"""What holds in every run through random worlds, whatever the policy."""

from __future__ import annotations

from typing import Any

import pytest

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, CallView, GiveUp, Wait
from benchmarks.efficacy.anchors_loops import FixedThree, Loop
from benchmarks.efficacy.ours import Ours
from benchmarks.efficacy.policy import PolicyFactory
from benchmarks.efficacy.registry import NONE
from benchmarks.efficacy.worlds.engine import Simulation, Tally, simulate
from benchmarks.efficacy.worlds.make import make_random_world
from benchmarks.efficacy.worlds.plan import (
    DROPPED,
    LOOPS,
    REFUSED,
    TIMEOUT,
    Errors,
    LoopKind,
    Outage,
    Planned,
    RandomWorld,
    SitePlan,
)
from benchmarks.efficacy.worlds.policies import JUDGED, POLICIES, PURSES, find, judged
from benchmarks.efficacy.worlds.results import result, run_world

FIRST = 6000


def single(plan: dict[str, Any], calls: list[Planned], attempt_timeout: float = 1.0) -> RandomWorld:
    """A world of one server, 0.5 s of service each time and 50 ms each way."""
    common: dict[str, Any] = {
        "servers": 1,
        "workers": 1,
        "queue": 100,
        "service": 0.5,
        "sigma": 1e-9,
        "latency": 0.05,
        "forgets": False,
        "speeds": [None],
        "outages": [[]],
        "errors": [[]],
    }
    site = SitePlan(**common | plan)
    return RandomWorld(1, "open", (), "by hand", [site], attempt_timeout, calls, len(calls))


def call(time: float = 0.0, patience: float = 10.0) -> Planned:
    """A call of client 0."""
    return Planned(time, 0, 0, patience, 1)


class Later(Loop):
    """Waits a second before each attempt, the first one included."""

    def arrive(self, now: float, call: CallView) -> Action:
        return Wait(1.0)

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        return 1.0


def test_waiting_by_hand() -> None:
    """Queueing and holding back count, the service and the round trip of a success do not."""
    alone = simulate(single({}, [call()]), Loop)
    assert alone.succeeded == 1
    assert alone.attempts == 1
    assert alone.waiting == pytest.approx(0.0)
    queued = simulate(single({}, [call(), call(0.2)]), Loop)
    assert queued.waiting == pytest.approx(0.3)
    held = simulate(single({}, [call(patience=4.0)]), Later)
    assert held.waiting == pytest.approx(1.0)
    assert held.share == pytest.approx(0.25)
    late = simulate(single({"service": 3.0}, [call()]), Loop)
    assert late.succeeded == 0
    assert late.waiting == pytest.approx(1.0)
    refused = {"outages": [[Outage(0.0, 1.0, "refused")]]}
    failed = simulate(single(refused, [call()]), Loop)
    assert failed.waiting == pytest.approx(0.1)
    assert failed.reasons == {"no retry": 1}
    mended = simulate(single(refused, [call()]), FixedThree)
    assert (mended.succeeded, mended.attempts) == (1, 2)
    assert mended.waiting == pytest.approx(1.1)


def test_a_wait_beyond_the_deadline_ends_the_call_at_once() -> None:
    """The policy is told by `cancel`; an attempt that outlasts the deadline ends there."""
    cancelled = []

    class Told(FixedThree):
        def cancel(self, now: float, call: CallView) -> None:
            cancelled.append(round(now, 6))

    world = single({"outages": [[Outage(0.0, 9.0, "refused")]]}, [call(patience=1.1)])
    tally = simulate(world, Told)
    assert tally.waiting == pytest.approx(0.1)
    assert tally.reasons == {"deadline": 1}
    tally = simulate(single({"service": 3.0}, [call(patience=0.8)]), Told)
    assert tally.waiting == pytest.approx(0.8)
    assert tally.share == pytest.approx(1.0)
    assert cancelled == [0.1, 0.8]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (REFUSED, (True, False, False)),
        (TIMEOUT, (True, True, False)),
        (DROPPED, (False, False, False)),
        ("500", (False, False, False)),
        ("503", (False, True, False)),
        ("504", (False, True, False)),
        ("429", (False, False, True)),
    ],
)
def test_outcomes_are_as_the_middleware_classifies_them(
    kind: str, fields: tuple[bool, bool, bool]
) -> None:
    """No response, overload, limited."""
    seen = []

    class Told(Loop):
        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            seen.append(outcome)
            return GiveUp("seen")

    simulate(single({"errors": [[Errors(0.0, 9.0, 1.0, (kind,))]]}, [call()]), Told)
    assert [(one.no_response, one.overload, one.limited) for one in seen] == [fields]
    assert seen[0].error_type == kind


def test_a_success_carries_its_latency() -> None:
    """From sending to knowing."""
    seen = []

    class Told(Loop):
        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            seen.append(outcome.latency)
            return SEND

    simulate(single({}, [call(), call()], 5.0), Told)
    assert seen == [pytest.approx(0.6), pytest.approx(1.1)]


def test_aiohttp_mends_one_dead_connection_itself() -> None:
    """Bare aiohttp sends once more; a policy that sees lost connections decides by itself."""
    plan = {"stale": [(1.0, 1)]}
    bare = simulate(single(plan, [call(), call(2.0)]), Loop)
    assert (bare.succeeded, bare.attempts) == (2, 3)
    seen = []

    class Sees(Loop):
        sees_reused = True

        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            seen.append(outcome.reused_connection)
            return GiveUp("seen")

    tally = simulate(single(plan, [call(), call(2.0)]), Sees)
    assert (tally.succeeded, tally.attempts, seen) == (1, 2, [False, True])
    twice = simulate(single({"stale": [(1.0, 2)]}, [call(), call(2.0)]), Loop)
    assert (twice.succeeded, twice.attempts) == (1, 3)


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("loop", LOOPS)
def test_books_balance(name: str, loop: LoopKind) -> None:
    """Every call ends once, what clients sent is what sites met, and waiting fits into patience."""
    for number in range(FIRST, FIRST + 4):
        world = make_random_world(number, loop)
        simulation = Simulation(world)
        factory = POLICIES[name]

        def make(
            client: int, site: int, made: PolicyFactory = factory, run: Simulation = simulation
        ) -> Any:
            return made(run.clock, lambda: 0.5)

        tally = simulation.run(make, getattr(factory, "sees_reused", False))
        assert tally.calls == world.calls
        met = sum(sum(site.offered.values()) for site in simulation.sites)
        served = sum(site.offered.get("", 0) for site in simulation.sites)
        assert met == tally.attempts
        assert tally.succeeded <= served
        assert sum(tally.reasons.values()) == tally.calls - tally.succeeded
        assert 0.0 <= tally.share <= tally.calls
        if name == NONE:
            lost = sum(site.offered.get("lost", 0) for site in simulation.sites)
            assert tally.attempts - lost <= tally.calls <= tally.attempts


@pytest.mark.parametrize("policy", [FixedThree, Ours])
def test_a_caller_of_a_closed_loop_has_one_call_in_flight(policy: type[Any]) -> None:
    """The next one begins when the one before is over and the pause has passed, not earlier."""
    ended: dict[int, float] = {}
    begun: dict[int, tuple[float, Planned]] = {}
    makes = policy

    class Told:
        sees_reused = getattr(makes, "sees_reused", False)

        def __init__(self, clock: Any, random: Any) -> None:
            self.inner = makes(clock, random)

        def note(self, now: float, call: Any, action: Action, over: bool = False) -> Action:
            beyond = isinstance(action, Wait) and now + action.seconds >= call.deadline
            if over or beyond or isinstance(action, GiveUp):
                ended[id(call.plan)] = now
            return action

        def arrive(self, now: float, call: Any) -> Action:
            begun[id(call.plan)] = now, call.plan
            return self.note(now, call, self.inner.arrive(now, call))

        def outcome(self, now: float, call: Any, outcome: AttemptOutcome) -> Action:
            return self.note(now, call, self.inner.outcome(now, call, outcome), outcome.ok)

        def wake(self, now: float, call: Any) -> Action:
            return self.note(now, call, self.inner.wake(now, call))

        def cancel(self, now: float, call: Any) -> None:
            ended[id(call.plan)] = now
            self.inner.cancel(now, call)

    for number in range(FIRST, FIRST + 5):
        world = make_random_world(number, "closed")
        simulate(world, Told)
        assert len(begun) == len(ended) == world.calls
        for _, plan in begun.values():
            if plan.next is not None:
                start = begun[id(plan.next)][0]
                assert start == pytest.approx(ended[id(plan)] + plan.next.time)
        begun.clear()
        ended.clear()


@pytest.mark.parametrize("loop", LOOPS)
def test_runs_are_equal_to_the_last_bit(loop: LoopKind) -> None:
    """The same world and policy again give the same result, whatever ran before."""
    for number in range(FIRST, FIRST + 3):
        first, second = (run_world(number, loop, ["ours", NONE]) for _ in range(2))
        assert first == second
        alone = run_world(number, loop, ["ours"])
        assert alone.results["ours"] == first.results["ours"]


def test_purses_are_linear() -> None:
    """A value is a sum over what calls came to, so twice the calls have the same mean."""
    once = Tally(calls=10, succeeded=8, attempts=14, waiting=30.0, share=2.0)
    twice = Tally(calls=20, succeeded=16, attempts=28, waiting=60.0, share=4.0)
    assert [result(once).value(p) for p in PURSES] == [result(twice).value(p) for p in PURSES]
    values = {purse: result(once).value(purse) for purse in PURSES}
    assert values == {
        "patience": pytest.approx(100 * (0.8 - 0.14 - 0.25 * 0.2)),
        "second": pytest.approx(100 * (0.8 - 0.14 - 0.25 * 3.0)),
        "minute": pytest.approx(100 * (0.8 - 0.14 - 0.25 * 3.0 / 60.0)),
    }


def test_policies_are_found_by_name_and_by_place() -> None:
    """And each is judged on purses that there are."""
    assert find("benchmarks.efficacy.anchors_loops:FixedThree") is find("fixed3") is FixedThree
    for name, purses in JUDGED.items():
        assert name in POLICIES
        assert set(purses) <= set(PURSES)
    assert all(judged("none", purse) for purse in PURSES)
