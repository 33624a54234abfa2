"""`call_options`: the caller's word on calls that other code makes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import re
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, call_options
from aiohttp_adaptive_retry.policy import FixedPolicy

from ..kit.calls import books, lavish
from ..kit.clock import Clock
from ..kit.fakes import Rig
from ..kit.faults import body_of, close, hang, reply, reset
from ..kit.fixtures import Open, Serve, open_session, serve

__all__ = ("open_session", "serve")


def fixed(*script: Any, chance: float = 0.5, attempts: int = 100, **fields: Any) -> Rig:
    """A rig whose policy learns nothing, so that only the caller's bounds end a call."""
    rig = Rig(script)
    parts = {
        "policy": lambda _: FixedPolicy(attempts=attempts, random=lambda: chance),
        "clock": rig.clock,
        "sleep": rig.clock.sleep,
    }
    rig.middleware = AdaptiveRetryMiddleware(AdaptiveConfig(**fields), **parts)  # type: ignore[arg-type]
    return rig


class Library:
    """A client library: the session is its own, and it knows nothing of options."""

    def __init__(self, session: aiohttp.ClientSession, url: Any) -> None:
        self._session, self._url = session, url

    async def search(self, method: str = "POST") -> int:
        async with self._session.request(method, self._url, data=b"query") as answer:
            await answer.read()
            return answer.status


@pytest.mark.parametrize("method", ["POST", "PATCH", "PURGE"])
@pytest.mark.parametrize("fault", [reply(503), reset(), close()], ids=["503", "reset", "close"])
async def test_a_post_that_is_vouched_for_is_retried_through_a_library(
    method: str, fault: Any, serve: Serve, open_session: Open
) -> None:
    """With its body, and not outside of the block."""
    server = await serve(fault, reply(), fault)
    library = Library(open_session(retry := lavish()), server.url)
    with call_options(idempotent=True):
        assert await library.search(method) == 200
    assert server.hits == 2
    assert server.requests[-1].body == body_of(b"query")
    before = dict(retry.snapshot().suppressed)
    with contextlib.suppress(aiohttp.ClientError):
        assert await library.search(method) == 503
    assert server.hits == 3
    assert retry.snapshot().suppressed["not_idempotent"] == before.get("not_idempotent", 0) + 1


async def test_false_wins_over_everything(serve: Serve, open_session: Open) -> None:
    """Over the method, a key, and the resend of a connection that was lost while it was idle."""
    server = await serve(reply(503))
    session = open_session(retry := lavish(retry_methods={"GET", "POST"}))
    with call_options(idempotent=False):
        for method in ("GET", "PUT", "POST"):
            headers = {"Idempotency-Key": "k"}
            async with session.request(method, server.url, headers=headers) as answer:
                assert answer.status == 503
    assert server.hits == 3
    assert retry.snapshot().suppressed == {"not_idempotent": 3}
    lost = await serve(reply(), reset(), reply())
    async with session.get(lost.url) as answer:
        await answer.read()
    with call_options(idempotent=False), pytest.raises(aiohttp.ClientError):
        await session.get(lost.url)
    assert lost.hits == 2


async def test_the_options_go_into_tasks(serve: Serve, open_session: Open) -> None:
    """A task that is created in the block has them also when the block is over."""
    server = await serve(reply(503), reply(), reply(503), reply())
    library = Library(open_session(lavish()), server.url)
    go = asyncio.Event()

    async def later() -> int:
        await go.wait()
        return await library.search()

    with call_options(idempotent=True):
        task = asyncio.create_task(later())
        assert await library.search() == 200
    go.set()
    assert await task == 200
    assert server.hits == 4


@pytest.mark.parametrize(("attempts", "hits"), [(1, 1), (2, 2), (7, 7)])
async def test_max_attempts(attempts: int, hits: int) -> None:
    """More or fewer than configured, for the calls of the block."""
    rig = fixed(500, max_attempts=3)
    with call_options(max_attempts=attempts):
        assert (await rig.call()).status == 500
    assert rig.upstream.hits == hits
    rig.upstream.hits = 0
    await rig.call()
    assert rig.upstream.hits == 3


