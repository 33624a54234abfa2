"""Whatever of ours is broken, the caller gets what it would have got without us.

Each part is handed in, works at first, and then raises.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientRequest
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._http.replay import Runs
from aiohttp_adaptive_retry.events import CallInfo, CallResult
from aiohttp_adaptive_retry.policy import (
    SEND,
    Action,
    AttemptOutcome,
    CallView,
    FixedPolicy,
    GiveUp,
    Wait,
)

from ..kit.fakes import ORIGIN, Request, Response, Rig, Step, Upstream
from ..kit.metrics import HistogramProvider
from .rigs import Wrapped, one, rig_with

#: An origin that is met for the first time once a part is broken.
NEW_ORIGIN = URL("http://new.example/")


class Breaker:
    """Makes parts that work until `broken` is set, and raise from then on."""

    def __init__(self) -> None:
        self.broken = False

    def check(self, *_: object) -> None:
        if self.broken:
            raise RuntimeError("secret http://u:p@h/path")

    def around(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same work, as long as nothing is broken."""

        def part(*args: Any) -> Any:
            self.check()
            return work(*args)

        return part


class FaultyPolicy(Wrapped):
    """The adaptive policy with one method that breaks."""

    def __init__(self, breaker: Breaker, method: str, rig: Rig, **fields: Any) -> None:
        super().__init__(rig.clock, **fields)
        setattr(self, method, breaker.around(getattr(self.inner, method)))


class FaultyListener:
    """A listener that breaks, whatever it is told of."""

    def __init__(self, breaker: Breaker) -> None:
        self._breaker = breaker

    def attempt_failed(self, call: CallInfo, outcome: AttemptOutcome) -> None:
        self._breaker.check()

    def retry_sent(self, call: CallInfo, waited: float) -> None:
        self._breaker.check()

    def call_ended(self, call: CallInfo, result: CallResult, reason: str | None) -> None:
        self._breaker.check()


#: Each part, and what uses it: every call, a failure, or the end of a call that is cancelled.
PARTS = {
    "clock": "call",
    "random": "failure",
    "sleep": "failure",
    "policy factory": "call",
    "window": "call",
    "clean-up": "call",
    "listener": "failure",
    "histogram": "failure",
    "policy.arrive": "call",
    "policy.outcome": "call",
    "policy.wake": "failure",
    "policy.cancel": "cancellation",
}


