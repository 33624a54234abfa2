"""One middleware, several event loops one after the other, as where a script runs several."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

pytestmark = pytest.mark.wire


def test_loops_one_after_the_other() -> None:
    """What was learnt and counted stays; nothing of the loop that is gone is in the way."""
    retry = AdaptiveRetryMiddleware(AdaptiveConfig(backoff_base=0.01, backoff_cap=0.01))
    received = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal received
        received += 1
        return web.Response(status=503 if received % 3 == 0 else 200)

    async def calls() -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        async with (
            TestServer(app) as server,
            aiohttp.ClientSession(middlewares=[retry]) as session,
        ):
            for _ in range(10):
                async with session.get(server.make_url("/")) as response:
                    assert response.status == 200

    for _ in range(3):
        asyncio.run(calls())
    snapshot = retry.snapshot()
    assert sum(snapshot.attempts.values()) == received > 30
    assert snapshot.requests.total == 30


def test_a_loop_that_ends_in_the_middle_of_a_wait() -> None:
    """A call that dies with its loop leaves no token reserved and no place taken."""
    retry = AdaptiveRetryMiddleware(AdaptiveConfig(backoff_base=60.0, backoff_cap=60.0))
    waiting = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        waiting.set()
        return web.Response(status=500)

    async def call() -> None:
        app = web.Application()
        app.router.add_get("/", answer)
        async with TestServer(app) as server, aiohttp.ClientSession(middlewares=[retry]) as session:
            task = asyncio.create_task(session.request("GET", server.make_url("/")))
            await waiting.wait()
            await asyncio.sleep(0.05)
            assert not task.done()
            # Left to `asyncio.run`, which cancels what is still there.
            raise KeyError

    for _ in range(2):
        waiting = asyncio.Event()
        with pytest.raises(KeyError):
            asyncio.run(call())
    snapshot = retry.snapshot()
    assert snapshot.requests.ignored == 2
    for origin in snapshot.origins:
        assert origin.in_flight == 0
        assert origin.held == 0
