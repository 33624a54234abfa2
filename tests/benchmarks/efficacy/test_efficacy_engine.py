"""What holds in every run, whatever the policy and the condition."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, CallView, GiveUp, Wait
from benchmarks.efficacy.anchors_loops import FixedThree, Loop
from benchmarks.efficacy.clairvoyant import simulate_bound
from benchmarks.efficacy.conditions import CONDITIONS, make_world
from benchmarks.efficacy.engine import Run, simulate
from benchmarks.efficacy.policy import ERRORS, Call
from benchmarks.efficacy.registry import POLICIES
from benchmarks.efficacy.scoring import regret, score
from benchmarks.efficacy.world import RateLimit, Steps, World


def shorten(world: World, count: int = 500) -> World:
    """Keep the first requests only, for speed."""
    world.arrivals = world.arrivals[:count]
    return world


def check(run: Run) -> None:
    """Assert what must hold of every run."""
    records, world = run.records, run.world
    assert len(records) == len(world.arrivals)
    assert sum(record.attempts for record in records) == len(run.attempt_times)
    assert sum(run.offered.values()) == len(run.attempt_times) == sum(run.per_server)
    assert set(run.offered) <= {"served", *ERRORS}
    # The server may serve what the client has stopped waiting for, never the other way round.
    assert run.offered.get("served", 0) >= sum(record.ok for record in records)
    for record in records:
        assert 0.0 <= record.waiting <= record.ended - record.started + 1e-9
        assert record.attempts >= record.ok


@pytest.mark.parametrize("condition", CONDITIONS)
def test_nothing_gets_lost(condition: str) -> None:
    """Every request ends once; attempts counted at clients and at servers are the same."""
    for factory in POLICIES.values():
        check(simulate(shorten(make_world(condition, 3)), factory))
    check(simulate_bound(shorten(make_world(condition, 3)))[0])


@pytest.mark.parametrize("policy", POLICIES)
def test_equal_seeds_give_equal_runs(policy: str) -> None:
    """Two runs of one world are equal to the last bit; another seed's is different."""

    def times(seed: int) -> list[float]:
        return simulate(shorten(make_world("flapping", seed)), POLICIES[policy]).attempt_times

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_luck_does_not_depend_on_the_policy() -> None:
    """Without load, the calls whose first attempt fails are the same under every policy."""
    world = make_world("errors_5%", 0)
    without = {r.started for r in simulate(world, Loop).records if not r.ok}
    retried = {r.started for r in simulate(world, FixedThree).records if r.attempts > 1}
    assert without == retried


def test_seeds_vary_the_numbers() -> None:
    """No number of a world is the same in all seeds."""
    worlds = [make_world("brownout", seed) for seed in range(8)]
    numbers = [
        (
            world.service_mean,
            world.attempt_timeout,
            world.faults[0][0],
            world.faults[0][1] - world.faults[0][0],
            world.speed.values[1],
            world.rate.values[0],
            world.clients,
        )
        for world in worlds
    ]
    for column in zip(*numbers, strict=True):
        assert len(set(column)) > 4


def test_servers_work_on_for_those_who_gave_up() -> None:
    """Many served answers come too late under overload; that work is wasted."""
    run = simulate(make_world("pause_at_load", 0), FixedThree)
    assert run.offered["served"] > 1.2 * sum(record.ok for record in run.records)


def test_overload_outlives_its_cause() -> None:
    """Metastable failure: after a pause of seconds, retries keep a healthy service down."""
    world = make_world("pause_at_load", 0)
    end = world.faults[-1][1] + 15.0
    late = [r.ok for r in simulate(world, FixedThree).records if r.started > end]
    assert sum(late) / len(late) < 0.2
    late = [r.ok for r in simulate(world, Loop).records if r.started > end]
    assert sum(late) / len(late) > 0.9


