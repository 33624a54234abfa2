"""The simulator agrees with what can be calculated.

Runs are deterministic, so tolerances are not a matter of luck: they are about three standard
errors of the simulated estimate.
"""

from __future__ import annotations

import math
import random
from typing import Literal

import pytest

from aiohttp_adaptive_retry.policy import AttemptOutcome, CallView
from benchmarks.efficacy.anchors_loops import Loop
from benchmarks.efficacy.engine import simulate
from benchmarks.efficacy.world import Arrival, Steps, World

NEVER = 1e9


def make(rate: float, count: int, *, workers: int, error: float = 0.0, servers: int = 1) -> World:
    """Return a world of Poisson arrivals and exponential services of mean 1 s, without limits."""
    rng = random.Random(7)
    time = 0.0
    arrivals = []
    for _ in range(count):
        time += rng.expovariate(rate)
        arrivals.append(Arrival(time, 0, time + NEVER, rng.getrandbits(64), False))
    return World(
        name="closed form",
        seed=7,
        clients=1,
        arrivals=arrivals,
        rate=Steps(rate),
        horizon=time,
        servers=servers,
        workers=workers,
        queue=10**9,
        service_mean=1.0,
        service="exponential",
        sigma=0.5,
        latency=0.0,
        attempt_timeout=NEVER,
        speed=Steps(1.0),
        errors=[Steps(error) for _ in range(servers)],
        error_mix=[(1.0, "503")],
        outages=[[] for _ in range(servers)],
    )


def erlang_c(workers: int, offered: float) -> float:
    """Return the chance to wait in M/M/c (Erlang 1917), by way of Erlang B's recursion."""
    blocked = 1.0
    for k in range(1, workers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    return blocked / (1.0 - offered / workers * (1.0 - blocked))


@pytest.mark.parametrize(("workers", "load"), [(1, 0.5), (1, 0.8), (4, 0.7), (10, 0.85)])
def test_waits_are_those_of_erlang_c(workers: int, load: float) -> None:
    """Share of calls that wait, and their mean wait, are those of M/M/c."""
    offered = load * workers
    run = simulate(make(offered, 120_000, workers=workers), Loop)
    waits = [record.waiting for record in run.records]
    expected = erlang_c(workers, offered)
    assert sum(wait > 1e-9 for wait in waits) / len(waits) == pytest.approx(expected, rel=0.03)
    mean = expected / (workers - offered)
    assert sum(waits) / len(waits) == pytest.approx(mean, rel=0.08)


def test_servers_behind_a_random_choice_are_queues_of_their_own() -> None:
    """Three servers that share a Poisson stream at random wait as one with a third of it."""
    run = simulate(make(3 * 0.7 * 2, 120_000, workers=2, servers=3), Loop)
    mean = sum(record.waiting for record in run.records) / len(run.records)
    assert mean == pytest.approx(erlang_c(2, 1.4) / (2 - 1.4), rel=0.08)


class Attempts(Loop):
    """Retries at once, up to ``limit`` attempts."""

    limit = 1

    def delay(self, now: float, call: CallView, outcome: AttemptOutcome) -> float | None:
        """Return 0 while attempts are left."""
        return 0.0 if call.attempts < self.limit else None


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
@pytest.mark.parametrize("error", [0.01, 0.2, 0.5])
def test_fixed_attempts_under_independent_errors(limit: int, error: float) -> None:
    """n attempts succeed with 1 - p**n and cost (1 - p**n) / (1 - p) attempts per request."""
    count = 40_000
    policy = type("Limited", (Attempts,), {"limit": limit})
    run = simulate(make(1.0, count, workers=50, error=error), policy)
    failed = error**limit
    success = sum(record.ok for record in run.records) / count
    assert success == pytest.approx(1 - failed, abs=3.5 * math.sqrt(failed / count) + 1e-4)
    amplification = len(run.attempt_times) / count
    assert amplification == pytest.approx((1 - failed) / (1 - error), rel=0.02)


def test_services_have_the_mean_they_should_whatever_their_shape() -> None:
    """Lognormal and exponential services have mean ``service_mean``."""
    shapes: tuple[Literal["lognormal", "exponential"], ...] = ("lognormal", "exponential")
    for shape in shapes:
        world = make(1.0, 50_000, workers=200)
        world.service = shape
        run = simulate(world, Loop)
        times = [record.ended - record.started for record in run.records]
        assert sum(times) / len(times) == pytest.approx(1.0, rel=0.02)
