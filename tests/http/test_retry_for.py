"""`retry_for`: no retry begins later than so many seconds after its call did."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveStrategy
from aiohttp_adaptive_retry.policy import SEND, CallView, FixedPolicy

from ..kit.clock import Clock
from ..kit.fakes import Rig, Upstream
from .rigs import rig_with


def lavish(**fields: Any) -> dict[str, Any]:
    """A configuration in which only time and attempts end a call."""
    return {"budget_capacity": 1e6, "budget_initial": 1e6, "max_attempts": 1000, **fields}


@pytest.mark.parametrize("retry_for", [0.05, 1.0, 7.0, 60.0])
@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("step", [500, ConnectionResetError, TimeoutError])
async def test_no_retry_begins_later(retry_for: float, chance: float, step: Any) -> None:
    """Whatever fails and however long the waits are; what ends the call is the deadline."""
    rig = Rig([step], chance, **lavish(retry_for=retry_for, hold_cap=60.0))
    begun = rig.clock()
    sent: list[float] = []
    inner = rig.upstream

    async def handler(request: Any) -> Any:
        sent.append(rig.clock() - begun)
        rig.clock.now += 0.01
        return await inner(request)

    rig.upstream = handler  # type: ignore[assignment]
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        await rig.call()
    assert max(sent) <= retry_for
    assert rig.clock() - begun <= retry_for + 0.02


async def test_an_attempt_that_took_longer_is_the_last() -> None:
    """Also where the policy would send at once, and where its wait is over late."""
    clock = Clock()

    class AtOnce(FixedPolicy):
        def outcome(self, now: float, call: CallView, outcome: Any) -> Any:
            return SEND

    rig = rig_with(
        [], {"policy": lambda _: AtOnce(), "clock": clock, "sleep": clock.sleep}, retry_for=5.0
    )
    upstream = Upstream([500])

    async def slow(request: Any) -> Any:
        clock.now += 3.0
        return await upstream(request)

    rig.upstream = slow  # type: ignore[assignment]
    assert (await rig.call()).status == 500
    # The second began at 3 s, a third one would at 6 s.
    assert upstream.hits == 2
    assert rig.middleware.snapshot().suppressed == {"deadline": 1}


async def test_it_counts_beside_the_total_time() -> None:
    """The one that ends first is the deadline."""
    assert AdaptiveConfig(retry_for=5).retry_for == 5
    clock = Clock()
    strategy = AdaptiveStrategy(
        retry_for=2.0,
        clock=clock,
        sleep=clock.sleep,
        random=lambda: 0.5,
        **lavish(),
    )
    begun = clock()
    async with strategy.call() as call:
        while await call.should_retry(ConnectionResetError()):
            assert clock() - begun <= 2.0
    assert 0.1 < clock() - begun <= 2.0
    # The shell counts from the first failure that it is told of.
    waited = 0
    while await strategy.should_retry(ConnectionResetError()):
        clock.now += 0.5
        waited += 1
    assert 1 <= waited <= 5