def test_a_hold_that_outlasts_the_deadline_is_cut_there() -> None:
    """The call fails at its deadline, having waited all the time; nothing was sent."""
    cancelled: list[float] = []

    class Holder(Loop):
        def arrive(self, now: float, call: CallView) -> Action:
            return Wait(1e6)

        def cancel(self, now: float, call: CallView) -> None:
            assert call.deadline is not None
            cancelled.append(now - call.deadline)

    run = simulate(shorten(make_world("errors_1%", 0), 50), Holder)
    assert cancelled == [0.0] * 50
    assert not run.attempt_times
    assert {record.ok for record in run.records} == {False}
    assert all(math.isclose(r.waiting, r.ended - r.started) for r in run.records)


def test_giving_up_at_once_costs_nothing() -> None:
    """A call that is not sent has value 0; its reason is counted."""

    class Never(Loop):
        def arrive(self, now: float, call: CallView) -> Action:
            return GiveUp("never")

    run = simulate(shorten(make_world("errors_1%", 0), 50), Never)
    assert score(run).value == 0.0
    assert run.reasons == {"never": 50}


def test_a_policy_that_waits_for_ever_without_waiting_is_caught() -> None:
    """Endless waits of zero seconds raise instead of hanging."""

    class Spinner(Loop):
        def arrive(self, now: float, call: CallView) -> Action:
            return Wait(0.0)

        def wake(self, now: float, call: CallView) -> Action:
            return Wait(0.0)

    with pytest.raises(RuntimeError, match="again and again"):
        simulate(shorten(make_world("errors_1%", 0), 1), Spinner)


@pytest.mark.parametrize(
    ("condition", "error"), [("outage_refused", "ConnectionRefused"), ("outage_timeout", "Timeout")]
)
def test_outages_are_seen_as_they_are(condition: str, error: str) -> None:
    """A dead process refuses at once; a cut network lets attempts time out."""
    world = make_world(condition, 0)
    start, end = world.faults[0]
    errors: Counter[str] = Counter()

    class Watcher(Loop):
        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            sent = now - outcome.latency
            if start <= sent < end - world.attempt_timeout:
                errors[outcome.error_type] += 1
            return super().outcome(now, call, outcome)

    simulate(world, Watcher)
    assert set(errors) == {error}


def test_rate_limits_hold_and_say_when_to_come_back() -> None:
    """No more than the limit passes in a window, and Retry-After is whole seconds up to its end."""
    limit = RateLimit(3.0, Steps(5.0))
    world = make_world("rate_limit", 0)
    world.limit = limit
    world.latency = 0.0
    passed: Counter[tuple[int, int]] = Counter()

    class Watcher(Loop):
        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            assert isinstance(call, Call)
            sent = now - outcome.latency
            index = limit.index(call.client, sent)
            if outcome.error_type == "429":
                assert outcome.retry_after is not None
                left = limit.start(call.client, index + 1) - sent
                assert outcome.retry_after == max(1, math.ceil(left - 1e-9))
            else:
                passed[call.client, index] += 1
            return super().outcome(now, call, outcome)

    simulate(world, Watcher)
    assert max(passed.values()) <= 5 + 1  # latency of 0: rounding may shift one at the edge
    assert len(passed) > 100


@pytest.mark.parametrize("condition", ["outage_refused", "rate_limit", "flapping"])
def test_no_policy_beats_the_bound(condition: str) -> None:
    """The clairvoyant client's value is above every policy's, but for the luck of one world."""
    world = make_world(condition, 11)
    best = score(simulate_bound(world)[0]).value
    for factory in POLICIES.values():
        assert score(simulate(world, factory)).value <= best + 0.0015


def test_regret_is_zero_at_the_bound_and_one_at_the_worst_end() -> None:
    """The scale's ends are where they are said to be; a tiny stake is not blown up."""
    assert regret(0.9, 0.9, 0.7, 0.8) == 0.0
    assert regret(0.7, 0.9, 0.7, 0.8) == 1.0
    assert regret(0.89999, 0.9, 0.89999, 0.9) == pytest.approx(0.02)
