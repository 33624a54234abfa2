"""The queue of the client's own pool: no part of latency, no evidence, and no limit runs in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from ..kit.calls import retrying
from ..kit.clock import Clock
from ..kit.faults import Action, Exchange, FaultServer, close, hang, reply
from ..kit.fixtures import Open, Serve
from ..kit.policies import Listening
from ..kit.resolvers import EverywhereHere

LIMITS: dict[str, dict[str, Any]] = {
    "limit": {"limit": 1},
    "limit per host": {"limit": 100, "limit_per_host": 1},
}


def listening(policy: Listening, clock: Any = None, **fields: Any) -> AdaptiveRetryMiddleware:
    """A middleware whose policy is that one; on a fake clock, if one is given."""
    parts = {} if clock is None else {"clock": clock, "sleep": clock.sleep}
    return AdaptiveRetryMiddleware(AdaptiveConfig(**fields), policy=policy, **parts)


def taking(clock: Clock, seconds: float, action: Action | None = None) -> Action:
    """An answer that takes so long by the fake clock."""

    async def run(exchange: Exchange) -> bool:
        clock.now += seconds
        return await (action or reply()).run(exchange)

    return Action(run)


async def fetch(session: aiohttp.ClientSession, url: Any, **more: Any) -> int:
    """The status of one call whose answer is read."""
    async with session.get(url, **more) as answer:
        await answer.read()
        return answer.status


def traces(request: ClientRequest) -> list[Any]:
    """The tracers of a request, which nothing public gives."""
    return list(request._traces)


# Latency.


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("fields", [{}, {"attempt_timeout": 60.0}], ids=["", "limit of time"])
async def test_latency_is_the_servers(
    fields: dict[str, Any], limits: dict[str, Any], serve: Serve, open_session: Open
) -> None:
    """Five calls share one connection. Each takes 2 s on the server, the last one 10 s in all."""
    clock, policy = Clock(), Listening()
    server = await serve(taking(clock, 2.0))
    connector = aiohttp.TCPConnector(**limits)
    session = open_session(listening(policy, clock, **fields), connector=connector)
    began = clock.now
    await asyncio.gather(*(fetch(session, server.url) for _ in range(5)))
    assert clock.now == began + 10.0
    assert server.connections == 1
    assert [outcome.latency for outcome in policy.outcomes] == [2.0] * 5


async def test_latency_without_keep_alive(serve: Serve, open_session: Open) -> None:
    """Each attempt has a connection of its own, and waits for the place of another one."""
    clock, policy = Clock(), Listening()
    answer = reply(headers="Connection: close\r\n")
    server = await serve(taking(clock, 2.0, answer))
    session = open_session(listening(policy, clock), limit=1)
    await asyncio.gather(*(fetch(session, server.url) for _ in range(4)))
    assert server.connections == 4
    assert [outcome.latency for outcome in policy.outcomes] == [2.0] * 4


async def test_latency_of_failures_and_retries(serve: Serve, open_session: Open) -> None:
    """What failed, and what was sent again, has waited too."""
    clock, policy = Clock(), Listening(pause=0.0)
    server = await serve(*[taking(clock, 2.0, reply(503))] * 3, taking(clock, 2.0))
    session = open_session(listening(policy, clock), limit=1)
    await asyncio.gather(*(fetch(session, server.url) for _ in range(3)))
    assert server.hits == 6
    assert [outcome.latency for outcome in policy.outcomes] == [2.0] * 6
    assert [outcome.ok for outcome in policy.outcomes] == [False] * 3 + [True] * 3


async def test_what_the_shipped_policy_is_told(
    serve: Serve, open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The latency of the server, or that the latency is not known; never that of the queue."""
    told: list[float] = []
    clock = Clock()
    server = await serve(taking(clock, 2.0))
    retry = retrying(clock)
    real = type(retry._driver).first_success

    def first_success(driver: Any, now: float, origin: Any, latency: float) -> None:
        told.append(latency)
        real(driver, now, origin, latency)

    monkeypatch.setattr(type(retry._driver), "first_success", first_success)
    session = open_session(retry, limit=1)
    for _ in range(4):
        await asyncio.gather(*(fetch(session, server.url) for _ in range(4)))
        # Within the lease that the last call has renewed.
        clock.now += 0.001
    assert server.hits == 16
    known = [latency for latency in told if latency == latency]
    assert known == [2.0] * len(known)
    # All but the calls that began in a lease.
    assert len(known) >= 4


