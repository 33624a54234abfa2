"""Laws of the sites that random worlds are made of."""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from typing import Any, Literal

import pytest

from benchmarks.efficacy.worlds.limiter import Limiter
from benchmarks.efficacy.worlds.plan import (
    DROPPED,
    REFUSED,
    TIMEOUT,
    Errors,
    Limit,
    Outage,
    Planned,
    Scaling,
    SitePlan,
    Speed,
)
from benchmarks.efficacy.worlds.site import Site


def limit(kind: Literal["window", "bucket"], rate: float, span: float, **more: Any) -> Limit:
    """A limit for all, all the time."""
    common: dict[str, Any] = {"shared": True, "says": "exact", "absurd": 0.0, "punish": 0.0}
    return Limit(kind=kind, rate=rate, span=span, start=0.0, end=math.inf, **common | more)


def plan(**fields: Any) -> SitePlan:
    """One server with one worker, 100 ms of service on average, and a deep queue."""
    count = fields.get("servers", 1)
    common: dict[str, Any] = {
        "servers": 1,
        "workers": 1,
        "queue": 1000,
        "service": 0.1,
        "sigma": 0.0,
        "latency": 0.0,
        "forgets": False,
        "speeds": [None] * count,
        "outages": [[]] * count,
        "errors": [[]] * count,
    }
    return SitePlan(**common | fields)


def call(key: int = 1, client: int = 0, **fields: Any) -> Planned:
    """A call that comes at once."""
    return Planned(0.0, client, 0, 10.0, key, **fields)


def passed(limiter: Limiter, rng: random.Random, rate: float, client: int = 0) -> list[float]:
    """When requests pass that come at random, in bursts and alone."""
    time, times = 0.0, []
    while time < 60.0:
        time += rng.expovariate(rate) if rng.random() < 0.3 else 0.0
        if limiter.refuse(client, time) is None:
            times.append(time)
    return times


def most_within(times: list[float], length: float) -> int:
    """The most of these times that lie in any stretch shorter than ``length``."""
    return max(bisect_left(times, time + length) - index for index, time in enumerate(times))


@pytest.mark.parametrize("seed", range(10))
def test_a_bucket_never_passes_more_than_it_may(seed: int) -> None:
    """In any stretch of t seconds at most rate * t + depth requests pass."""
    rng = random.Random(seed)
    rate, span = math.exp(rng.uniform(-2, 3)), math.exp(rng.uniform(-1, 3))
    times = passed(Limiter(limit("bucket", rate, span)), rng, 3.0 * rate)
    for length in (0.1, 1.0, 7.0, 30.0):
        assert most_within(times, length) <= rate * length + max(1.0, rate * span) + 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_a_window_never_passes_more_than_it_may(seed: int) -> None:
    """Between two turns of the window at most its number passes, and not much less of a crowd."""
    rng = random.Random(seed)
    rate, span = math.exp(rng.uniform(-2, 3)), math.exp(rng.uniform(-1, 3))
    room = max(1.0, round(rate * span))
    long = room / rate
    times = passed(Limiter(limit("window", rate, span)), rng, 20.0 * rate)
    counts: dict[int, int] = {}
    for time in times:
        counts[math.floor(time / long)] = counts.get(math.floor(time / long), 0) + 1
    assert max(counts.values()) <= room
    assert len(times) <= rate * 60.0 + room + 1.0


@pytest.mark.parametrize("kind", ["window", "bucket"])
def test_what_a_limiter_says_is_true(kind: Literal["window", "bucket"]) -> None:
    """Who comes back after exactly what was said, alone, passes; a moment before it, not."""
    rng = random.Random(3)
    for _ in range(200):
        limiter = Limiter(limit(kind, 2.0, 3.0))
        time, wait = rng.random() * 9, None
        while wait is None:
            wait = limiter.refuse(0, time)
        assert limiter.refuse(0, time + wait * 0.99) is not None
        assert limiter.refuse(0, time + wait + 1e-6) is None


@pytest.mark.parametrize(
    ("says", "said"), [("exact", 1.25), ("rounded", 2.0), ("absent", None), ("absurd", 3600.0)]
)
def test_retry_after(says: str, said: float | None) -> None:
    """As it is, rounded up, not at all, or nonsense."""
    limiter = Limiter(limit("bucket", 1.0, 1.0, says=says, absurd=3600.0))
    assert limiter.said(1.25) == said


def test_clients_have_accounts_of_their_own() -> None:
    """A limit for each client is not spent by others; one for all is."""
    own, shared = (Limiter(limit("bucket", 1.0, 1.0, shared=s)) for s in (False, True))
    assert [own.refuse(client, 0.0) for client in range(3)] == [None] * 3
    assert [shared.refuse(client, 0.0) is None for client in range(3)] == [True, False, False]


def test_a_punishing_limiter_lets_those_in_who_wait() -> None:
    """Who goes on during the ban begins it anew; who keeps still for its length passes."""
    limiter = Limiter(limit("bucket", 1.0, 1.0, punish=5.0))
    assert limiter.refuse(0, 0.0) is None
    assert [limiter.refuse(0, time) for time in (0.5, 3.0, 7.0)] == [5.0, 5.0, 5.0]
    assert limiter.refuse(0, 12.1) is None


