"""`idempotency_key=True`: one key for each call that may need one."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, call_options

from ..kit.calls import books, lavish
from ..kit.clock import Clock
from ..kit.faults import Action, redirect, reply, reset
from ..kit.fixtures import Open, Serve, open_session, serve

__all__ = ("open_session", "serve")

KEY = "Idempotency-Key"
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Noting:
    """A middleware behind ours that notes what is sent: host, method and key."""

    def __init__(self) -> None:
        self.sent: list[tuple[int | None, str, str | None]] = []

    async def __call__(self, request: aiohttp.ClientRequest, handler: Any) -> Any:
        self.sent.append((request.url.port, request.method, request.headers.get(KEY)))
        return await handler(request)

    @property
    def keys(self) -> list[str | None]:
        return [key for _, _, key in self.sent]


@pytest.mark.parametrize("method", ["POST", "PATCH"])
async def test_one_key_for_all_attempts_of_a_call(
    method: str, serve: Serve, open_session: Open
) -> None:
    """It vouches, so the call is retried; another call has another key."""
    server = await serve(reply(503), reset(), reply())
    noting = Noting()
    session = open_session(retry := lavish(idempotency_key=True), noting)
    for _ in range(2):
        async with session.request(method, server.url, data=b"x") as answer:
            assert answer.status == 200
    first, second, third, other = noting.keys
    assert first == second == third
    assert first is not None
    assert other is not None
    assert first != other
    assert UUID.fullmatch(first)
    assert server.hits == 4
    books(retry, 4, retry_success=1, first_success=1)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_have_none(method: str, serve: Serve, open_session: Open) -> None:
    """They may be sent twice anyway."""
    server = await serve(reply())
    noting = Noting()
    session = open_session(lavish(idempotency_key=True), noting)
    async with session.request(method, server.url):
        pass
    assert noting.keys == [None]


async def test_a_key_of_the_callers_own_stays(serve: Serve, open_session: Open) -> None:
    """However it is spelt."""
    server = await serve(reply(503), reply())
    noting = Noting()
    session = open_session(lavish(idempotency_key=True), noting)
    async with session.post(server.url, headers={"idempotency-key": "mine"}) as answer:
        assert answer.status == 200
    assert noting.keys == ["mine", "mine"]


async def test_by_default_there_is_none(serve: Serve, open_session: Open) -> None:
    """And a POST is not sent twice."""
    server = await serve(reply(503))
    noting = Noting()
    session = open_session(lavish(), noting)
    async with session.post(server.url) as answer:
        assert answer.status == 503
    assert noting.keys == [None]


async def test_false_wins_over_the_key(serve: Serve, open_session: Open) -> None:
    """Who says that a call may not be sent twice is believed."""
    server = await serve(reply(503))
    session = open_session(lavish(idempotency_key=True))
    with call_options(idempotent=False):
        async with session.post(server.url) as answer:
            assert answer.status == 503
    assert server.hits == 1


@pytest.mark.parametrize("status", [307, 308])
async def test_the_key_stays_within_its_origin(
    status: int, serve: Serve, open_session: Open
) -> None:
    """The same over redirects there, left out towards another, and the same when it comes back."""
    away_script: list[Any] = []
    away = await serve(Action(lambda exchange: away_script[0].run(exchange)))
    home = await serve(
        redirect("/next", status), reply(503), redirect(str(away.url), status), reply()
    )
    away_script.append(redirect(str(home.url / "back"), status))
    noting = Noting()
    session = open_session(retry := lavish(idempotency_key=True), noting)
    async with session.post(home.url, data=b"x") as answer:
        assert answer.status == 200
    assert (home.hits, away.hits) == (4, 1)
    first, second, third, elsewhere, back = noting.keys
    assert first is not None
    assert first == second == third == back
    assert elsewhere is None
    assert retry.snapshot().faults == 0


async def test_a_post_that_becomes_a_get_has_none(serve: Serve, open_session: Open) -> None:
    """After 303 the call goes on by GET."""
    server = await serve(redirect("/done", 303), reply())
    noting = Noting()
    session = open_session(lavish(idempotency_key=True), noting)
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 200
    assert [method for _, method, _ in noting.sent] == ["POST", "GET"]
    assert noting.keys[1] is None


async def test_observe_and_off_put_none(serve: Serve, open_session: Open) -> None:
    """Nothing of the request may be different."""
    server = await serve(reply())
    for mode in ("observe", "off"):
        noting = Noting()
        session = open_session(lavish(idempotency_key=True, mode=mode), noting)
        async with session.post(server.url):
            pass
        assert noting.keys == [None]
    noting = Noting()
    session = open_session(lavish(idempotency_key=True), noting)
    with call_options(enabled=False):
        async with session.post(server.url):
            pass
    assert noting.keys == [None]


async def test_for_the_origins_that_heed_it(serve: Serve, open_session: Open) -> None:
    """It can be set by origin."""
    heeding, other = await serve(reply()), await serve(reply())
    clock, noting = Clock(), Noting()
    retry = AdaptiveRetryMiddleware(
        origins={f"127.0.0.1:{heeding.url.port}": AdaptiveConfig(idempotency_key=True)},
        clock=clock,
        sleep=clock.sleep,
    )
    session = open_session(retry, noting)
    for server in (heeding, other):
        async with session.post(server.url):
            pass
    first, second = noting.keys
    assert first is not None
    assert second is None
