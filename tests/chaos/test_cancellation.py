"""A call is cancelled at each point at which it waits, one after the other, on every path."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aiohttp_adaptive_retry.events import RESULTS

from .faults import OK, Script
from .stepping import Complaints, Moment, cancelled_at
from .world import Call, Ending, World

#: More often than any call here waits.
MOST_WAITS = 400
#: What makes an origin down.
DOWN = ("RST",) * 6
#: No more tokens than an outage leaves.
_AMPLE: dict[str, Any] = {"budget_initial": 4.0, "budget_deposit": 0.0}


@dataclass(frozen=True)
class Way:
    """A way that a call can take, and what it ends with if nobody cancels it."""

    script: Script
    call: Call = field(default_factory=Call)
    #: Statuses, or the name of what is raised.
    ends: tuple[int | str, ...] = (200,)
    config: dict[str, Any] = field(default_factory=dict)
    #: What happened before: calls that failed.
    before: int = 0
    #: How many of its retries take a token: those that look for themselves take none.
    paid: int = 100


WAYS = {
    "success": Way((OK,)),
    "upload": Way((OK,), Call("PUT", "file")),
    "upload after 100 Continue": Way((OK,), Call("PUT", "generator", expect=True)),
    "retry wait": Way(("503", "503", OK)),
    "retry of an upload": Way(("503", OK), Call("PUT", "form of a file")),
    "retry of a lost connection": Way(("RST", "FIN", OK), Call("PUT", "bytes")),
    "retry of a refused connection": Way(("refused", OK)),
    "early answer": Way(("early 503, stall", OK), Call("PUT", "BytesIO")),
    "failure": Way(("503",), config={"max_attempts": 2}, ends=(503,)),
    "failure by exception": Way(("RST",), config={"max_attempts": 2}, ends=("ClientOSError",)),
    "failure that is not retried": Way(("503",), Call("POST", "bytes"), ends=(503,)),
    "drain": Way(("503, half a body", OK)),
    "drain of an endless body": Way(("503, endless body", OK)),
    "release": Way(("500 of 300 kB", OK)),
    "Retry-After": Way(("429", OK)),
    "attempt timeout": Way(("hangs", OK), config={"attempt_timeout": 0.05}),
    "attempt timeout in an upload": Way(
        ("deaf", OK), Call("PUT", "bytes"), config={"attempt_timeout": 0.05}
    ),
    "held for news": Way(("refused", "refused", "refused", OK), ends=(200,), paid=1),
    "held in vain": Way(("refused",), ends=("ClientConnectorError",), paid=1),
    "held with an answer": Way((*DOWN, "503"), before=len(DOWN), ends=(503,), paid=0),
    "arrival of an answer to be kept": Way(("RST", "RST", "503, half a body", OK), before=2),
    "admission": Way((*DOWN, OK), config={"admission": True}, before=len(DOWN)),
    "admission refused": Way(
        (*DOWN, OK),
        # Held once, and then refused.
        config={"admission": True, "hold_cap": 0.05},
        before=len(DOWN),
        ends=("OriginUnavailable",),
    ),
}


@pytest.mark.parametrize("moment", ["waiting", "come"])
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_cancelled_at_every_wait(way: Way, moment: Moment, tmp_path: Path) -> None:
    """Nothing is left: no connection, no reserved token, no held call, no task, no complaint. The
    call is counted once, as ignored.
    """
    complaints = Complaints()
    cancellations = 0
    for at in range(1, MOST_WAITS):
        cancelled, waits, ending = await _run(way, at, moment, tmp_path)
        if not cancelled and waits < at:
            # It has come to its end by itself; so have all points been tried.
            assert ending is not None
            _expect(way, ending)
            break
        cancellations += cancelled
        assert await complaints.settle() == [], at
    else:
        raise AssertionError(f"a call that waits {MOST_WAITS} times")
    assert cancellations
    assert await complaints.settle(collect=True) == []


async def _run(way: Way, at: int, moment: Moment, folder: Path) -> tuple[bool, int, Ending | None]:
    config = {**_AMPLE, **way.config}
    async with World(way.script, folder, config=config) as world:
        for number in range(way.before):
            await _fail_quickly(world, f"before {number}")
        before, tokens = world.retry.snapshot(), _tokens(world)
        if way.before == len(DOWN):
            assert before.origins[0].state == "down"
        cancelled, waits, ending = await cancelled_at(world.call(way.call, "0"), at, moment)
        snapshot = world.retry.snapshot()
        # One call more, counted once.
        counts = {
            name: getattr(snapshot.requests, name) - getattr(before.requests, name)
            for name in RESULTS
        }
        assert sum(counts.values()) == 1, (at, counts)
        answered = world.attempts and world.attempts[-1].came_to == 200
        if cancelled and not answered:
            assert counts["ignored"] == 1, (at, counts)
            assert snapshot.suppressed == before.suppressed
        assert snapshot.faults == 0
        (origin,) = snapshot.origins
        assert (origin.in_flight, origin.held) == (0, 0)
        if cancelled and not answered:
            # A retry that failed has cost its token, one that was cancelled or never sent has not.
            failed = sum(snapshot.failures.values()) - sum(before.failures.values())
            assert tokens - origin.budget_available == min(way.paid, max(0, failed - 1)), at
        assert await world.is_free()
    return cancelled, waits, ending


def _expect(way: Way, ending: Ending) -> None:
    end = ending.status if ending.error is None else type(ending.error).__name__
    assert end in way.ends


def _tokens(world: World) -> float:
    origins = world.retry.snapshot().origins
    return origins[0].budget_available if origins else world.retry.config.budget_initial


async def _fail_quickly(world: World, name: str) -> None:
    """A call that fails at once: its method may not be sent again."""
    await world.call(Call("POST"), name)
