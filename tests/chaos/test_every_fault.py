"""Every fault with every method and every kind of body, beside aiohttp alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .bodies import BODIES, METHODS
from .faults import ANSWERS, FAULTS, HANDSHAKES, OK, Fault, Script
from .laws import SENT_AGAIN, obey
from .world import SOON, Call, Ending, World, what_came_of

#: Budget is not what these are about.
CONFIG: dict[str, Any] = {"budget_initial": 1000, "budget_capacity": 1000}
CALLS = [Call(method, body) for method in METHODS for body in BODIES]

# With https: all that can happen to a handshake, and what is the same in any case. (A reset may
# overtake what was encrypted before it.)
_SAME = [name for name, fault in FAULTS.items() if not (fault.status and fault.resets)]
MEETINGS = [*((name, False) for name in FAULTS), *((name, True) for name in [*HANDSHAKES, *_SAME])]
IDS = [f"{name}{', TLS' * tls}" for name, tls in MEETINGS]
TLS_CALLS = [Call("GET"), Call("PUT", "bytes"), Call("PUT", "file"), Call("POST", "generator")]


async def _ours(script: Script, call: Call, folder: Path, tls: bool) -> tuple[Ending, World]:
    """One call through the middleware; all laws are seen to."""
    config = dict(CONFIG)
    if ANSWERS[script[0]].silent:
        # An attempt that is to succeed afterwards gets more time, for a busy machine.
        config["attempt_timeout"] = 5 * SOON if OK in script else SOON
    async with World(script, folder, config=config, tls=tls) as world:
        ending = await world.call(call)
        obey(world, [call], [ending])
        assert await world.is_free()
    return ending, world


async def _alone(script: Script, call: Call, folder: Path, tls: bool) -> Ending:
    """The same call without the middleware."""
    if ANSWERS[script[0]].silent:
        call = replace(call, total=SOON)
    async with World(script, folder, alone=True, tls=tls) as world:
        return await world.call(call)


async def _each(calls: list[Call], check: Callable[[Call], Awaitable[None]]) -> None:
    """Check all calls at the same time; the first that fails is told when all have ended."""
    for end in await asyncio.gather(*map(check, calls), return_exceptions=True):
        if end is not None:
            raise end


def _is_mended(fault: Fault, call: Call) -> bool | None:
    """Whether a second attempt has to follow. None: only if the body can be sent once more.

    An attempt that is cut short at any moment of its upload may leave a fragile body spent. Where
    an attempt has a limit on its time, a busy machine may cut the second attempt short too.
    """
    body = BODIES[call.body]
    if not fault.mendable or (call.method not in SENT_AGAIN and not fault.proven):
        return False
    if not body.fragile:
        return True
    if call.method == "GET":
        # The middleware does not watch the body of a GET, and so takes the body for spent.
        return False
    if fault.silent or fault.place == "connection":
        return None
    # Before the request nobody has asked for the body. A file is rewound; a generator can't be.
    return fault.place != "request" or not body.one_shot


@pytest.mark.parametrize(("name", "tls"), MEETINGS, ids=IDS)
async def test_a_fault_that_happens_once(name: str, tls: bool, tmp_path: Path) -> None:
    """It is mended by the second attempt, if it can be mended and the request be sent again."""
    fault = ANSWERS[name]

    async def check(call: Call) -> None:
        ending, world = await _ours((name, OK), call, tmp_path, tls)
        attempts, given_up = len(world.attempts), world.retry.snapshot().suppressed
        read = ending.status == 200 and ending.body is not None
        mended = read and attempts > 1 and not given_up
        expected = _is_mended(fault, call)
        if expected is None:
            # The one reason for which such a call is not mended.
            assert mended or given_up == {"body_not_replayable": 1}, (call, ending, given_up)
        else:
            assert mended is expected, (call, ending, given_up)
        if mended:
            # A limit on time may have cut further attempts short.
            assert attempts == 2 or fault.silent, (call, attempts)
        else:
            # The caller gets what the fault gives, at once; or the timeout of a later attempt.
            assert attempts == 1 or (fault.silent and expected is None), (call, attempts)
            assert ending.status == fault.status, (call, ending)
            assert isinstance(ending.error, fault.raises) if fault.raises else not ending.error

    await _each(TLS_CALLS if tls else CALLS, check)


@pytest.mark.parametrize(("name", "tls"), MEETINGS, ids=IDS)
async def test_a_fault_that_stays(name: str, tls: bool, tmp_path: Path) -> None:
    """The caller finally gets what aiohttp alone would have given: status, body, exception."""
    fault = ANSWERS[name]

    async def check(call: Call) -> None:
        ours, world = await _ours((name,), call, tmp_path, tls)
        theirs = await _alone((name,), call, tmp_path, tls)
        if _is_mended(fault, call):
            assert len(world.attempts) > 1
        if fault.raises:
            assert isinstance(ours.error, fault.raises), (call, ours)
            assert isinstance(theirs.error, fault.raises), (call, theirs)
        if len(fault.raises) < 2 and not fault.endless:
            assert what_came_of(ours) == what_came_of(theirs), call
        assert ours.status == theirs.status == fault.status

    await _each(TLS_CALLS if tls else CALLS, check)


NEVER = [name for name, fault in ANSWERS.items() if fault.silent and len(fault.raises) == 1]


@pytest.mark.parametrize("before", [(), ("503",)], ids=["first attempt", "retry"])
@pytest.mark.parametrize("name", NEVER)
async def test_a_deadline_in_what_never_ends(name: str, before: Script, tmp_path: Path) -> None:
    """Where no attempt has a limit of its own the call's deadline ends the call, and no attempt
    follows; it is no evidence against the server.
    """
    tls = ANSWERS[name].place == "handshake"
    config = {**CONFIG, "backoff_base": 0.001}

    async def check(call: Call) -> None:
        async with World((*before, name, OK), tmp_path, config=config, tls=tls) as world:
            ending = await world.call(replace(call, total=SOON))
            assert isinstance(ending.error, TimeoutError)
            assert not isinstance(ending.error, aiohttp.ClientError)
            obey(world, [call], [ending])
            # A busy machine may come to the deadline sooner than to the fault.
            assert len(world.attempts) <= 1 + len(before)
            assert world.retry.snapshot().requests.ignored == 1
            assert await world.is_free()

    await _each([Call("GET"), Call("PUT", "bytes"), Call("DELETE", "file")], check)
