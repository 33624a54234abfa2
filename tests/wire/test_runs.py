"""Which run of the chain belongs to which call: one call's error is never another call's."""

from __future__ import annotations

import asyncio
import functools
import gc
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

from ..kit.calls import retrying
from ..kit.faults import Action, Exchange, FaultServer, close, redirect, reply
from ..kit.fixtures import Open, Serve

LOST = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)


def by_path(**actions: Action) -> Action:
    """What happens depends on the path; 200 where nothing is said of it."""

    async def run(exchange: Exchange) -> bool:
        action = actions.get(exchange.path.strip("/"), reply())
        return await action.run(exchange)

    return Action(run)


def limiting(retry: AdaptiveRetryMiddleware) -> ClientMiddlewareType:
    """A middleware in whose inner function a ClientTimeout of long life stands."""
    limit = aiohttp.ClientTimeout(total=60)

    async def limited(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async def attempt(request: ClientRequest) -> ClientResponse:
            async with asyncio.timeout(limit.total):
                return await handler(request)

        return await retry(request, attempt)

    return limited


def composed(retry: AdaptiveRetryMiddleware) -> ClientMiddlewareType:
    """Ours and a token middleware, put together by hand; the latter has a ClientTimeout too."""
    timeout = aiohttp.ClientTimeout(total=3)

    async def token(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers["X-Token"] = f"good for {timeout.total} s"
        return await handler(request)

    async def both(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async def inner(request: ClientRequest) -> ClientResponse:
            return await token(request, handler)

        return await retry(request, inner)

    return both


def hidden(retry: AdaptiveRetryMiddleware) -> ClientMiddlewareType:
    """The handler stands in an object, where no variable of aiohttp's can be found."""

    class Handler:
        def __init__(self, handler: ClientHandlerType) -> None:
            self.handler = handler

        async def __call__(self, request: ClientRequest) -> ClientResponse:
            return await self.handler(request)

    async def hiding(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await retry(request, Handler(handler))

    return hiding


WAYS = {"plain": lambda retry: retry, "limit": limiting, "composed": composed, "hidden": hidden}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("attempts", [1, 2])
async def test_a_lost_connection_fails_its_own_call_only(
    attempts: int, way: Any, serve: Serve, open_session: Open
) -> None:
    """After one failed call every other call is sent: the same path, others, other hosts, POST."""
    server, other = await serve(by_path(bad=close())), await serve(reply())
    session = open_session(way(retry := retrying(max_attempts=attempts)))
    with pytest.raises(LOST):
        await session.get(server.url / "bad")
    assert server.hits == attempts
    for url in (server.url / "good", server.url / "fine", other.url, server.url / "good"):
        async with session.get(url) as answer:
            assert answer.status == 200
        async with session.post(url) as answer:
            assert answer.status == 200
    assert (server.hits, other.hits) == (attempts + 6, 2)
    # The path that failed is asked again as well, in the same task.
    with pytest.raises(LOST):
        await session.get(server.url / "bad")
    assert server.hits == 2 * attempts + 6
    assert retry.snapshot().faults == 0


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("pause", [0.0, 0.01])
async def test_many_at_once_send_no_more_than_max_attempts(
    pause: float, way: Any, serve: Serve, open_session: Open
) -> None:
    """However many calls lose their connection at once, and whatever awaits between two runs."""

    async def waiting(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await asyncio.sleep(pause)
        return await handler(request)

    server = await serve(close())
    retry = retrying(max_attempts=1)
    session = open_session(waiting, way(retry), limit=0)

    async def call() -> None:
        with pytest.raises(LOST):
            await session.get(server.url)

    await asyncio.gather(*(call() for _ in range(400)))
    assert server.hits == 400
    assert retry.snapshot().attempts == {"original": 400, "retry": 0}
    # The calls are over, and so are their notes. (The loop's present step still holds the tasks.)
    await asyncio.sleep(0)
    gc.collect()
    retry._runs.forget(1000.0)
    assert not retry._runs.noted


async def test_a_middleware_may_make_requests_of_its_own_between_two_runs(
    serve: Serve, open_session: Open
) -> None:
    """A token is fetched before each run, by the same session; the call still ends as it must."""
    server = await serve(by_path(bad=close()))

    async def token(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        if not request.url.path.endswith("token"):
            async with request.session.get(server.url / "token") as answer:
                assert answer.status == 200
        return await handler(request)

    session = open_session(token, retrying(max_attempts=1))
    with pytest.raises(LOST):
        await session.get(server.url / "bad")
    # A token for each of aiohttp's two runs, and one request.
    assert server.hits == 3


async def test_a_run_that_never_comes_is_no_other_calls(serve: Serve, open_session: Open) -> None:
    """A middleware before ours answers in place of aiohttp's second run; the next call is sent."""
    server = await serve(close(), reply())

    async def forgiving(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        try:
            return await handler(request)
        except LOST:
            raise aiohttp.ClientError("translated") from None

    session = open_session(forgiving, retrying(max_attempts=1))
    with pytest.raises(aiohttp.ClientError, match="translated"):
        await session.get(server.url)
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert server.hits == 2


async def test_redirects_that_are_not_followed_leave_no_deadline(
    serve: Serve, open_session: Open
) -> None:
    """The next call of the same task has its own time, also where it asks for the Location."""
    server = await serve(by_path(old=redirect("/new")))
    session = open_session(hidden(retry := retrying()))
    for path in ("old", "elsewhere"):
        async with session.get(server.url / path, allow_redirects=False) as answer:
            assert answer.status in (200, 302, 307)
    assert retry.snapshot().faults == 0
    assert server.hits == 2


async def test_a_note_holds_nothing_of_the_answer(serve: Serve, open_session: Open) -> None:
    """A response head that breaks off stays in no note: no cookie of it is kept."""
    canary = "session=CANARY" + "x" * 1000

    async def cut(exchange: Exchange) -> bool:
        head = f"HTTP/1.1 200 OK\r\nSet-Cookie: {canary}\r\nContent-Length: 5\r\n\r\n"
        await exchange.send(head.encode()[:-2])
        return False

    server: FaultServer = await serve(Action(cut))
    retry = retrying(max_attempts=1)
    session = open_session(retry)
    with pytest.raises(aiohttp.ClientError):
        await session.get(server.url)
    for run in retry._runs.noted.values():
        assert run.parts is not None
        assert "CANARY" not in repr(run.parts)
        assert isinstance(run.error(), LOST)


async def _in_a_task(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    return await asyncio.create_task(handler(request))  # type: ignore[arg-type]


async def _with_a_nonce(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    request.url = request.url.update_query(nonce=str(id(request)))
    return await handler(request)


@pytest.mark.parametrize("before", [_in_a_task, _with_a_nonce])
async def test_a_middleware_before_ours_may_change_task_or_url(
    before: ClientMiddlewareType, serve: Serve, open_session: Open
) -> None:
    """A call of which every run has a task, or a query, of its own is still one call."""
    server = await serve(close())
    session = open_session(before, retrying(max_attempts=1))
    for _ in range(3):
        with pytest.raises(LOST):
            await session.get(server.url)
    assert server.hits == 3


class OddError(aiohttp.ServerDisconnectedError):
    """An error of a connector of one's own, with arguments that can't be left out."""

    def __init__(self, message: Any, code: int) -> None:
        super().__init__(message)
        self.code = code


async def test_an_odd_error_is_raised_again_too(serve: Serve, open_session: Open) -> None:
    """Whatever a subclass of aiohttp's error holds, its second run sends nothing."""
    server = await serve(reply())

    async def failing(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        await handler(request)
        raise OddError(object(), 7)

    session = open_session(retry := retrying(max_attempts=1), failing)
    with pytest.raises(OddError) as caught:
        await session.get(server.url)
    assert caught.value.code == 7
    assert server.hits == 1
    assert retry.snapshot().faults == 0


async def test_what_a_wrapped_function_says_of_its_module_is_not_believed(
    serve: Serve, open_session: Open
) -> None:
    """A ClientTimeout in a closure that `functools.wraps` dressed up is not the call's."""
    limit = aiohttp.ClientTimeout(total=2)

    async def dressed(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        @functools.wraps(handler)
        async def inner(request: ClientRequest) -> ClientResponse:
            assert limit.total
            return await handler(request)

        return await retry(request, inner)

    server = await serve(reply(503, headers="Retry-After: 3\r\n"), reply())
    retry = retrying()
    session = open_session(dressed, timeout=aiohttp.ClientTimeout(total=100))
    async with session.get(server.url) as answer:
        assert answer.status == 200
