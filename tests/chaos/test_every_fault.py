"""Every fault with every method and every kind of body, beside aiohttp alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from .bodies import BODIES, METHODS
from .faults import FAULTS, OK, Fault, Script
from .laws import SENT_AGAIN, obey
from .world import SOON, Call, Ending, World, what_came_of

#: Budget is not what these are about.
CONFIG: dict[str, Any] = {"budget_initial": 1000, "budget_capacity": 1000}
CALLS = [Call(method, body) for method in METHODS for body in BODIES]


async def _ours(script: Script, call: Call, folder: Path) -> tuple[Ending, World]:
    """One call through the middleware; all laws are seen to."""
    config = dict(CONFIG)
    if FAULTS[script[0]].silent:
        config["attempt_timeout"] = SOON
    async with World(script, folder, config=config) as world:
        ending = await world.call(call)
        obey(world, [call], [ending])
        assert await world.is_free()
    return ending, world


async def _alone(script: Script, call: Call, folder: Path) -> Ending:
    """The same call without the middleware."""
    fault = FAULTS[script[0]]
    total = SOON if fault.silent else call.total
    async with World(script, folder, alone=True) as world:
        return await world.call(Call(call.method, call.body, total=total))


async def _each(check: Callable[[Call], Awaitable[None]]) -> None:
    """Check all calls at the same time; the first that fails is told when all have ended."""
    for end in await asyncio.gather(*map(check, CALLS), return_exceptions=True):
        if end is not None:
            raise end


def _is_mended(fault: Fault, call: Call) -> bool | None:
    """Whether a second attempt has to follow; None where that is the upload's luck."""
    body = BODIES[call.body]
    if call.method not in SENT_AGAIN or not fault.mendable:
        return False
    if not body.fragile:
        return True
    if call.method in {"GET", "HEAD"}:
        # Their bodies are not watched, and so are taken for spent.
        return False
    if fault.place == "name" and not fault.silent:
        # Nothing was asked of the body yet.
        return True
    spent = body.one_shot and fault.place == "request" and not fault.silent
    return False if spent else None


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_that_happens_once(name: str, tmp_path: Path) -> None:
    """It is mended by the second attempt, if it can be mended and the request be sent again."""

    async def check(call: Call) -> None:
        ending, world = await _ours((name, OK), call, tmp_path)
        # A machine that is busy may time out what is not slow.
        enough = len(world.attempts) == 2 or FAULTS[name].silent
        mended = (ending.status, ending.body is None) == (200, False) and enough
        once = len(world.attempts) == 1
        fault, expected = FAULTS[name], _is_mended(FAULTS[name], call)
        if expected is None:
            assert mended or once or fault.silent, call
        else:
            assert mended if expected else once, (call, ending)
        if once and fault.raises:
            assert isinstance(ending.error, fault.raises)
        elif once:
            assert ending.status == fault.status

    await _each(check)


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_that_stays(name: str, tmp_path: Path) -> None:
    """In the end the caller gets what aiohttp alone would have given: status, body, exception."""
    fault = FAULTS[name]

    async def check(call: Call) -> None:
        ours, world = await _ours((name,), call, tmp_path)
        theirs = await _alone((name,), call, tmp_path)
        if _is_mended(fault, call):
            assert len(world.attempts) > 1
        if fault.raises:
            assert isinstance(ours.error, fault.raises), (call, ours)
            assert isinstance(theirs.error, fault.raises), (call, theirs)
        if len(fault.raises) < 2 and not fault.endless:
            assert what_came_of(ours) == what_came_of(theirs), call
        assert ours.status == theirs.status == fault.status

    await _each(check)
