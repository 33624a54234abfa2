"""aiohttp runs the whole chain again after a lost connection; the wire must not see that."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.policy import Action as PolicyAction
from aiohttp_adaptive_retry.policy import AttemptOutcome, CallView, FixedPolicy, GiveUp

from ..kit.calls import books, is_idle, lavish, retrying
from ..kit.clock import Clock
from ..kit.faults import Action, FaultServer, close, redirect, reply, reset
from ..kit.fixtures import Open, Serve
from ..kit.resolvers import EverywhereHere

FAULTS = {"FIN": close(), "RST": reset(), "RST at accept": reset(at_accept=True)}
LOST = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)


async def test_aiohttp_alone_sends_twice(serve: Serve, open_session: Open) -> None:
    """What all of this is about: without a middleware, one call is two requests."""
    server = await serve(close())
    session = open_session()
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await session.get(server.url)
    assert server.hits == 2


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
async def test_attempts_on_the_wire_never_exceed_max_attempts(
    attempts: int, method: str, fault: Action, serve: Serve, open_session: Open
) -> None:
    """The server receives exactly `max_attempts`, and the caller the error of the last one."""
    server = await serve(fault)
    session = open_session(retry := retrying(max_attempts=attempts), limit=1)
    with pytest.raises(LOST):
        await session.request(method, server.url)
    assert server.hits == attempts
    assert retry.snapshot().suppressed == {"max_attempts": 1}
    books(retry, attempts, **{f"failed_{'after' if attempts > 1 else 'without'}_retry": 1})
    await is_idle(session)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_method_that_may_not_be_retried_is_sent_once(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """Neither we nor aiohttp send a POST again."""
    server = await serve(fault)
    session = open_session(retry := retrying())
    with pytest.raises(LOST):
        await session.post(server.url, data=b"x")
    assert server.hits == 1
    books(retry, 1, failed_without_retry=1)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_an_idempotent_method_that_is_not_to_be_retried_is_sent_once(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """Who takes PUT out of `retry_methods` gets no second PUT from aiohttp either."""
    server = await serve(fault)
    session = open_session(retry := retrying(retry_methods={"GET"}))
    with pytest.raises(LOST):
        await session.put(server.url, data=b"x")
    assert server.hits == 1
    assert retry.snapshot().suppressed == {"not_idempotent": 1}
    books(retry, 1, failed_without_retry=1)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("data", [b"x" * 1000, "text", io.BytesIO, {"a": "b"}], ids=type)
async def test_an_upload_is_not_sent_behind_our_back(
    data: Any, fault: Action, serve: Serve, open_session: Open
) -> None:
    """With a body aiohttp takes another way to its second run; it ends the same."""
    server = await serve(fault)
    session = open_session(retry := retrying(max_attempts=2))
    with pytest.raises(LOST):
        await session.put(server.url, data=data(b"x" * 1000) if callable(data) else data)
    assert server.hits == 2
    books(retry, 2, failed_after_retry=1)


class Refusing(FixedPolicy):
    """Gives every failed call up for want of budget."""

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> PolicyAction:
        return super().outcome(now, call, outcome) if outcome.ok else GiveUp("budget_exhausted")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_policy_that_refuses_is_not_overruled_by_aiohttp(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """Every refusal to retry holds on the wire, not only `max_attempts`."""
    server = await serve(fault)
    session = open_session(retry := AdaptiveRetryMiddleware(policy=lambda origin: Refusing()))
    for _ in range(3):
        with pytest.raises(LOST):
            await session.get(server.url)
    assert server.hits == 3
    assert retry.snapshot().suppressed == {"budget_exhausted": 3}
    books(retry, 3, failed_without_retry=3)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_an_empty_budget_is_not_overdrawn_by_aiohttp(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """Calls without a token look for themselves, and the server receives nothing beyond that."""
    server = await serve(fault)
    session = open_session(retry := retrying(budget_initial=0.0, budget_floor=0.0))
    for sent in (4, 5, 6):  # The first call looks thrice; then the origin is known to be down.
        with pytest.raises(LOST):
            await session.get(server.url)
        assert server.hits == sent
    assert retry.snapshot().suppressed == {"budget_exhausted": 1, "origin_down": 2}
    books(retry, 6, failed_after_retry=1, failed_without_retry=2)


async def test_a_stale_connection_is_one_request_with_one_attempt(
    serve: Serve, open_session: Open
) -> None:
    """`max_attempts=1` is one request on the wire, aiohttp's replay of a stale one included."""
    server = await serve(reply(), close(), reply())
    session = open_session(retry := retrying(max_attempts=1))
    async with session.get(server.url) as answer:
        await answer.read()
    with pytest.raises(LOST):
        await session.get(server.url)
    assert (server.hits, server.connections) == (2, 1)
    books(retry, 2, first_success=1, failed_without_retry=1)


