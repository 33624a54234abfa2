"""A user's own policy: when it is asked, what it is told, and what its answers lead to."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientRequest, ClientTimeout
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware, OriginUnavailable
from aiohttp_adaptive_retry.policy import (
    SEND,
    Action,
    AttemptOutcome,
    CallView,
    FixedPolicy,
    GiveUp,
    Policy,
    Wait,
)

from ..kit.clock import Clock
from ..kit.fakes import ORIGIN, Request, Response
from ..kit.faults import reply
from ..kit.fixtures import Open, Serve
from ..kit.metrics import by
from .rigs import one, rig_with

Told = tuple[str, float, int]


class Scripted:
    """A policy that gives these answers, each the last one for ever, and notes what it is told."""

    def __init__(
        self, *, arrive: Action = SEND, outcome: Action = SEND, wake: Action = SEND
    ) -> None:
        self.answers = {"arrive": arrive, "outcome": outcome, "wake": wake}
        #: What it was asked, when, and how many attempts the call had sent.
        self.told: list[Told] = []
        self.outcomes: list[AttemptOutcome] = []

    @property
    def asked(self) -> list[str]:
        return [method for method, _, _ in self.told]

    def arrive(self, now: float, call: CallView) -> Action:
        self.told.append(("arrive", now, call.attempts))
        return self.answers["arrive"]

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        self.told.append(("outcome", now, call.attempts))
        self.outcomes.append(outcome)
        return self.answers["outcome"]

    def wake(self, now: float, call: CallView) -> Action:
        self.told.append(("wake", now, call.attempts))
        return self.answers["wake"]

    def cancel(self, now: float, call: CallView) -> None:
        self.told.append(("cancel", now, call.attempts))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.com/private?token=b", "https://example.com:443"),
        ("http://me:pw@EXAMPLE.com:8080/", "http://example.com:8080"),
    ],
)
async def test_a_policy_is_made_for_each_origin_by_its_name(url: str, name: str) -> None:
    """The name is "scheme://host:port"; nothing else of a URL reaches the policy."""
    names: list[str] = []

    def make(origin: str) -> Policy:
        names.append(origin)
        return FixedPolicy()

    rig = rig_with([200], {"policy": make})
    for _ in range(3):
        await rig.call(URL(url))
    await rig.call()
    assert names == [name, "http://upstream.example:8080"]


async def test_it_is_asked_before_first_attempts_and_told_every_success() -> None:
    """However many successes there are in a moment: it has no fast path."""
    policy = Scripted()
    rig = rig_with([200, 404, 301, *[200] * 500], {"policy": one(policy)})
    for _ in range(503):
        await rig.call()
    assert policy.asked == ["arrive", "outcome"] * 503
    assert [attempts for _, _, attempts in policy.told] == [0, 1] * 503
    assert all(outcome.ok and outcome.latency == 0.0 for outcome in policy.outcomes)
    snapshot = rig.middleware.snapshot()
    assert snapshot.requests.first_success == snapshot.attempts["original"] == 503
    assert snapshot.faults == 0


async def test_it_is_told_what_an_attempt_came_to() -> None:
    """The failure and the success of one call, with times and the error's name."""
    policy, clock = Scripted(outcome=Wait(2.0)), Clock()
    hits: list[float] = []

    async def handler(request: ClientRequest) -> Any:
        hits.append(clock.now)
        clock.now += 0.25
        return Response(503 if len(hits) == 1 else 200, {"Retry-After": "7"})

    rig = rig_with([], {"policy": one(policy), "clock": clock, "sleep": clock.sleep})
    await rig.middleware(cast(ClientRequest, Request()), handler)
    assert policy.told == [
        ("arrive", 1000.0, 0),
        ("outcome", 1000.25, 1),
        ("wake", 1002.25, 1),
        ("outcome", 1002.5, 2),
    ]
    failure, success = policy.outcomes
    assert failure == AttemptOutcome(
        False, "503", 0.25, overload=True, limited=True, retry_after=7.0
    )
    assert success == AttemptOutcome(True, latency=0.25)


async def test_its_wait_parks_and_may_end_in_giving_up(serve: Serve, open_session: Open) -> None:
    """The last answer is handed back after the wait, and can be read."""
    policy, clock = Scripted(outcome=Wait(3.0), wake=GiveUp("unpromising")), Clock()
    retry = AdaptiveRetryMiddleware(policy=one(policy), clock=clock, sleep=clock.sleep)
    server = await serve(reply(503, b"try later"))
    async with open_session(retry).get(server.url) as response:
        assert response.status == 503
        assert await response.read() == b"try later"
    assert clock.waits == [3.0]
    assert policy.asked == ["arrive", "outcome", "wake"]
    assert server.hits == 1
    snapshot = retry.snapshot()
    assert snapshot.requests.failed_without_retry == snapshot.requests.total == 1
    assert snapshot.suppressed == {"unpromising": 1}


