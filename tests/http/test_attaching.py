"""Attaching to sessions that others make: to one that exists, or to all that will be made."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from aiohttp_adaptive_retry import (
    AdaptiveRetryMiddleware,
    attach,
    detach,
    instrument,
    uninstrument,
)
from aiohttp_adaptive_retry._http import attaching

from ..kit.calls import lavish
from ..kit.fakes import Rig
from ..kit.faults import reply
from ..kit.fixtures import Open, Serve, open_session, serve
from ..kit.metrics import metrics_in

__all__ = ("open_session", "serve")

INIT, REQUEST = aiohttp.ClientSession.__init__, aiohttp.ClientSession._request


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """aiohttp is as it was when a test is over."""
    yield
    uninstrument()
    attaching._attached.clear()
    attaching._unwatch()
    assert aiohttp.ClientSession.__init__ is INIT
    assert aiohttp.ClientSession._request is REQUEST


async def passing(request: Any, handler: Any) -> Any:
    """A middleware of the user's."""
    return await handler(request)


async def status(session: aiohttp.ClientSession, url: Any, **options: Any) -> int:
    async with session.get(url, **options) as answer:
        await answer.read()
        return answer.status


async def test_a_session_that_exists(serve: Serve, open_session: Open) -> None:
    """From now on its calls are mended, its own middlewares stay; detached they are not."""
    server = await serve(reply(503), reply(503), reply(), reply(503), reply())
    session = open_session(passing)
    retry = lavish()
    assert await status(session, server.url) == 503
    attach(session, retry)
    attach(session, retry)
    assert await status(session, server.url) == 200
    assert server.hits == 3
    assert set(session._middlewares) == {passing, retry}
    detach(session, lavish())
    detach(session, retry)
    detach(session)
    assert await status(session, server.url) == 503
    assert retry.snapshot().requests.total == 1


async def test_sessions_made_from_now_on(serve: Serve) -> None:
    """Those of subclasses too; one that has ours already keeps that, and older ones have none."""

    server = await serve(
        reply(503), reply(503), reply(), reply(503), reply(), reply(503), reply(), reply(503)
    )
    retry, own = lavish(), lavish()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # aiohttp asks not to subclass

        class Library(aiohttp.ClientSession):
            def __init__(self, **options: Any) -> None:
                super().__init__(headers={"X-Library": "1"}, **options)

        older = aiohttp.ClientSession()
        instrument(retry)
        instrument(retry)
        made = [aiohttp.ClientSession(), Library(middlewares=[passing])]
        kept = aiohttp.ClientSession(middlewares=[own])
        uninstrument()
        newer = aiohttp.ClientSession()
    found = [await status(session, server.url) for session in (older, *made, kept, newer)]
    for session in (older, *made, kept, newer):
        await session.close()
    assert found == [503, 200, 200, 200, 503]
    assert retry.snapshot().requests.retry_success == 2
    assert own.snapshot().requests.retry_success == 1


async def test_the_newest_instruments(serve: Serve) -> None:
    """Called again with another, that one is attached to what is made then."""
    server = await serve(reply())
    first, second = lavish(), lavish()
    instrument(first)
    instrument(second)
    async with aiohttp.ClientSession() as session:
        await status(session, server.url)
    assert (first.snapshot().requests.total, second.snapshot().requests.total) == (0, 1)


@pytest.mark.parametrize("how", ["attach", "instrument"])
async def test_a_request_that_leaves_ours_out_is_counted(
    how: str, serve: Serve, open_session: Open
) -> None:
    """Its own `middlewares=` replace the session's. One that has ours among them is none."""
    server = await serve(reply())
    rig = Rig()
    retry = rig.middleware
    if how == "instrument":
        instrument(retry)
    session = open_session()
    if how == "attach":
        attach(session, retry)
    assert await status(session, server.url) == 200
    assert await status(session, server.url, middlewares=None) == 200
    assert "adaptive_retry.bypassed" not in rig.metrics()
    assert retry.snapshot().bypassed == 0
    assert await status(session, server.url, middlewares=[passing]) == 200
    assert await status(session, server.url, middlewares=()) == 200
    assert await status(session, server.url, middlewares=[retry, passing]) == 200
    assert retry.snapshot().bypassed == 2
    assert set(rig.metrics()["adaptive_retry.bypassed"].values()) == {2}
    assert metrics_in(rig.reader)
    detach(session)
    await status(session, server.url, middlewares=[passing])
    assert retry.snapshot().bypassed == 2


async def test_somebody_elses_patch_on_top(serve: Serve, open_session: Open) -> None:
    """It stays in its place, and what is below does nothing more, and nothing twice."""
    server = await serve(reply())
    retry = lavish()
    instrument(retry)
    ours: Any = aiohttp.ClientSession._request

    def theirs(self: aiohttp.ClientSession, *args: Any, **kwargs: Any) -> Any:
        return ours(self, *args, **kwargs)

    aiohttp.ClientSession._request = theirs  # type: ignore[method-assign]
    try:
        uninstrument()
        assert aiohttp.ClientSession._request is theirs
        session = open_session()
        attach(session, retry)
        assert await status(session, server.url, middlewares=()) == 200
        assert retry.snapshot().bypassed == 1
        detach(session)
    finally:
        aiohttp.ClientSession._request = REQUEST  # type: ignore[method-assign]


async def test_what_is_wrong_is_named(open_session: Open) -> None:
    """Arguments of a wrong type, another one of ours, a closed session."""
    session = open_session()
    retry: Any = lavish()
    wrong: Any = object()
    for take in (attach, detach):
        with pytest.raises(TypeError, match=r"session must be an aiohttp\.ClientSession, got <obj"):
            take(wrong, retry)
        with pytest.raises(TypeError, match="retry must be an AdaptiveRetryMiddleware, got <obj"):
            take(session, wrong)
    kind: Any = AdaptiveRetryMiddleware
    with pytest.raises(TypeError, match="an instance is needed"):
        attach(session, kind)
    with pytest.raises(TypeError, match="an instance is needed"):
        instrument(kind)
    with pytest.raises(TypeError, match="retry must be an AdaptiveRetryMiddleware, got None"):
        instrument(None)  # type: ignore[arg-type]
    attach(session, retry)
    with pytest.raises(ValueError, match="session has another AdaptiveRetryMiddleware"):
        attach(session, lavish())
    await session.close()
    with pytest.raises(RuntimeError, match="Session is closed"):
        attach(session, retry)


async def test_a_release_that_keeps_middlewares_elsewhere(
    open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told by `attach`, and `instrument` breaks no session."""
    session = open_session()
    monkeypatch.setattr("aiohttp_adaptive_retry._http.attaching._MIDDLEWARES", "_elsewhere")
    with pytest.raises(RuntimeError, match="this release of aiohttp keeps middlewares elsewhere"):
        attach(session, lavish())
    instrument(lavish())
    await aiohttp.ClientSession().close()


def test_the_signature_stays() -> None:
    """Tools that look at `ClientSession` see what they saw before."""
    before = inspect.signature(aiohttp.ClientSession)
    instrument(lavish())
    assert inspect.signature(aiohttp.ClientSession) == before
