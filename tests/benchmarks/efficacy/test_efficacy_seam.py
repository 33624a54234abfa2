"""The simulator's policies are policies: they work in the middleware, on what it tells them."""

from __future__ import annotations

import random
from itertools import cycle
from typing import Any

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, OriginUnavailable
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, GiveUp, Send, Wait
from benchmarks.efficacy.anchors_breakers import Resilience4j
from benchmarks.efficacy.anchors_budgets import FinagleBudget
from benchmarks.efficacy.anchors_loops import FixedThree
from benchmarks.efficacy.policy import ERRORS, PolicyFactory, failure
from benchmarks.efficacy.registry import POLICIES
from tests.kit.clock import Clock
from tests.kit.faults import close, reply
from tests.kit.fixtures import Open, Serve


def attached(factory: PolicyFactory, clock: Clock, **fields: Any) -> AdaptiveRetryMiddleware:
    """A middleware with one such policy for each origin."""
    return AdaptiveRetryMiddleware(
        AdaptiveConfig(**fields),
        policy=lambda origin: factory(clock, lambda: 0.5),
        clock=clock,
        sleep=clock.sleep,
    )


async def test_fixed_three_on_a_real_session(serve: Serve, open_session: Open) -> None:
    """A server that fails twice receives three requests; one that goes on failing, three too."""
    server = await serve(reply(503), close(), reply(200, b"mended"), reply(503))
    clock = Clock()
    retry = attached(FixedThree, clock)
    session = open_session(retry)
    async with session.get(server.url) as response:
        assert (response.status, await response.read()) == (200, b"mended")
    assert server.hits == 3
    assert clock.waits == [1.0, 2.0]
    async with session.get(server.url) as response:
        assert response.status == 503
    assert server.hits == 6
    snapshot = retry.snapshot()
    assert snapshot.requests.retry_success == snapshot.requests.failed_after_retry == 1
    # Its word for giving up is its own.
    assert snapshot.suppressed == {"_OTHER": 1}
    assert snapshot.faults == 0


@pytest.mark.parametrize(("max_attempts", "received"), [(5, 5), (100, 21)])
async def test_finagles_budget_on_a_real_session(
    serve: Serve, open_session: Open, max_attempts: int, received: int
) -> None:
    """One call may take a fifth of its balance of 100, unless the driver's bound comes first."""
    server = await serve(reply(503))
    clock = Clock()
    retry = attached(FinagleBudget, clock, max_attempts=max_attempts)
    async with open_session(retry).get(server.url) as response:
        assert response.status == 503
    assert server.hits == received
    # It retries at once.
    assert sum(clock.waits) == 0.0
    assert retry.snapshot().suppressed == {"max_attempts" if received == 5 else "_OTHER": 1}
    assert retry.snapshot().faults == 0


async def test_resilience4j_on_a_real_session(serve: Serve, open_session: Open) -> None:
    """After a hundred failures nothing is sent for sixty seconds; then trials find out."""
    server = await serve(*[reply(503)] * 100, reply(200))
    clock = Clock()
    retry = attached(Resilience4j, clock)
    session = open_session(retry)
    for _ in range(33):
        async with session.get(server.url) as response:
            assert response.status == 503
    assert server.hits == 99
    # The hundredth failure opens the breaker, which then refuses two more tries of this call.
    async with session.get(server.url) as response:
        assert response.status == 503
    assert server.hits == 100
    for _ in range(10):
        with pytest.raises(OriginUnavailable, match="breaker open"):
            await session.get(server.url)
    assert server.hits == 100
    assert retry.snapshot().requests.refused == 10
    clock.now += 60
    for number in range(1, 11):
        async with session.get(server.url) as response:
            assert response.status == 200
        assert server.hits == 100 + number
    assert retry.snapshot().faults == 0


class Bare:
    """A call with what a `CallView` has, of which a policy may write `state` alone."""

    __slots__ = ("_attempts", "_deadline", "_started", "state")

    def __init__(self, started: float, deadline: float | None) -> None:
        self._attempts = 0
        self._started = started
        self._deadline = deadline
        self.state: Any = None

    @property
    def attempts(self) -> int:
        return self._attempts

    @property
    def started(self) -> float:
        return self._started

    @property
    def deadline(self) -> float | None:
        return self._deadline

    def sent(self) -> None:
        """Count an attempt."""
        self._attempts += 1


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("seconds", [10.0, None])
def test_no_policy_uses_more_of_a_call_than_a_view_has(name: str, seconds: float | None) -> None:
    """Each works through failures of all kinds, successes and cancellations, and ends each call."""
    now, luck = 0.0, random.Random(5)
    policy = POLICIES[name](lambda: now, luck.random)
    sent = ended = 0
    for error, number in zip(cycle(ERRORS), range(600), strict=False):
        call = Bare(now, None if seconds is None else now + seconds)
        action: Action = policy.arrive(now, call)
        for _ in range(2000):
            if isinstance(action, GiveUp):
                ended += 1
                break
            if isinstance(action, Wait):
                assert action.seconds >= 0.0
                if number % 7 == 0 or (call.deadline and now + action.seconds >= call.deadline):
                    policy.cancel(now, call)
                    ended += 1
                    break
                now += action.seconds
                action = policy.wake(now, call)
                continue
            assert isinstance(action, Send)
            call.sent()
            sent += 1
            now += 0.01
            if luck.random() < 0.3:
                policy.outcome(now, call, AttemptOutcome(True, latency=0.01))
                ended += 1
                break
            asked = 2.0 if error == "429" else None
            action = policy.outcome(now, call, failure(error, 0.01, asked))
        now += 0.2
    assert ended == 600
    assert sent > 50