async def test_inner_options_win_field_by_field() -> None:
    """What the inner ones don't name is the outer ones'; afterwards all is as before."""
    rig = fixed(500, max_attempts=4)

    async def hits(method: str = "POST") -> int:
        before = rig.upstream.hits
        await rig.call(method=method)
        return rig.upstream.hits - before

    again = call_options(max_attempts=1)
    with call_options(idempotent=True, max_attempts=3):
        assert await hits() == 3
        with call_options(max_attempts=2):
            assert await hits() == 2
            with again, again:
                assert await hits() == 1
            with call_options(idempotent=False):
                assert await hits() == 1
                assert await hits("GET") == 1
            assert await hits() == 2
        with call_options():
            assert await hits() == 3
    assert await hits() == 1
    assert await hits("GET") == 4


async def test_enabled_false_is_as_if_the_middleware_were_not_there() -> None:
    """One attempt, and no count; what is on again inside is on."""
    rig = Rig([500, 500, 200])
    with call_options(enabled=False):
        assert (await rig.call()).status == 500
        assert rig.upstream.hits == 1
        snapshot = rig.middleware.snapshot()
        assert snapshot.requests.total == 0
        assert [origin.in_flight for origin in snapshot.origins] == [0]
        with call_options(enabled=True):
            assert (await rig.call()).status == 200
    assert rig.upstream.hits == 3
    assert rig.middleware.snapshot().requests.retry_success == 1


async def test_attempt_timeout_holds_for_first_attempts(serve: Serve, open_session: Open) -> None:
    """A server that falls silent is noticed by the block's calls alone."""
    server = await serve(hang(), reply())
    session = open_session(retry := lavish())
    with call_options(attempt_timeout=timedelta(milliseconds=100)):
        async with session.get(server.url) as answer:
            assert answer.status == 200
    books(retry, 2, retry_success=1)
    assert retry.snapshot().failures == {"ServerTimeoutError": 1}


async def test_retry_for_bounds_the_waits() -> None:
    """As it does in the configuration."""
    rig = fixed(500, chance=1.0, max_attempts=100)
    with call_options(retry_for=0.5):
        await rig.call()
    assert sum(rig.clock.waits) <= 0.5
    assert rig.middleware.snapshot().suppressed == {"deadline": 1}


@pytest.mark.parametrize("asked", [0.0, 2.0])
async def test_the_policy_goes_by_the_calls_hold_cap(asked: float) -> None:
    """The policy is asked by the call's configuration, and by its own afterwards."""
    seen: list[float] = []
    rig = Rig([503], hold_cap=12.0)
    retry = rig.middleware
    origin = retry._registry.find(URL("http://example.com/"))
    policy: Any = origin.policy
    inner = policy._random

    def spy() -> float:
        seen.append(policy._config.hold_cap)
        return float(inner())

    policy._random = spy
    with call_options(hold_cap=asked):
        await rig.call(URL("http://example.com/"))
    assert set(seen) == {asked}
    seen.clear()
    await rig.call(URL("http://example.com/"))
    assert set(seen) == {12.0}


@pytest.mark.parametrize("deadline", [0.05, 1.0, 5.0])
async def test_the_deadline_counts_from_the_block_by_the_injected_clock(deadline: float) -> None:
    """What the block does before its calls is part of it, and so are all its calls together."""
    rig = fixed(500, chance=1.0, max_attempts=100)
    with call_options(deadline=deadline):
        rig.clock.now += deadline * 0.4
        begun = rig.clock.now
        await rig.call()
        assert rig.clock.now - begun <= deadline * 0.6
        await rig.call()
        assert rig.clock.now - begun <= deadline * 0.6
    suppressed = rig.middleware.snapshot().suppressed
    assert suppressed["deadline"] == 2


async def test_after_the_deadline_nothing_is_sent() -> None:
    """The caller gets a TimeoutError, as from an `asyncio.timeout` around the call."""
    rig = Rig([200])
    with call_options(deadline=1):
        assert (await rig.call()).status == 200
        rig.clock.now += 1.5
        with pytest.raises(TimeoutError, match="the deadline of call_options has passed"):
            await rig.call()
    assert rig.upstream.hits == 1
    assert rig.middleware.snapshot().suppressed == {"deadline": 1}
    assert [origin.in_flight for origin in rig.middleware.snapshot().origins] == [0]


