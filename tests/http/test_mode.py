"""`mode`: on, observe, or off, set in the configuration and at any time."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.policy import (
    SEND,
    Action,
    AttemptOutcome,
    CallView,
    FixedPolicy,
    Wait,
)

from ..kit.calls import books, lavish
from ..kit.fakes import Rig
from ..kit.faults import reply, reset
from ..kit.fixtures import Open, Serve, open_session, serve
from .rigs import rig_with

__all__ = ("open_session", "serve")


def test_the_strictest_mode_wins() -> None:
    """Of the one that is set and the configuration's; bad ones are named."""

    def after(retry: AdaptiveRetryMiddleware, *modes: Any) -> list[str]:
        found: list[str] = [retry.mode]
        for mode in modes:
            retry.mode = mode
            found.append(retry.mode)
        return found

    retry = AdaptiveRetryMiddleware()
    assert after(retry, "observe", "on", "off", "on") == ["on", "observe", "on", "off", "on"]
    observing = AdaptiveRetryMiddleware(mode="observe")
    assert after(observing, "on", "off", "on") == ["observe", "observe", "off", "observe"]
    for wrong in ("of", "", "ON"):
        with pytest.raises(ValueError, match="mode must be one of 'on', 'observe', 'off', got"):
            after(retry, wrong)
    with pytest.raises(TypeError, match="mode must be one of 'on', 'observe', 'off', got True"):
        after(retry, True)
    assert after(retry) == ["on"]


@pytest.mark.parametrize("by", ["config", "attribute"])
async def test_off_is_as_if_it_were_not_there(by: str, serve: Serve, open_session: Open) -> None:
    """One attempt and no count; on again, it works on with what it had."""
    server = await serve(reply(503), reply(503), reply())
    retry = lavish(mode="off" if by == "config" else "on")
    retry.mode = "off" if by == "attribute" else "on"
    session = open_session(retry)
    async with session.get(server.url) as answer:
        assert answer.status == 503
    assert server.hits == 1
    books(retry, 0)
    if by == "attribute":
        retry.mode = "on"
        async with session.get(server.url) as answer:
            assert answer.status == 200
        books(retry, 2, retry_success=1)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_observe_sends_once_and_counts_what_it_would_do(
    method: str, serve: Serve, open_session: Open
) -> None:
    """What would be retried has the reason `observed`, and what would not has its own."""
    server = await serve(reply(503))
    retry = lavish(mode="observe", attempt_timeout=0.2)
    session = open_session(retry)
    for _ in range(3):
        async with session.request(method, server.url) as answer:
            assert answer.status == 503
    assert server.hits == 3
    books(retry, 3, failed_without_retry=3)
    reason = "observed" if method == "GET" else "not_idempotent"
    assert retry.snapshot().suppressed == {reason: 3}
    assert retry.snapshot().failures == {"503": 3}


async def test_observe_counts_successes_and_changes_no_time_out() -> None:
    """A slow success is one, whatever `attempt_timeout` says, as nothing may be different."""
    rig = Rig([200], mode="observe", attempt_timeout=0.01)
    upstream = rig.upstream

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.05)
        return await upstream(request)

    rig.upstream = slow  # type: ignore[assignment]
    assert (await rig.call()).status == 200
    assert rig.middleware.snapshot().requests.first_success == 1


async def test_observe_leaves_aiohttps_own_resend_alone(serve: Serve, open_session: Open) -> None:
    """A lost connection is mended by aiohttp, as it is without us."""
    server = await serve(reset(), reply())
    session = open_session(retry := lavish(mode="observe"))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert server.hits == 2
    assert retry.snapshot().requests.first_success == 1


async def test_observe_refuses_nothing() -> None:
    """With admission in an outage every call is sent all the same."""
    rig = Rig([ConnectionRefusedError()], mode="observe", admission=True)
    for _ in range(40):
        rig.clock.now += 0.1
        with pytest.raises(ConnectionRefusedError):
            await rig.call()
    assert rig.upstream.hits == 40
    assert rig.clock.waits == []
    assert rig.middleware.snapshot().requests.refused == 0
    assert [origin.in_flight for origin in rig.middleware.snapshot().origins] == [0]


class Holding(FixedPolicy):
    """Holds each failed call for an hour; `committed` says whether it lets go of the answer."""

    committed = False

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        return SEND if outcome.ok else Wait(3600.0, self.committed)


def holding(step: Any, committed: bool = False) -> Rig:
    """A rig on real time, whose failed calls are held."""
    policy = Holding()
    policy.committed = committed
    return rig_with([step], {"policy": lambda _: policy, "sleep": asyncio.sleep})


@pytest.mark.parametrize("threaded", [False, True], ids=["loop", "thread"])
@pytest.mark.parametrize("step", [503, ConnectionRefusedError()], ids=["answer", "error"])
async def test_held_calls_follow_a_switch_to_off_at_once(step: Any, threaded: bool) -> None:
    """They end with what they have got, and that is counted. So from any thread."""
    rig = holding(step)
    tasks = [asyncio.create_task(rig.call()) for _ in range(5)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in tasks)
    retry = rig.middleware
    if threaded:
        thread = threading.Thread(target=setattr, args=(retry, "mode", "off"))
        thread.start()
        thread.join()
    else:
        retry.mode = "off"
    ended = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
    assert all(
        end is step if isinstance(step, Exception) else getattr(end, "status", 0) == step
        for end in ended
    )
    assert rig.upstream.hits == 5
    snapshot = retry.snapshot()
    assert snapshot.suppressed == {"disabled": 5}
    assert snapshot.requests.failed_without_retry == 5
    assert [origin.in_flight for origin in snapshot.origins] == [0]
    assert not retry._switch.waits


async def test_a_switch_to_observe_lets_held_calls_be() -> None:
    """It is for calls that begin afterwards."""
    rig = holding(503)
    task = asyncio.create_task(rig.call())
    await asyncio.sleep(0.01)
    rig.middleware.mode = "observe"
    await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not rig.middleware._switch.waits


async def test_a_failure_after_the_switch_is_not_retried() -> None:
    """A call that was under way when it was set to off ends with its attempt."""
    rig = Rig([500], budget_initial=20)
    upstream = rig.upstream

    async def switching(request: Any) -> Any:
        rig.middleware.mode = "off"
        return await upstream(request)

    rig.upstream = switching  # type: ignore[assignment]
    assert (await rig.call()).status == 500
    assert upstream.hits == 1
    assert rig.middleware.snapshot().suppressed == {"disabled": 1}


async def test_calls_held_before_their_first_attempt_are_sent() -> None:
    """With the middleware off nothing keeps them back."""

    class Refusing(FixedPolicy):
        def arrive(self, now: float, call: CallView) -> Action:
            return Wait(3600.0)

    rig = rig_with([200], {"policy": lambda _: Refusing(), "sleep": asyncio.sleep})
    task = asyncio.create_task(rig.call())
    await asyncio.sleep(0.01)
    assert rig.upstream.hits == 0
    rig.middleware.mode = "off"
    assert (await asyncio.wait_for(task, 5)).status == 200


def test_the_mode_of_a_config() -> None:
    """It is a field like any other."""
    assert AdaptiveConfig.from_env(environ={"ADAPTIVE_RETRY_MODE": "Observe"}).mode == "observe"
    assert AdaptiveConfig.from_mapping({"mode": "off"}).mode == "off"
