"""Limits that the policy keeps whatever the numbers, driven by the simulator."""

from __future__ import annotations

import random
from typing import Literal

import pytest

from benchmarks.efficacy.conditions import make_world
from benchmarks.efficacy.engine import Run, simulate
from benchmarks.efficacy.ours import Ours, OursAdmitting
from benchmarks.efficacy.scoring import recovery_time
from benchmarks.efficacy.world import Arrival, Outage, Steps, World

POLICIES = {"default": Ours, "admission": OursAdmitting}
ERRORS = ("500", "502", "503", "ServerDisconnected")
#: The origin may have done the work of a time-out. So its retries come from the smallest share.
LEAST_MENDED: dict[tuple[str, ...], float] = {("Timeout",): 0.94}


def world(
    rate: float,
    horizon: float,
    *,
    seed: int = 1,
    outage: Outage | None = None,
    error: float = 0.0,
    mix: tuple[str, ...] = ERRORS,
    deadline: float = 10.0,
) -> World:
    """One client of that many requests a second, and a service that has room for it."""
    rng = random.Random(seed)
    time, arrivals = 0.0, []
    while (time := time + rng.expovariate(rate)) < horizon:
        arrivals.append(Arrival(time, 0, time + deadline, rng.getrandbits(64), False))
    return World(
        name="law",
        seed=seed,
        clients=1,
        arrivals=arrivals,
        rate=Steps(rate),
        horizon=horizon,
        servers=1,
        workers=max(8, round(rate)),
        queue=10_000,
        service_mean=0.05,
        service="exponential",
        sigma=0.5,
        latency=0.001,
        attempt_timeout=1.5,
        speed=Steps(1.0),
        errors=[Steps(error)],
        error_mix=[((n + 1) / len(mix), name) for n, name in enumerate(mix)],
        outages=[[outage] if outage else []],
        faults=[(outage.start, outage.end)] if outage else [],
    )


def amplification(run: Run, start: float, end: float) -> float:
    """Attempts sent in that time for each request begun in it."""
    asked = sum(start <= record.started < end for record in run.records)
    assert asked > 20
    return sum(start <= time < end for time in run.attempt_times) / asked


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["refused", "silent"])
@pytest.mark.parametrize(("rate", "length"), [(100.0, 60.0), (5.0, 300.0), (0.1, 3000.0)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_outage_costs_one_attempt_a_request(
    policy: str, mode: Literal["refused", "silent"], rate: float, length: float, seed: int
) -> None:
    """In a total outage there are at most 1.05 attempts a request, after its first seconds."""
    start = 10.0 / rate + 30.0
    outage = Outage(start, start + length, mode)
    run = simulate(world(rate, start + length, seed=seed, outage=outage), POLICIES[policy])
    first = 5.0 if rate > 1.0 else 60.0
    assert amplification(run, start + first, start + length) <= 1.05


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("mode", ["refused", "silent"])
def test_a_client_that_starts_in_an_outage_is_no_exception(
    policy: str, mode: Literal["refused", "silent"]
) -> None:
    """Nothing need be known of an origin for that."""
    run = simulate(world(20.0, 60.0, outage=Outage(0.0, 60.0, mode)), POLICIES[policy])
    assert amplification(run, 5.0, 60.0) <= 1.05


@pytest.mark.parametrize(
    "mix", [ERRORS, *((name,) for name in (*ERRORS, "Timeout", "ConnectionRefused"))], ids="-".join
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_independent_errors_are_mended(mix: tuple[str, ...], seed: int) -> None:
    """Of calls whose attempts fail by chance one time in five, 99.5 % succeed, with 1.27 attempts.

    Without bound on attempts it would be 1 / 0.8 = 1.25; with five, 1 - 0.2 ** 5 = 99.97 %. Of
    time-outs seven of ten that retries could mend are mended.
    """
    run = simulate(world(20.0, 600.0, error=0.2, mix=mix, seed=seed), Ours)
    assert len(run.records) > 10_000
    mended = sum(record.ok for record in run.records) / len(run.records)
    assert mended >= LEAST_MENDED.get(mix, 0.995)
    assert len(run.attempt_times) / len(run.records) <= 1.27


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("condition", ["outage_refused", "outage_timeout"])
@pytest.mark.parametrize("seed", range(50, 54))
def test_service_is_back_within_two_seconds(policy: str, condition: str, seed: int) -> None:
    """After the end of an outage that many clients waited for, calls succeed as before it."""
    run = simulate(make_world(condition, seed), POLICIES[policy])
    assert recovery_time(run) <= 2.0


@pytest.mark.parametrize("policy", POLICIES)
def test_a_crowd_that_waited_does_not_come_at_once(policy: str) -> None:
    """In no 100 ms after an outage is more sent than the service can work off in a second."""
    made = make_world("outage_refused", 50)
    end = made.faults[-1][1]
    run = simulate(made, POLICIES[policy])
    waited = sum(record.started < end < record.ended for record in run.records)
    assert waited > 100
    after = [time for time in run.attempt_times if end <= time < end + 5.0]
    for tick in range(50):
        start = end + tick / 10
        assert sum(start <= time < start + 0.1 for time in after) <= made.capacity


def test_the_law_fails_without_its_policy() -> None:
    """The check can fail: the loop that everyone writes breaks it."""
    from benchmarks.efficacy.anchors_loops import FixedThree

    made = world(20.0, 90.0, outage=Outage(30.0, 90.0, "refused"))
    assert amplification(simulate(made, FixedThree), 35.0, 90.0) > 2.0