def test_work_takes_what_the_speed_allows() -> None:
    """The end of work is where the integral of the speed reaches it."""
    rng = random.Random(4)
    for _ in range(100):
        edges = sorted(rng.uniform(0, 20) for _ in range(6))
        speeds = [*(rng.choice((0.0, 0.3, 1.0, 2.0)) for _ in range(5)), 1.0]
        speed = Speed(zip(edges, speeds, strict=True))
        start, work = rng.uniform(0, 25), rng.uniform(0.01, 5)
        end = speed.end(start, work)
        steps = [(0.0, edges[0], 1.0), *zip(edges, [*edges[1:], math.inf], speeds, strict=True)]
        done = sum(max(0.0, min(b, end) - max(a, start)) * v for a, b, v in steps)
        assert done == pytest.approx(work)


def test_a_speed_that_ends_in_a_pause_is_refused() -> None:
    """Work would never end."""
    with pytest.raises(ValueError, match="for ever"):
        Speed([(1.0, 0.0)])


def test_a_full_queue_says_so_and_an_abandoned_place_costs_nothing() -> None:
    """Beside the one being served one may wait; a site that forgets skips who has left."""
    site = Site(plan(queue=1, full=REFUSED), 60.0)
    fates = [site.attempt(0.0, call(key), 0, 99.0)[0] for key in range(3)]
    assert fates == ["", "", REFUSED]
    for forgets, later in ((False, 6.0), (True, 2.0)):
        site = Site(plan(sigma=1e-9, service=2.0, forgets=forgets), 1.0)
        for key in range(3):
            site.attempt(0.0, call(key), 0, 99.0)
        assert site.servers[0].busy_until == [pytest.approx(later)]


@pytest.mark.parametrize(
    ("mode", "inside", "caught"),
    [("refused", REFUSED, DROPPED), ("silent", TIMEOUT, TIMEOUT), ("503", "503", DROPPED)],
)
def test_outages(mode: Literal["refused", "silent", "503"], inside: str, caught: str) -> None:
    """What comes in an outage fails, what is in hand when it begins is lost, then all is well."""
    outages = [[Outage(1.0, 2.0, mode, 7.0 if mode == "503" else None)]]
    site = Site(plan(sigma=1e-9, service=0.5, outages=outages), 5.0)
    found = [site.attempt(time, call(), 0, 99.0) for time in (0.0, 0.8, 1.5, 2.1)]
    assert [fate for fate, *_ in found] == ["", caught, inside, ""]
    assert found[2][3] == (7.0 if mode == "503" else None)
    assert found[0][1] == found[0][2] == pytest.approx(0.5)


def test_hopeless_heavy_sticky_and_chance() -> None:
    """Hopeless calls fail, heavy calls are slow again and again, errors come by chance."""
    site = Site(plan(sigma=1e-9, workers=9, hopeless="502"), 60.0)
    assert [site.attempt(0.0, call(hopeless=True), n, 99.0)[0] for n in range(5)] == ["502"] * 5
    assert site.attempt(0.0, call(weight=20.0), 1, 99.0)[1] == pytest.approx(2.0)
    errors = [[Errors(0.0, 9.0, 0.2, ("503", "500"))]]
    site = Site(plan(workers=5000, errors=errors), 60.0)
    fates = [site.attempt(1.0, call(key * 977), 0, 99.0)[0] for key in range(4000)]
    assert 0.17 < sum(fate in ("503", "500") for fate in fates) / 4000 < 0.23
    assert site.attempt(9.0, call(), 0, 99.0)[0] == ""
    bad = [[], [Errors(0.0, 9.0, 1.0, ("502",))]]
    site = Site(plan(servers=2, sticky=True, errors=bad), 60.0)
    assert {site.attempt(0.0, call(key, 1), n, 99.0)[0] for key in (1, 2) for n in (0, 1)} == {
        "502"
    }


def test_workers_follow_the_work() -> None:
    """Under load there are more, up to the most; when it is over they go again."""
    scaling = Scaling(period=1.0, goal=0.5, boot=0.5, most=8)
    site = Site(plan(scaling=scaling), 60.0)
    workers = []
    for tick in range(400):
        for extra in range(3 if tick < 200 else 0):
            site.attempt(tick * 0.05, call(tick * 9 + extra), 0, 999.0)
        if tick >= 200 and tick % 20 == 0:
            site.attempt(tick * 0.05 + 60.0, call(tick), 0, 999.0)
        workers.append(site.servers[0].workers)
        assert len(site.servers[0].busy_until) == workers[-1]
    assert max(workers) == 8
    assert workers[-1] == 1


def test_dead_connections_are_met_once_each() -> None:
    """After a burst a known client meets as many as its pool had; a new client meets none."""
    site = Site(plan(stale=[(1.0, 2), (2.0, 2)]), 60.0)
    assert not site.dead_connection(1.5, call(1, 0), 0)
    assert [site.dead_connection(2.5, call(n, 0), 0) for n in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert not site.dead_connection(2.5, call(9, 5), 0)
    assert site.offered == {"lost": 2}
