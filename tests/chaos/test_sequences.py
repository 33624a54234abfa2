"""Scripts that nobody would think of: Hypothesis writes them, and shrinks what breaks a law."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .bodies import BODIES, METHODS
from .faults import ANSWERS, FAULTS, HANDSHAKES, OK, REDIRECT, Script
from .laws import obey, obey_at_each_hop
from .world import SOON, Call, World, what_came_of

# The same examples every time: what fails on one machine fails on the next, and nothing is kept.
STEADY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
QUICK = [OK, *(name for name, fault in FAULTS.items() if not fault.silent)]
SILENT = [name for name, fault in FAULTS.items() if fault.silent]
#: Where two calls at once can't take each other's step.
APART = [name for name in QUICK if ANSWERS[name].place == "request"]


def some_calls(*totals: float) -> st.SearchStrategy[Call]:
    """A call of any kind that may take so many seconds."""
    return st.builds(
        Call,
        st.sampled_from(METHODS),
        st.sampled_from(list(BODIES)),
        expect=st.booleans(),
        total=st.sampled_from(totals),
        key=st.booleans(),
    )


# Deadlines that are far away for the loop, and near for the clock that waits move on.
CALLS = some_calls(1000.0, 40.0, 20.0)
# The waits of each move on the clock of all.
LONG_CALLS = some_calls(1e6)
CONFIGS = st.fixed_dictionaries(
    {
        "max_attempts": st.sampled_from([5, 3, 6, 2, 1]),
        "budget_initial": st.sampled_from([20.0, 4.0, 1.0, 0.0]),
        "backoff_base": st.sampled_from([0.2, 10.0]),
        "backoff_cap": st.sampled_from([10.0, 30.0]),
        "hold_cap": st.sampled_from([12.0, 0.0]),
        "admission": st.booleans(),
    }
)


def scripts(names: list[str], most: int) -> st.SearchStrategy[Script]:
    """A few faults, and perhaps an end to them."""
    return st.builds(
        lambda steps, end: (*steps, *end),
        st.lists(st.sampled_from(names), min_size=1, max_size=most),
        st.sampled_from([(OK,), ()]),
    )


async def _obeys(
    script: Script, calls: list[Call], folder: Path, seed: int, **options: Any
) -> None:
    async with World(script, folder, random=random.Random(seed).random, **options) as world:
        endings = [await world.call(call, str(n)) for n, call in enumerate(calls)]
        obey(world, calls, endings)
        assert await world.is_free()


@settings(STEADY, max_examples=300)
@given(
    script=scripts(QUICK, 6),
    calls=st.lists(CALLS, min_size=1, max_size=8),
    config=CONFIGS,
    keep_alive=st.booleans(),
    seed=st.integers(0, 1000),
)
async def test_one_call_after_the_other(
    script: Script,
    calls: list[Call],
    config: dict[str, Any],
    keep_alive: bool,
    seed: int,
    tmp_path: Path,
) -> None:
    """The laws hold for any calls that meet any faults on any connections, used ones too."""
    await _obeys(script, calls, tmp_path, seed, config=config, keep_alive=keep_alive)


@settings(STEADY, max_examples=100)
@given(
    script=scripts([*HANDSHAKES, *QUICK], 5),
    calls=st.lists(CALLS, min_size=1, max_size=3),
    config=CONFIGS,
    seed=st.integers(0, 1000),
)
async def test_one_call_after_the_other_in_secret(
    script: Script, calls: list[Call], config: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    """They hold with TLS, whose handshakes have faults of their own."""
    config = {**config, "attempt_timeout": 5 * SOON}
    await _obeys(script, calls, tmp_path, seed, config=config, tls=True)


@settings(STEADY, max_examples=100)
@given(
    script=scripts([*SILENT, *QUICK], 4),
    call=CALLS,
    config=CONFIGS,
    seed=st.integers(0, 1000),
)
async def test_attempts_that_are_cut_short(
    script: Script, call: Call, config: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    """They hold too where attempts hang, in whatever state, and `attempt_timeout` ends them."""
    await _obeys(script, [call], tmp_path, seed, config={**config, "attempt_timeout": SOON})


@settings(STEADY, max_examples=100)
@given(
    script=scripts(APART, 12),
    calls=st.lists(LONG_CALLS, min_size=2, max_size=8),
    config=CONFIGS,
    limit=st.integers(1, 8),
    seed=st.integers(0, 1000),
)
async def test_calls_at_the_same_time(
    script: Script,
    calls: list[Call],
    config: dict[str, Any],
    limit: int,
    seed: int,
    tmp_path: Path,
) -> None:
    """They hold for calls that wait for each other's connections, tokens and news."""
    chance = random.Random(seed).random
    async with World(
        script, tmp_path, config=config, limit=limit, keep_alive=False, random=chance
    ) as world:
        endings = await asyncio.gather(*(world.call(call, str(n)) for n, call in enumerate(calls)))
        obey(world, calls, endings)
        assert await world.is_free()