async def test_nobody_is_asked_where_nobody_waits(
    serve: Serve, open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls one after the other add no tracer, whatever the limit."""
    server = await serve(reply(503), reply())
    seen: list[list[Any]] = []

    async def look(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        seen.append(traces(request))
        return await handler(request)

    session = open_session(retrying(), look, limit=1)
    for _ in range(3):
        await fetch(session, server.url)
    assert seen == [[]] * 4


# The limit of time.


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
async def test_the_limit_of_time_stands_still(
    limits: dict[str, Any], serve: Serve, open_session: Open
) -> None:
    """Ten calls of 60 ms share one connection. The last one takes 0.6 s, with a limit of 0.4."""
    policy = Listening()
    server = await serve(reply(split=0.06))

    async def slow(exchange: Exchange) -> bool:
        await asyncio.sleep(0.06)
        return await reply().run(exchange)

    server.script = [Action(slow)]
    connector = aiohttp.TCPConnector(**limits)
    session = open_session(listening(policy, attempt_timeout=0.4), connector=connector)
    statuses = await asyncio.gather(*(fetch(session, server.url) for _ in range(10)))
    assert statuses == [200] * 10
    assert (server.hits, policy.failures) == (10, [])


async def test_the_limit_of_time_goes_on_after_the_queue(serve: Serve, open_session: Open) -> None:
    """A call that has waited for its connection is still ended if no answer comes."""
    policy = Listening(pause=0.0)
    server = await serve(hang())
    session = open_session(listening(policy, attempt_timeout=0.1, max_attempts=1), limit=1)
    calls = [fetch(session, server.url) for _ in range(3)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [aiohttp.ServerTimeoutError] * 3
    # Each was sent: none of the limits has run out in the queue.
    assert server.hits == 3
    assert all(outcome.no_response and outcome.overload for outcome in policy.failures)


async def test_a_middleware_after_ours_takes_its_time(serve: Serve, open_session: Open) -> None:
    """The pool has a place when an attempt begins, and none by the time it wants a connection."""
    policy = Listening()
    together = asyncio.Barrier(6)

    async def slow(exchange: Exchange) -> bool:
        await asyncio.sleep(0.08)
        return await reply().run(exchange)

    async def token(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await together.wait()
        return await handler(request)

    server = await serve(Action(slow))
    session = open_session(listening(policy, attempt_timeout=0.3), token, limit=1)
    statuses = await asyncio.gather(*(fetch(session, server.url) for _ in range(6)))
    assert statuses == [200] * 6
    assert policy.failures == []


# aiohttp's own limits.


def crowded(policy: Listening, clock: Clock, open_session: Open, **fields: Any) -> Any:
    """A session that gives up on its one connection after 0.1 s."""
    timeout = aiohttp.ClientTimeout(total=60, connect=0.1)
    return open_session(listening(policy, clock, **fields), limit=1, timeout=timeout)


def slow(seconds: float) -> Action:
    """An answer that takes so long."""

    async def run(exchange: Exchange) -> bool:
        await asyncio.sleep(seconds)
        return await reply().run(exchange)

    return Action(run)


@pytest.mark.parametrize("fields", [{}, {"attempt_timeout": 9.0}], ids=["", "limit of time"])
async def test_connect_ends_in_the_queue(
    fields: dict[str, Any], serve: Serve, open_session: Open
) -> None:
    """`ClientTimeout(connect=)` runs in the queue. Nothing was sent. So the call queues again at
    once, and no policy is told of a failure."""
    policy, clock = Listening(), Clock()
    server = await serve(slow(0.3))
    session = crowded(policy, clock, open_session, max_attempts=20, **fields)
    statuses = await asyncio.gather(*(fetch(session, server.url) for _ in range(2)))
    assert statuses == [200] * 2
    assert (server.hits, clock.waits) == (2, [])
    assert [outcome.ok for outcome in policy.outcomes] == [True, True]


async def test_a_queue_that_never_ends(serve: Serve, open_session: Open) -> None:
    """A call queues as often as it may be sent, and gets aiohttp's error in the end."""
    policy, clock = Listening(), Clock()
    server = await serve(hang())
    retry = listening(policy, clock, max_attempts=3)
    timeout = aiohttp.ClientTimeout(total=60, connect=0.05)
    session = open_session(retry, limit=1, timeout=timeout)
    holder = asyncio.ensure_future(fetch(session, server.url))
    await asyncio.sleep(0.05)
    with pytest.raises(aiohttp.ConnectionTimeoutError):
        await fetch(session, server.url)
    assert retry.snapshot().suppressed == {"max_attempts": 1}
    assert (server.hits, policy.outcomes, clock.waits) == (1, [], [])
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)