async def test_an_exception_too_is_handed_back_after_a_wait() -> None:
    """It is the very exception of the attempt."""
    error = aiohttp.ServerDisconnectedError()
    policy = Scripted(outcome=Wait(3.0), wake=GiveUp("origin_down"))
    rig = rig_with([error], {"policy": one(policy)})
    with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
        await rig.call()
    assert caught.value is error
    assert rig.clock.waits == [3.0]


async def test_a_wait_may_follow_a_wait() -> None:
    """The policy is asked again after each, until it sends."""

    class Patient(Scripted):
        def wake(self, now: float, call: CallView) -> Action:
            super().wake(now, call)
            return SEND if self.asked.count("wake") == 3 else Wait(0.5)

    policy = Patient(outcome=Wait(1.0))
    rig = rig_with([503, 200], {"policy": one(policy)})
    assert (await rig.call()).status == 200
    assert rig.clock.waits == [1.0, 0.5, 0.5]
    assert policy.asked == ["arrive", "outcome", "wake", "wake", "wake", "outcome"]
    (waited,) = rig.metrics()["adaptive_retry.retry.delay"].values()
    assert waited == 2.0


@pytest.mark.parametrize("reason", ["limited", "a word of its own"])
async def test_giving_up_before_the_first_attempt_sends_nothing(reason: str) -> None:
    """The caller gets `OriginUnavailable` with the reason; metrics name only what they know."""
    policy = Scripted(arrive=GiveUp(reason))
    rig = rig_with([200], {"policy": one(policy)})
    with pytest.raises(OriginUnavailable) as caught:
        await rig.call()
    assert caught.value.reason == reason
    assert rig.upstream.hits == 0
    snapshot = rig.middleware.snapshot()
    assert snapshot.requests.refused == snapshot.requests.total == 1
    assert snapshot.attempts["original"] == 0
    shown = reason if reason == "limited" else "_OTHER"
    assert snapshot.suppressed == {shown: 1}
    suppressed = rig.metrics()["adaptive_retry.retries.suppressed"]
    assert by(suppressed, "adaptive_retry.reason") == {shown: 1}


async def test_a_first_attempt_may_wait() -> None:
    """A `Wait` before the first attempt holds it back, and no more than that."""
    policy = Scripted(arrive=Wait(4.0))
    rig = rig_with([200], {"policy": one(policy)})
    assert (await rig.call()).status == 200
    assert rig.clock.waits == [4.0]
    assert policy.asked == ["arrive", "wake", "outcome"]
    # The attempt begins after the wait.
    assert policy.outcomes[0].latency == 0.0
    assert rig.middleware.snapshot().requests.first_success == 1


@pytest.mark.parametrize("wait", ["before the attempt", "after the attempt"])
async def test_it_is_told_of_a_call_that_is_cancelled_in_its_wait(wait: str) -> None:
    """So that it can take back what it reserved; a cancelled call is no failure."""
    entered = asyncio.Event()

    async def stay(_: float) -> None:
        entered.set()
        await asyncio.sleep(3600)

    first = wait == "before the attempt"
    policy = Scripted(arrive=Wait(1.0) if first else SEND, outcome=Wait(1.0))
    rig = rig_with([503], {"policy": one(policy), "sleep": stay})
    task = asyncio.ensure_future(rig.call())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert policy.asked == ["arrive", *(() if first else ("outcome",)), "cancel"]
    snapshot = rig.middleware.snapshot()
    assert snapshot.requests.ignored == snapshot.requests.total == 1
    assert snapshot.attempts["original"] == (0 if first else 1)


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_the_callers_bounds_hold_whatever_it_answers(attempts: int) -> None:
    """`max_attempts` ends the call of a policy that would go on for ever."""
    policy = Scripted(outcome=Wait(0.1))
    rig = rig_with([503], {"policy": one(policy)}, max_attempts=attempts)
    assert (await rig.call()).status == 503
    assert rig.upstream.hits == attempts
    assert [outcome.replayable for outcome in policy.outcomes] == [True] * (attempts - 1) + [False]
    assert rig.middleware.snapshot().suppressed == {"max_attempts": 1}
    # The last wait that it asked for was not begun, so what is reserved for it is taken back.
    assert policy.asked[-2:] == ["outcome", "cancel"]