@settings(STEADY, max_examples=200)
@given(
    script=scripts([name for name in QUICK if len(ANSWERS[name].raises) < 2], 5),
    call=CALLS,
    config=CONFIGS,
    seed=st.integers(0, 1000),
)
async def test_what_the_caller_gets(
    script: Script, call: Call, config: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    """It is what aiohttp alone gives a caller who meets the last of the faults first."""
    config = {**config, "admission": False}
    async with World(script, tmp_path, config=config, random=random.Random(seed).random) as world:
        ours = await world.call(call)
        met = [*script, *[script[-1]] * world.server.hits][world.server.hits - 1]
    async with World((met,), tmp_path, alone=True) as world:
        theirs = await world.call(call)
    if ANSWERS[met].raises and ours.error is not None:
        assert isinstance(ours.error, ANSWERS[met].raises)
    assert what_came_of(ours) == what_came_of(theirs)


@settings(STEADY, max_examples=150)
@given(
    script=scripts([REDIRECT, *QUICK, REDIRECT], 8),
    method=st.sampled_from(METHODS),
    # aiohttp itself mishandles a spent body in a redirect; the middleware can't mend that.
    body=st.sampled_from([name for name, kind in BODIES.items() if not kind.fragile]),
    total=st.sampled_from([1000.0, 40.0, 20.0]),
    config=CONFIGS,
    seed=st.integers(0, 1000),
)
async def test_calls_that_are_sent_on(
    script: Script,
    method: str,
    body: str,
    total: float,
    config: dict[str, Any],
    seed: int,
    tmp_path: Path,
) -> None:
    """Each hop has its own attempts, and all hops together have one deadline."""
    call, config = Call(method, body, total=total), {**config, "admission": False}
    async with World(script, tmp_path, config=config, random=random.Random(seed).random) as world:
        ending = await world.call(call)
        obey_at_each_hop(world, call, ending)
        assert await world.is_free()


async def test_a_script_is_played_as_it_is_written(tmp_path: Path) -> None:
    """Each of four attempts takes one step, in the resolver, at its connection or on a used one."""
    script = ("503", "RST", "no such name", OK)
    async with World(script, tmp_path) as world:
        ending = await world.call(Call("PUT", "bytes"))
        assert (ending.status, ending.body) == (200, b"ok")
        assert [attempt.failure for attempt in world.attempts] == [
            "503",
            "ClientOSError",
            "ClientConnectorDNSError",
            None,
        ]
        assert (world.server.hits, world.server.connections) == (4, 2)


@pytest.mark.parametrize("break_it", ["body", "attempts", "failures", "outcome", "held"])
async def test_the_laws_can_be_broken(break_it: str, tmp_path: Path) -> None:
    """A world in which one of them does not hold is told from one in which all do."""
    call = Call("PUT", "bytes")
    async with World(("503", OK), tmp_path) as world:
        ending = await world.call(call)
        obey(world, [call], [ending])
        if break_it == "body":
            call = Call("PUT", "empty")
        elif break_it == "attempts":
            world.server.hits += 1
        elif break_it == "failures":
            world.attempts[0].came_to = 500
        elif break_it == "outcome":
            ending.status = 503
        else:
            next(iter(world.retry._registry.table.values())).begun += 1
        with pytest.raises(AssertionError):
            obey(world, [call], [ending])
