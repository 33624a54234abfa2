"""Ways to attach the middleware that can't work are told clearly."""

from __future__ import annotations

import inspect
import logging
import warnings
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from ..kit.calls import books, lavish
from ..kit.faults import close, reply
from ..kit.fixtures import Open, Serve, open_session, serve

__all__ = ("open_session", "serve")


class Mine(AdaptiveRetryMiddleware):
    """A subclass is named by its own name."""


@pytest.mark.parametrize("kind", [AdaptiveRetryMiddleware, Mine])
async def test_the_class_in_place_of_an_instance(
    kind: Any, serve: Serve, open_session: Open
) -> None:
    """The first call says what the list needs."""
    server = await serve(reply())
    session = open_session(kind)
    with pytest.raises(TypeError, match=rf"has the class {kind.__name__} .* {kind.__name__}\(\)"):
        await session.get(server.url)
    assert server.hits == 0


async def test_a_web_application_does_not_start_with_it() -> None:
    """A server's middleware is another thing, which is said when the application starts."""
    retry = AdaptiveRetryMiddleware()
    app = web.Application(middlewares=[retry])  # type: ignore[list-item]
    with pytest.raises(
        TypeError, match=r"belongs into ClientSession\(middlewares=\), not into web"
    ):
        await TestServer(app).start_server()


async def test_a_web_request_is_no_client_request() -> None:
    """Called from a server's own middleware, each call is told, and none is a fault of ours."""
    retry = AdaptiveRetryMiddleware()
    told = []

    @web.middleware
    async def disguised(request: web.Request, handler: Any) -> web.StreamResponse:
        with pytest.raises(TypeError, match="client middleware") as caught:
            await retry(request, handler)  # type: ignore[arg-type]
        told.append(str(caught.value))
        return await handler(request)  # type: ignore[no-any-return]

    app = web.Application(middlewares=[disguised])
    app.router.add_get("/", _answered)
    server = TestServer(app)
    await server.start_server()
    try:
        async with aiohttp.ClientSession() as session:
            for _ in range(2):
                async with session.get(server.make_url("/")) as answer:
                    assert answer.status == 200
    finally:
        await server.close()
    assert len(told) == 2
    assert retry.snapshot().faults == 0


async def _answered(_: web.Request) -> web.Response:
    return web.Response()


@pytest.mark.parametrize("same", [True, False], ids=["the same", "another"])
async def test_ours_twice_in_one_chain_is_logged_once(
    same: bool, serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Attempts multiply, so a line says so; the calls go on, as such a chain works."""
    server = await serve(reply(), close())
    outer = lavish(max_attempts=2)

    async def between(request: Any, handler: Any) -> Any:
        return await handler(request)

    session = open_session(outer, between, outer if same else lavish(max_attempts=2))
    with caplog.at_level(logging.WARNING, "aiohttp_adaptive_retry"):
        async with session.get(server.url) as answer:
            assert answer.status == 200
        with pytest.raises(aiohttp.ClientError):
            await session.get(server.url)
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "AdaptiveRetryMiddleware is twice in one chain of middlewares, so attempts multiply; "
        "leave one out"
    ]


async def test_two_sessions_and_other_middlewares_are_no_misuse(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """One of ours in each of two sessions, and a closure of the user's that knows both."""
    server = await serve(reply())
    first, second = lavish(), lavish()

    async def choosing(request: Any, handler: Any) -> Any:
        return await (first if request.url.path == "/1" else second)(request, handler)

    for session in (open_session(choosing), open_session(first), open_session(second)):
        async with session.get(server.url / "1") as answer:
            assert answer.status == 200
    assert caplog.records == []
    books(first, 2, first_success=2)


def test_it_has_the_attributes_it_has() -> None:
    """What tells a web application is in nobody's way: inspection, attributes that are missing."""
    retry = AdaptiveRetryMiddleware(AdaptiveConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dict(inspect.getmembers(retry))["config"] == AdaptiveConfig()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = retry.nothing  # type: ignore[attr-defined]
    assert not hasattr(retry, "nothing")