async def test_a_post_in_the_queue(serve: Serve, open_session: Open) -> None:
    """Nothing of it was sent, so it queues again like a GET; `resend="never"` leaves it at that."""
    policy, clock = Listening(), Clock()
    server = await serve(slow(0.3))
    session = crowded(policy, clock, open_session, max_attempts=20)
    first = asyncio.ensure_future(fetch(session, server.url))
    await asyncio.sleep(0.05)
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 200
    assert await first == 200
    assert (server.hits, clock.waits) == (2, [])

    session = crowded(policy, clock, open_session, resend="never")
    first = asyncio.ensure_future(fetch(session, server.url))
    await asyncio.sleep(0.05)
    with pytest.raises(aiohttp.ConnectionTimeoutError):
        await session.post(server.url, data=b"x")
    assert await first == 200
    assert server.hits == 3


class Hanging(EverywhereHere):
    """Never knows an address."""

    async def ports(self, port: int) -> Iterable[int]:
        await asyncio.Event().wait()
        return ()


async def test_connect_ends_while_connecting(open_session: Open) -> None:
    """The same limit, met on the way to the origin, says that nobody answers."""
    policy = Listening()
    session = open_session(
        listening(policy, Clock(), max_attempts=2),
        connector=aiohttp.TCPConnector(resolver=Hanging(), limit=1),
        timeout=aiohttp.ClientTimeout(total=60, connect=0.02),
    )
    with pytest.raises(aiohttp.ConnectionTimeoutError):
        await session.get("http://upstream.test/")
    assert [(o.no_response, o.overload) for o in policy.failures] == [(True, True)] * 2


# Nothing is left.


async def test_the_callers_tracers_see_what_they_saw(serve: Serve, open_session: Open) -> None:
    """Each event once, with our tracer beside them or not."""
    seen: dict[str, list[str]] = {}

    def config(name: str) -> aiohttp.TraceConfig:
        found = aiohttp.TraceConfig()

        def note(event: str) -> Any:
            async def handler(*_: Any) -> None:
                seen.setdefault(name, []).append(event)

            return handler

        for event in (
            "on_request_start",
            "on_connection_queued_start",
            "on_connection_queued_end",
            "on_connection_create_end",
            "on_connection_reuseconn",
            "on_request_headers_sent",
            "on_response_chunk_received",
            "on_request_end",
        ):
            getattr(found, event).append(note(event))
        return found

    server = await serve(reply(split=0.01))
    for name, chain in {"plain": [], "ours": [listening(Listening(), attempt_timeout=5)]}.items():
        session = open_session(*chain, limit=1, trace_configs=[config(name)])
        await asyncio.gather(*(fetch(session, server.url) for _ in range(3)))
    assert sorted(seen["plain"]) == sorted(seen["ours"])
    assert seen["ours"].count("on_connection_queued_end") == 2


@pytest.mark.parametrize("ending", ["success", "failure", "cancelled"])
@pytest.mark.parametrize("fields", [{}, {"attempt_timeout": 9.0}], ids=["", "limit of time"])
async def test_no_tracer_stays(
    fields: dict[str, Any], ending: str, serve: Serve, open_session: Open
) -> None:
    """However an attempt ends, also in the queue: the request has the tracers that it had."""
    requests: list[ClientRequest] = []
    all_here = asyncio.Barrier(4)

    async def keep(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        requests.append(request)
        if len(requests) <= 3:
            await all_here.wait()
        return await handler(request)

    server: FaultServer = await serve(close() if ending == "failure" else reply(split=0.05))
    retry = listening(Listening(), Clock(), max_attempts=2, **fields)
    session = open_session(keep, retry, limit=1)
    calls = [asyncio.ensure_future(fetch(session, server.url)) for _ in range(3)]
    await all_here.wait()
    if ending == "cancelled":
        await asyncio.sleep(0.01)
        assert sorted(len(traces(request)) for request in requests) == [0, 1, 1]
        for call in calls:
            call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    expected = {
        "success": 200,
        "failure": aiohttp.ServerDisconnectedError,
        "cancelled": asyncio.CancelledError,
    }[ending]
    assert [r if isinstance(r, int) else type(r) for r in results] == [expected] * 3
    assert retry.snapshot().faults == 0
    assert [traces(request) for request in requests] == [[]] * len(requests)