@pytest.mark.parametrize("when", ["before the attempt", "after the attempt"])
async def test_no_wait_is_begun_that_the_deadline_would_cut(when: str) -> None:
    """The session's total timeout is the policy's deadline, and holds against its answers."""
    first = when == "before the attempt"
    policy = Scripted(arrive=Wait(10.0) if first else SEND, outcome=Wait(10.0))
    rig = rig_with([503], {"policy": one(policy)})
    request = Request()
    request.session.timeout = ClientTimeout(total=10.0)
    seen: list[float | None] = []
    note = policy.outcome

    def noting(now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        seen.append(call.deadline)
        return note(now, call, outcome)

    policy.outcome = noting  # type: ignore[method-assign]
    handler = rig.upstream
    if first:
        with pytest.raises(OriginUnavailable) as caught:
            await rig.middleware(cast(ClientRequest, request), handler)
        assert caught.value.reason == "deadline"
    else:
        assert (await rig.middleware(cast(ClientRequest, request), handler)).status == 503
        assert seen == [1010.0]
    assert rig.clock.waits == []
    assert rig.middleware.snapshot().suppressed == {"deadline": 1}


async def kept_during(wait: Wait, kind: str) -> bool:
    """Whether what a failed attempt came to is alive during the wait after it."""
    is_large = kind.startswith("large ")
    alive: list[bool] = []
    steps: list[Any] = [Response(200)]
    if kind.endswith("response"):
        steps.append(large() if is_large else Response(503))
    else:
        steps.append(aiohttp.ServerDisconnectedError("e" * (20_000 if is_large else 20)))
    failed = weakref.ref(steps[-1])

    async def handler(request: ClientRequest) -> Any:
        step = steps.pop()
        if isinstance(step, BaseException):
            try:
                raise step
            finally:
                del step
        return step

    async def look(seconds: float) -> None:
        alive.append(failed() is not None)

    policy = Scripted(outcome=wait)
    rig = rig_with([], {"policy": one(policy), "sleep": look})
    # By reference counts alone: a cycle of ours would keep it until some collection.
    gc.collect()
    gc.disable()
    try:
        response = await rig.middleware(cast(ClientRequest, Request(ORIGIN)), handler)
    finally:
        gc.enable()
    assert response.status == 200
    (is_alive,) = alive
    return is_alive


def large() -> Response:
    """An answer with a head of 20 kB."""
    response = Response(503)
    response.raw_headers = ((b"name", b"v" * 20_000),)  # type: ignore[attr-defined]
    return response


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("kind", ["response", "exception"])
async def test_a_wait_keeps_nothing_large_alive(kind: str, committed: bool) -> None:
    """What is small is kept, as the call may have to end with it: when its session is closed. What
    is large is let go of before the wait, and the call is sent again whatever comes."""
    assert await kept_during(Wait(1.0, committed), kind)
    assert not await kept_during(Wait(1.0, committed), f"large {kind}")


@pytest.mark.parametrize("committed", [True, False])
async def test_a_large_answer_is_given_back_before_the_wait(committed: bool) -> None:
    """One that is small is given back only when the retry is sent."""
    released: dict[bool, bool] = {}
    for is_large in (True, False):
        first = large() if is_large else Response(503)

        async def look(seconds: float) -> None:
            released[is_large] = first.released  # noqa: B023

        policy = Scripted(outcome=Wait(1.0, committed))
        rig = rig_with([first, 200], {"policy": one(policy), "sleep": look})
        await rig.call()
        assert first.released
    assert released == {True: True, False: False}


async def test_a_committed_wait_ends_in_an_attempt_whatever_is_answered_then() -> None:
    """Nothing is left that the call could end with."""
    policy = Scripted(outcome=Wait(1.0, committed=True), wake=GiveUp("tired"))
    rig = rig_with([503, 200], {"policy": one(policy)})
    assert (await rig.call()).status == 200
    assert rig.middleware.snapshot().requests.retry_success == 1


async def test_the_state_that_it_keeps_is_the_calls_own() -> None:
    """`call.state` is None at first and the policy's until the call is over."""
    seen: list[object] = []

    class Keeping(Scripted):
        def arrive(self, now: float, call: CallView) -> Action:
            seen.append(call.state)
            call.state = [now]
            return SEND

        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            seen.append(call.state)
            return Wait(1.0)

    rig = rig_with([503, 200], {"policy": one(Keeping())})
    await rig.call()
    await rig.call()
    assert seen == [None, [1000.0], [1000.0], None, [1001.0]]


async def test_a_fixed_policy_does_what_it_says() -> None:
    """Three attempts of one call, jittered waits, and no learning between calls."""
    rig = rig_with([503], {"policy": lambda origin: FixedPolicy(attempts=3, random=lambda: 0.5)})
    for calls in range(1, 20):
        assert (await rig.call()).status == 503
        assert rig.upstream.hits == 3 * calls
    assert rig.clock.waits[:2] == pytest.approx([0.1, 0.3])
    assert rig.middleware.snapshot().suppressed == {"max_attempts": 19}


@pytest.mark.parametrize("policy", [FixedPolicy(), "adaptive", 3])
def test_the_factory_has_to_be_one(policy: Any) -> None:
    """A policy in place of what makes policies is named where it is made."""
    with pytest.raises(TypeError, match="policy must be callable"):
        AdaptiveRetryMiddleware(policy=cast(Callable[[str], Policy], policy))