class Broken:
    """A rig one part of which breaks after the first call."""

    rig: Rig

    def __init__(
        self, part: str, script: list[Step], monkeypatch: pytest.MonkeyPatch, **fields: Any
    ) -> None:
        # Each operation is one that a clean-up is due with.
        self.config = AdaptiveConfig(max_attempts=2, cleanup_frequency=1, **fields)
        self.breaker = breaker = Breaker()
        self.part = part
        parts: dict[str, Any] = {}
        if part == "clock":
            parts["clock"] = breaker.around(lambda: self.rig.clock())
        elif part == "random":
            parts["random"] = breaker.around(lambda: 0.5)
        elif part == "sleep":
            parts["sleep"] = breaker.around(lambda seconds: self.rig.clock.sleep(seconds))
        elif part == "policy factory":
            parts["policy"] = breaker.around(lambda origin: FixedPolicy())
        elif part == "histogram":
            parts["meter_provider"] = HistogramProvider(breaker.check)
        elif part == "clean-up":
            monkeypatch.setattr(Runs, "forget", breaker.check)
        elif part.startswith("policy."):
            parts["policy"] = lambda origin: FaultyPolicy(
                breaker, part.removeprefix("policy."), self.rig, max_attempts=2, **fields
            )
        self.rig = rig_with([200, *script], parts, self.config)
        if part == "histogram":
            # No exporter reads these metrics.
            self.rig.metrics = dict  # type: ignore[method-assign]

    async def breaks(self) -> Rig:
        """Make the first call, then break the part."""
        await self.rig.call()
        if self.part == "listener":
            for origin in self.rig.middleware._registry.listed():
                origin.listeners = (*origin.listeners, FaultyListener(self.breaker))
        elif self.part == "window":
            object.__setattr__(self.config, "window_duration", None)
        self.breaker.broken = True
        return self.rig

    @property
    def url(self) -> URL:
        """Where calls have to go in order to use the part."""
        return NEW_ORIGIN if self.part in {"policy factory", "window"} else ORIGIN


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("script", [[200], [503, 200], [503]])
async def test_a_fault_of_ours_never_harms_a_call(
    part: str,
    script: list[int],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The response reaches the caller whatever breaks; one line is logged, and all are counted."""
    broken = Broken(part, [*script, 200], monkeypatch)
    rig = await broken.breaks()
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            response = await rig.call(broken.url)
            assert response.status in {200, 503}
            assert not cast(Response, response).released
    lines = [record for record in caplog.records if record.levelno >= logging.ERROR]
    uses_part = PARTS[part] == "call" or (PARTS[part] == "failure" and script != [200])
    assert len(lines) == (1 if uses_part else 0)
    before = rig.middleware.snapshot().faults
    assert bool(before) == uses_part
    assert not any("secret" in record.getMessage() for record in caplog.records)
    assert all(origin.in_flight == 0 for origin in rig.middleware.snapshot().origins)
    if uses_part and part != "histogram":
        reported = rig.metrics()["adaptive_retry.faults"][frozenset()]
        # Collecting reads the clock as well.
        assert before <= reported <= rig.middleware.snapshot().faults


@pytest.mark.parametrize("part", PARTS)
async def test_exceptions_pass_whatever_of_ours_is_broken(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception of the handler is what the caller sees, and no other."""
    errors = [aiohttp.ServerDisconnectedError(str(number)) for number in range(2)]
    broken = Broken(part, [*errors], monkeypatch)
    rig = await broken.breaks()
    with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
        await rig.call(broken.url)
    assert caught.value is errors[rig.upstream.hits - 2]
    assert bool(rig.middleware.snapshot().faults) == (PARTS[part] != "cancellation")
    assert all(origin.in_flight == 0 for origin in rig.middleware.snapshot().origins)


@pytest.mark.parametrize("part", PARTS)
async def test_a_cancellation_passes_whatever_of_ours_is_broken(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that is cancelled in its attempt ends at once, and is counted as ended."""
    broken = Broken(part, [], monkeypatch)
    rig = await broken.breaks()
    entered = asyncio.Event()

    async def stay(_: ClientRequest) -> Any:
        entered.set()
        await asyncio.sleep(3600)

    request = cast(ClientRequest, Request(broken.url))
    task = asyncio.ensure_future(rig.middleware(request, stay))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(origin.in_flight == 0 for origin in rig.middleware.snapshot().origins)
    if PARTS[part] == "cancellation":
        assert rig.middleware.snapshot().faults == 1


class Nonsense:
    """A policy that answers one of its questions with what is no action."""

    def __init__(self, method: str, answer: Any) -> None:
        self.method, self.answer = method, answer

    def arrive(self, now: float, call: CallView) -> Action:
        return cast(Action, self.answer) if self.method == "arrive" else SEND

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        return cast(Action, self.answer) if self.method == "outcome" else Wait(1.0)

    def wake(self, now: float, call: CallView) -> Action:
        return cast(Action, self.answer) if self.method == "wake" else GiveUp("tired")

    def cancel(self, now: float, call: CallView) -> None:
        """Nothing is reserved."""


@pytest.mark.parametrize("answer", [None, "retry", Wait(math.nan), Wait(-1.0), Wait(math.inf)])
@pytest.mark.parametrize("method", ["arrive", "outcome", "wake"])
async def test_an_answer_that_is_no_action_ends_the_call_as_without_us(
    method: str, answer: Any
) -> None:
    """Asked before the attempt, the attempt is sent; asked after it, its answer is handed back."""
    first = Response(503)
    rig = rig_with([first, 200], {"policy": one(Nonsense(method, answer))})
    response = await rig.call()
    assert response is cast(object, first)
    assert not first.released
    assert rig.upstream.hits == 1
    snapshot = rig.middleware.snapshot()
    assert snapshot.faults == 1
    assert snapshot.requests.failed_without_retry == snapshot.requests.total == 1
    assert snapshot.origins[0].in_flight == 0


@pytest.mark.parametrize(
    "lacking", [None, object(), FixedPolicy], ids=["None", "an object", "a class"]
)
async def test_what_is_no_policy_is_a_fault_and_no_obstacle(lacking: Any) -> None:
    """A factory that makes something else costs the retries, and no call."""
    rig = rig_with([503, 200], {"policy": lambda origin: lacking})
    assert [(await rig.call()).status for _ in range(2)] == [503, 200]
    assert rig.middleware.snapshot().faults > 0


async def test_a_request_without_a_session_is_sent() -> None:
    """What our look at a request breaks on, aiohttp may still be able to send."""
    rig, request = Rig([503]), Request()
    del request.__dict__["session"]
    response = await rig.middleware(cast(ClientRequest, request), Upstream([503]))
    assert response.status == 503
    assert rig.middleware.snapshot().faults > 0