async def test_a_deadline_cuts_an_attempt(serve: Serve, open_session: Open) -> None:
    """Also the first one, on a session that has no limit of its own."""
    server = await serve(hang())
    session = open_session(retry := lavish(clock := Clock()), timeout=aiohttp.ClientTimeout())
    with call_options(deadline=0.1):
        task = asyncio.create_task(session.get(server.url))
        with pytest.raises(aiohttp.ServerTimeoutError, match="before the deadline of call_options"):
            await task
    assert clock.waits == [] or sum(clock.waits) < 0.1
    assert retry.snapshot().requests.total == 1


async def test_a_middleware_that_is_younger_than_the_block() -> None:
    """Its clock is read when its first call comes."""
    with call_options(deadline=60):
        rig = fixed(500, chance=1.0, max_attempts=100)
        begun = rig.clock.now
        await rig.call()
    assert 0 < rig.clock.now - begun <= 60


async def test_clocks_are_told_apart() -> None:
    """Two middlewares have two clocks; each keeps the deadline by its own."""
    first, second = Rig([500], 1.0), Rig([200])
    second.clock.now += 1e6
    with call_options(deadline=1):
        second.clock.now += 0.9
        assert (await second.call()).status == 200
        assert (await first.call()).status == 500
        second.clock.now += 0.2
        with pytest.raises(TimeoutError):
            await second.call()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_attempts": 0}, "max_attempts must be >= 1, got 0"),
        ({"max_attempts": True}, "max_attempts must be an int, got True"),
        ({"max_attempts": 2.0}, "max_attempts must be an int, got 2.0"),
        ({"attempt_timeout": 0}, "attempt_timeout must be > 0, got 0"),
        ({"attempt_timeout": "1"}, "attempt_timeout must be a number of seconds or a timedelta"),
        ({"retry_for": float("nan")}, "retry_for must be finite, got nan"),
        ({"hold_cap": -1}, "hold_cap must be >= 0, got -1"),
        ({"hold_cap": float("inf")}, "hold_cap must be finite, got inf"),
        ({"deadline": 0}, "deadline must be > 0, got 0"),
        ({"deadline": timedelta(seconds=-1)}, "deadline must be > 0, got -1.0"),
        ({"deadline": True}, "deadline must be a number of seconds or a timedelta, got True"),
        ({"idempotent": 1}, "idempotent must be True or False, got 1"),
        ({"enabled": "no"}, "enabled must be True or False, got 'no'"),
        ({"max_attempt": 1}, "call_options has no field 'max_attempt'; did you mean 'max_attempts"),
        ({"idempotence": True}, "did you mean 'idempotent'?"),
    ],
    ids=range(15),
)
def test_bad_options_are_named_when_they_are_made(given: dict[str, Any], text: str) -> None:
    """Not when the block is entered, and not at a call."""
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        call_options(**given)


async def test_options_that_break_inside_break_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in them is counted, and the call is made as without."""
    rig = Rig([200])

    def broken(self: Any, reader: Any) -> float:
        raise RuntimeError

    monkeypatch.setattr("aiohttp_adaptive_retry._options.Deadline.ends", broken)
    with call_options(deadline=1):
        assert (await rig.call()).status == 200
    assert rig.middleware.snapshot().faults == 1


async def test_tasks_may_share_one_object() -> None:
    """They enter and leave in any order, and none leaves its options to another, or to itself."""
    shared = call_options(max_attempts=1)
    rig = fixed(500, max_attempts=2)

    async def hits() -> int:
        before = rig.upstream.hits
        await rig.call()
        return rig.upstream.hits - before

    entered, leave = asyncio.Event(), asyncio.Event()

    async def first() -> list[int]:
        with shared:
            entered.set()
            await leave.wait()
            found = [await hits()]
        return [*found, await hits()]

    task = asyncio.create_task(first())
    await entered.wait()
    with shared:
        leave.set()
        assert await task == [1, 2]
        assert await hits() == 1
    assert await hits() == 2
    assert shared._tokens == []


def test_left_in_another_context() -> None:
    """A fixture may enter in one context and leave in another."""
    options = call_options(max_attempts=1)
    contextvars.copy_context().run(options.__enter__)
    options.__exit__(None, None, None)


async def test_nobody_looks_before_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until `call_options` is used for the first time, calls don't look for options."""
    monkeypatch.setattr("aiohttp_adaptive_retry._options._in_use", False)
    rig = Rig([200])
    await rig.call()
    looks = [rig.middleware._looks]
    with call_options():
        looks.append(rig.middleware._looks)
    assert looks == [False, True]
    assert Rig([200]).middleware._looks
