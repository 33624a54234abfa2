"""What `make bench` measures of trouble is what it says: each call did what its row tells.

Figures are nobody's business here, only counts. The clock is real, and no test waits for long.
"""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from benchmarks.cost import failing, parked
from benchmarks.cost.failing import Case
from benchmarks.cost.stand_ins import requests_to


async def test_each_case_makes_the_attempts_of_its_script() -> None:
    """Ours sees each failure of a script once, and retries those that are to be retried."""
    every = failing.cases()
    samples, bare = await failing.measured(every, turn=0.0, rounds=1)
    assert samples.keys() == bare.keys() == every.keys()
    for name, case in every.items():
        if not isinstance(case.middleware, AdaptiveRetryMiddleware):
            continue
        seen = case.middleware.snapshot()
        passes = seen.requests.total // case.calls
        assert passes > 0, name
        assert sum(seen.attempts.values()) == passes * len(case.script), name
        failures = sum(status != 200 for status in case.script)
        assert sum(seen.failures.values()) == passes * failures, name
        mended = 0 if case.method == "POST" else passes * failures
        assert seen.requests.retry_success == mended, name
        assert seen.faults == 0, name


async def test_a_call_that_is_not_retried_is_no_figure() -> None:
    """A case whose calls end otherwise than its script says is refused."""
    once = AdaptiveRetryMiddleware(AdaptiveConfig(max_attempts=1), sleep=failing.at_once)
    with pytest.raises(RuntimeError, match="only once"):
        await failing.measured({"only once": Case((503, 200), once)}, turn=0.0, rounds=1)


async def test_bare_attempts_meet_the_same_script() -> None:
    """What a case is measured over is one bare attempt for each line of its script."""
    handler = failing.handler_following((None, 503, 200))
    async with aiohttp.ClientSession() as session:
        request, *_ = await requests_to(session, ["http://api.example.com/"])
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectorError):
                await handler(request)
            assert [(await handler(request)).status for _ in range(2)] == [503, 200]


async def test_held_calls_wake_and_stay_held() -> None:
    """All calls are held for as long as they are watched, over all of their origins."""
    found = await parked.holding(30, 3, windows=3, window=0.1)
    assert len(found.shares) == 3
    assert found.wakes > 0.0


async def test_held_calls_have_a_size() -> None:
    """A held call takes more than a task that waits, which takes something."""
    held, plain = await parked.held_bytes(50, 1)
    assert held > plain > 0.0


@pytest.mark.parametrize("answer_time", [0.0, 0.01])
async def test_all_held_calls_are_let_go(answer_time: float) -> None:
    """After a success every held call is sent, and succeeds."""
    async with parked.crowd_of(40, 2, answer_time) as crowd:
        await crowd.gather()
        assert crowd.held == 40
        await crowd.let_go()
        assert [task.result().status for task in crowd.tasks] == [200] * 40
        seen = crowd.middleware.snapshot()
    assert seen.requests.retry_success == 40
    assert seen.requests.total == crowd.site.answers
    assert sum(seen.attempts.values()) == crowd.site.attempts
    assert crowd.held == 0


async def test_the_moment_of_letting_go_is_watched() -> None:
    """Lags are worst ones, so none is below zero."""
    found = await parked.letting_go(20, 0.0, watched=0.02)
    assert min(found.idle_lag, found.held_lag, found.lag) >= 0.0
    assert found.seconds > 0.0


async def test_a_crowd_leaves_nothing_behind() -> None:
    """Calls that are still held at the end are cancelled, and counted as ignored."""
    async with parked.crowd_of(10, 1) as crowd:
        await crowd.gather()
    assert all(task.cancelled() for task in crowd.tasks)
    seen = crowd.middleware.snapshot()
    assert seen.requests.ignored == 10
    assert [(origin.held, origin.in_flight) for origin in seen.origins] == [(0, 0)]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_calls_that_are_not_held_are_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is held, no crowd gathers, and that is said."""
    monkeypatch.setattr(parked, "_CONFIG", AdaptiveConfig(hold_cap=0.0))
    monkeypatch.setattr(parked, "_GATHERED", 0.1)
    with pytest.raises(RuntimeError, match="of 10 calls are held"):
        async with parked.crowd_of(10, 1) as crowd:
            await crowd.gather()
