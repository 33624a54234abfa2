"""Worlds drawn at random: a number says everything, and the ranges are wide."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict

import pytest

from benchmarks.efficacy.worlds.make import make_random_world
from benchmarks.efficacy.worlds.plan import LOOPS, LoopKind, Planned, RandomWorld, Speed
from benchmarks.efficacy.worlds.troubles import CUSTOMS, TROUBLES

FIRST, COUNT = 5000, 150


@pytest.fixture(scope="module")
def worlds() -> dict[LoopKind, list[RandomWorld]]:
    """Some worlds of both kinds."""
    numbers = range(FIRST, FIRST + COUNT)
    return {loop: [make_random_world(number, loop) for number in numbers] for loop in LOOPS}


def chain(planned: Planned) -> list[Planned]:
    """A caller's calls."""
    found, following = [planned], planned.next
    while following is not None:
        found.append(following)
        following = following.next
    return found


def plain(world: RandomWorld) -> object:
    """All of a world as plain values."""
    fields = [name for name in Planned.__slots__ if name != "next"]
    calls = [[getattr(call, f) for f in fields] for one in world.first for call in chain(one)]
    sites = [asdict(site) for site in world.sites]
    for site in sites:
        site["speeds"] = [
            speed and [getattr(speed, name) for name in Speed.__slots__] for speed in site["speeds"]
        ]
    return calls, sites, world.description, world.families, world.attempt_timeout


@pytest.mark.parametrize("loop", LOOPS)
def test_a_number_gives_the_same_world_again(loop: LoopKind) -> None:
    """Equal numbers, equal worlds; other numbers and loops, other worlds."""
    seen = set()
    for number in range(FIRST, FIRST + 12):
        first, second = (plain(make_random_world(number, loop)) for _ in range(2))
        assert repr(first) == repr(second)
        seen.add(repr(first))
    assert len(seen) == 12


def test_every_kind_of_trouble_is_met(worlds: dict[LoopKind, list[RandomWorld]]) -> None:
    """Each family is in a few of some hundred worlds, and a third of them has two kinds."""
    for loop, mine in worlds.items():
        families = Counter(family for world in mine for family in world.families)
        asked = {*TROUBLES, *CUSTOMS, "origins", "slow_start", "punishing"}
        assert set(families) == asked - ({"bursts"} if loop == "closed" else set())
        assert min(families.values()) >= 1
        two = sum(len([f for f in world.families if f in TROUBLES]) == 2 for world in mine)
        assert 0.2 < two / len(mine) < 0.45


def test_worlds_are_small_and_said_in_a_line(worlds: dict[LoopKind, list[RandomWorld]]) -> None:
    """A thousand of them have to run in minutes."""
    for mine in worlds.values():
        calls = sorted(world.calls for world in mine)
        assert calls[0] >= 90
        assert calls[-1] <= 5000
        assert 300 <= calls[len(calls) // 2] <= 1500
        for world in mine:
            assert "\n" not in world.description
            assert str(world.number) in world.description


def test_calls_are_in_order_and_in_range(worlds: dict[LoopKind, list[RandomWorld]]) -> None:
    """Arrivals are sorted, and patience, clients and origins are what was drawn."""
    for loop, mine in worlds.items():
        for world in mine:
            times = [planned.time for planned in world.first]
            assert times == sorted(times)
            everything = [call for planned in world.first for call in chain(planned)]
            assert len(everything) == world.calls
            assert {call.site for call in everything} <= set(range(len(world.sites)))
            assert all(0.5 < call.patience < 80.0 for call in everything)
            assert 1 <= len({call.client for call in everything}) <= 2500
            if loop == "closed":
                assert 1 <= len(world.first) <= 64


def test_numbers_are_wide(worlds: dict[LoopKind, list[RandomWorld]]) -> None:
    """Service, time-outs and patience reach over decades, and some worlds have no queue."""
    for mine in worlds.values():
        service = [world.sites[0].service for world in mine]
        assert min(service) < 0.02
        assert 0.2 < max(service) <= 0.4
        timeouts = [world.attempt_timeout for world in mine]
        assert min(timeouts) < 0.5
        assert max(timeouts) > 8.0
        assert sum(world.sites[0].queue == 0 for world in mine) > 5
        patience = [world.first[0].patience for world in mine]
        assert min(patience) < 1.5
        assert max(patience) > 40.0


def test_outages_do_not_overlap(worlds: dict[LoopKind, list[RandomWorld]]) -> None:
    """A server's outages come one after the other."""
    seen = 0
    for world in (world for mine in worlds.values() for world in mine):
        for outages in world.sites[0].outages:
            last = -math.inf
            for outage in outages:
                assert last <= outage.start < outage.end
                last = outage.end
                seen += 1
    assert seen > 50