async def test_a_stale_connection_is_mended_with_two_attempts(
    serve: Serve, open_session: Open
) -> None:
    """From 2 on such a loss is mended by us."""
    server = await serve(reply(), close(), reply())
    session = open_session(retry := retrying(max_attempts=2))
    for _ in range(2):
        async with session.get(server.url) as answer:
            assert answer.status == 200
            await answer.read()
    assert (server.hits, server.connections) == (3, 2)
    books(retry, 3, first_success=1, retry_success=1)


# Other middlewares in the chain.


async def _passing(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    return await handler(request)


def _with_a_timeout(timeout: aiohttp.ClientTimeout) -> ClientMiddlewareType:
    async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        # That it holds a ClientTimeout must not make one call look like another.
        assert timeout.total
        return await handler(request)

    return middleware


class _Object:
    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await handler(request)

    async def method(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await handler(request)


OTHERS: dict[str, ClientMiddlewareType] = {
    "function": _passing,
    "closure": _with_a_timeout(aiohttp.ClientTimeout(total=1)),
    "object": _Object(),
    "method": _Object().method,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("place", ["before", "after", "around"])
@pytest.mark.parametrize("attempts", [1, 3])
async def test_other_middlewares_change_nothing(
    attempts: int, place: str, other: ClientMiddlewareType, serve: Serve, open_session: Open
) -> None:
    """Wherever another middleware stands, `max_attempts` requests are sent for each call."""
    server = await serve(close())
    retry = retrying(max_attempts=attempts)
    chain = {"before": [other, retry], "after": [retry, other], "around": [other, retry, other]}
    session = open_session(*chain[place])
    for _ in range(2):
        with pytest.raises(LOST):
            await session.get(server.url)
    assert server.hits == 2 * attempts
    books(retry, server.hits, **{f"failed_{'after' if attempts > 1 else 'without'}_retry": 2})


async def test_other_middlewares_run_where_they_stand(serve: Serve, open_session: Open) -> None:
    """Those after ours run for every attempt, those before it once (and for aiohttp's rerun)."""
    server = await serve(reply(503), reply(503), reply())
    ran: list[str] = []

    def noting(name: str) -> ClientMiddlewareType:
        async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
            ran.append(name)
            return await handler(request)

        return middleware

    session = open_session(noting("before"), retry := retrying(), noting("after"))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert ran == ["before", "after", "after", "after"]
    books(retry, 3, retry_success=1)


def _insistent(times: int, runs: list[str] | None = None) -> ClientMiddlewareType:
    """A middleware that sends a request that failed again, so many times in all."""

    async def middleware(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if runs is not None:
            runs.append(request.method)
        for _ in range(times - 1):
            try:
                return await handler(request)
            except LOST:
                pass
        return await handler(request)

    return middleware


async def test_a_middleware_before_ours_that_tries_again_gets_fresh_attempts(
    serve: Serve, open_session: Open
) -> None:
    """Its second try is its own affair: two attempts each, and the fourth succeeds."""
    server = await serve(close(), close(), close(), reply())
    runs: list[str] = []
    session = open_session(_insistent(2, runs), retry := retrying(max_attempts=2))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert server.hits == 4
    # And in its own time: not only after aiohttp has run the chain again.
    assert runs == ["GET"]
    books(retry, 4, failed_after_retry=1, retry_success=1)


@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_middleware_before_ours_that_tries_again_is_not_doubled(
    attempts: int, serve: Serve, open_session: Open
) -> None:
    """It asks for three tries; aiohttp's rerun of the chain adds none on the wire."""
    server = await serve(close())
    session = open_session(_insistent(3), lavish(max_attempts=attempts))
    with pytest.raises(LOST):
        await session.get(server.url)
    assert server.hits == 3 * attempts


async def test_ours_twice_in_one_chain(serve: Serve, open_session: Open) -> None:
    """Two middlewares of ours multiply their attempts, and aiohttp adds none."""
    server = await serve(close())
    outer, inner = lavish(max_attempts=2), lavish(max_attempts=3)
    session = open_session(outer, inner)
    with pytest.raises(LOST):
        await session.get(server.url)
    assert server.hits == 6
    books(outer, 2, failed_after_retry=1)
    books(inner, 6, failed_after_retry=2)


# One call is not another.


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_a_callers_own_loop_gets_all_attempts_every_time(
    fault: Action, serve: Serve, open_session: Open
) -> None:
    """A call straight after the exception of the last one is a new call."""
    server = await serve(fault)
    session = open_session(retry := lavish(max_attempts=2))
    for number in range(1, 6):
        with pytest.raises(LOST):
            await session.get(server.url)
        assert server.hits == 2 * number
    books(retry, 10, failed_after_retry=5)


async def test_a_callers_own_loop_succeeds_as_soon_as_the_server_does(
    serve: Serve, open_session: Open
) -> None:
    """Nothing of a failed call is left that a later call could be given."""
    server = await serve(close(), close(), reply())
    session = open_session(retry := retrying(max_attempts=2))
    with pytest.raises(LOST):
        await session.get(server.url)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert server.hits == 3
    books(retry, 3, failed_after_retry=1, first_success=1)


async def test_calls_at_the_same_time_have_their_own_attempts(
    serve: Serve, open_session: Open
) -> None:
    """Two hundred calls that all lose their connections: three requests each, no more, no less.

    Each to an origin of its own, since so many failures of one are an outage, and held.
    """
    server = await serve(close())
    # Shared by all calls, as a session's default is: it must not make them look alike.
    timeout = aiohttp.ClientTimeout(total=100_000)
    connector = aiohttp.TCPConnector(limit=50, resolver=EverywhereHere(), family=socket.AF_INET)
    session = open_session(retry := lavish(max_attempts=3), timeout=timeout, connector=connector)

    async def call(number: int) -> None:
        with pytest.raises(LOST):
            await session.get(server.url.with_host(f"h{number}.test"), timeout=timeout)

    await asyncio.gather(*(call(number) for number in range(200)))
    assert server.hits == 600
    books(retry, 600, failed_after_retry=200)


async def test_two_sessions_share_a_middleware(serve: Serve, open_session: Open) -> None:
    """One object on two sessions at the same time keeps their calls apart."""
    server, other = await serve(close()), await serve(close(), reply())
    retry = lavish(max_attempts=2)
    first, second = open_session(retry), open_session(retry)

    async def fails() -> None:
        with pytest.raises(LOST):
            await first.get(server.url)

    async def succeeds() -> None:
        async with second.get(other.url) as answer:
            assert answer.status == 200

    await asyncio.gather(fails(), succeeds())
    assert (server.hits, other.hits) == (2, 2)
    books(retry, 4, failed_after_retry=1, retry_success=1)


async def test_a_lost_connection_behind_a_redirect(serve: Serve, open_session: Open) -> None:
    """The second hop has its own attempts, and aiohttp adds none to them."""
    server = await serve(redirect("/there"), close())
    session = open_session(retry := retrying(max_attempts=3))
    with pytest.raises(LOST):
        await session.get(server.url)
    assert server.hits == 4
    books(retry, 4, first_success=1, failed_after_retry=1)


async def test_the_error_says_what_the_last_attempt_met(serve: Serve, open_session: Open) -> None:
    """The caller's error has the number and the text that aiohttp gave it."""
    server = await serve(reset())
    session = open_session(retrying(max_attempts=2))
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await session.get(server.url)
    assert caught.value.errno == 104
    assert "reset" in str(caught.value)


@pytest.mark.parametrize("status_or_error", [close, lambda: reply(503)], ids=["FIN", "503"])
async def test_nothing_is_left_after_many_failed_calls(
    status_or_error: Callable[[], Action], serve: Serve, open_session: Open
) -> None:
    """A failure that aiohttp never asks for again is forgotten with the traffic that follows."""
    server: FaultServer = await serve(status_or_error())
    clock = Clock()
    retry = lavish(clock, max_attempts=1)
    session = open_session(retry)
    for _ in range(20):
        try:
            async with session.get(server.url):
                pass
        except LOST:
            pass
    assert server.hits == 20
    books(retry, 20, failed_without_retry=20)
