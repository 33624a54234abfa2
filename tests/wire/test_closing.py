"""A session that is closed while a call waits ends the wait at once, with what the call has got."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from ..kit.faults import Action, close, hang, reply, reset
from ..kit.fixtures import Open, Serve
from ..kit.waiting import until

WAIT = "Retry-After: 20\r\n"
#: Longer than it takes on a busy machine, and shorter than any of the waits.
SOON = 5.0


class Sleeping:
    """A sleep that never ends by itself, and tells when somebody sleeps."""

    def __init__(self) -> None:
        self.asleep = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        self.asleep.set()
        await asyncio.sleep(1000.0)


async def closed_while_it_waits(session: aiohttp.ClientSession, sleep: Sleeping, url: Any) -> Any:
    """What a GET came to whose session was closed while the call waited: its answer or error."""
    call = asyncio.ensure_future(session.get(url))
    await asyncio.wait_for(sleep.asleep.wait(), SOON)
    await session.close()
    done, _ = await asyncio.wait([call], timeout=SOON)
    assert done
    return call.exception() or call.result()


def retrying_with(sleep: Sleeping, **config: Any) -> AdaptiveRetryMiddleware:
    return AdaptiveRetryMiddleware(AdaptiveConfig(**{"budget_initial": 4.0} | config), sleep=sleep)


def is_clean(retry: AdaptiveRetryMiddleware) -> None:
    """One call, which is counted as a cancelled one; nothing is held and nobody is watched."""
    snapshot = retry.snapshot()
    assert (snapshot.requests.total, snapshot.requests.ignored, snapshot.faults) == (1, 1, 0)
    for origin in snapshot.origins:
        assert (origin.in_flight, origin.held) == (0, 0)
    assert not retry._closings._watches


@pytest.mark.parametrize(
    "answer", [reply(429, b"first", headers=WAIT), reply(503, b"first")], ids=["asked", "backoff"]
)
async def test_the_last_answer(answer: Action, serve: Serve, open_session: Open) -> None:
    """It is handed back, and can be read: it was small, and all there."""
    server, sleep = await serve(answer), Sleeping()
    session = open_session(retry := retrying_with(sleep, backoff_base=3.0))
    response = await closed_while_it_waits(session, sleep, server.url)
    assert isinstance(response, aiohttp.ClientResponse)
    assert (response.status, await response.read()) in ((429, b"first"), (503, b"first"))
    assert server.hits == 1
    is_clean(retry)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [(close(), aiohttp.ServerDisconnectedError), (reset(), aiohttp.ClientOSError)],
    ids=["FIN", "RST"],
)
async def test_the_last_exception(
    fault: Action, kind: Any, serve: Serve, open_session: Open
) -> None:
    """It is raised, unchanged in type."""
    server, sleep = await serve(fault), Sleeping()
    session = open_session(retry := retrying_with(sleep, backoff_base=3.0))
    error = await closed_while_it_waits(session, sleep, server.url)
    assert isinstance(error, kind)
    assert server.hits == 1
    is_clean(retry)


async def test_a_held_call(open_session: Open) -> None:
    """A call that waits for news of its origin ends so too."""
    sleep = Sleeping()
    session = open_session(retry := retrying_with(sleep, budget_initial=0))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        error = await closed_while_it_waits(session, sleep, url)
    assert isinstance(error, aiohttp.ClientConnectorError)
    is_clean(retry)


async def test_an_answer_that_was_let_go_of(serve: Serve, open_session: Open) -> None:
    """Of a large answer nothing is kept, so there is aiohttp's error of a closed session."""
    server, sleep = await serve(reply(503, bytes(300_000), headers=WAIT)), Sleeping()
    session = open_session(retry := retrying_with(sleep))
    error = await closed_while_it_waits(session, sleep, server.url)
    assert type(error) is aiohttp.ClientConnectionError
    is_clean(retry)


async def test_a_first_attempt_that_waits(open_session: Open) -> None:
    """With admission there may be nothing yet to hand back."""
    sleep = Sleeping()
    retry = retrying_with(sleep, admission=True, max_attempts=1)
    session = open_session(retry)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        # The first calls tell the outage. One that comes then waits, unless it is its turn to look.
        for _ in range(20):
            sleep.asleep.clear()
            call = asyncio.ensure_future(session.get(url))
            asleep = asyncio.ensure_future(sleep.asleep.wait())
            both = (call, asleep)
            await asyncio.wait(both, timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
            asleep.cancel()
            if not call.done():
                break
            assert isinstance(call.exception(), aiohttp.ClientConnectorError)
        await session.close()
        await asyncio.wait([call], timeout=SOON)
        error = call.exception()
    assert isinstance(error, aiohttp.ClientConnectionError)
    assert not isinstance(error, aiohttp.ClientConnectorError)
    assert [origin.held for origin in retry.snapshot().origins] == [0]


async def test_an_attempt_under_way(serve: Serve, open_session: Open) -> None:
    """Its connection is closed with the session, which is no reason to send the request again."""
    server, sleep = await serve(hang()), Sleeping()
    session = open_session(retry := retrying_with(sleep))
    call = asyncio.ensure_future(session.get(server.url))
    await until(lambda: server.hits > 0)
    await session.close()
    done, _ = await asyncio.wait([call], timeout=SOON)
    assert done
    assert isinstance(call.exception(), aiohttp.ClientError)
    assert server.hits == 1
    is_clean(retry)


async def test_other_sessions_go_on(serve: Serve, open_session: Open) -> None:
    """A middleware serves several sessions; the calls of the others wait on."""
    server = await serve(reply(429, b"first", headers=WAIT))
    sleep = Sleeping()
    retry = retrying_with(sleep)
    one, other = open_session(retry), open_session(retry)
    calls = [asyncio.ensure_future(session.get(server.url)) for session in (one, other)]
    await until(lambda: len(retry._closings._watches) == 2)
    await one.close()
    done, pending = await asyncio.wait(calls, timeout=SOON, return_when=asyncio.FIRST_COMPLETED)
    assert done == {calls[0]}
    assert pending == {calls[1]}
    calls[1].cancel()
    await asyncio.wait(calls)
    assert not retry._closings._watches


async def test_a_wait_that_ends_leaves_no_timer(serve: Serve, open_session: Open) -> None:
    """Nobody looks any more once nobody waits."""
    server = await serve(reply(503), reply())
    retry = AdaptiveRetryMiddleware(backoff_base=0.1, backoff_cap=0.1, random=lambda: 1.0)
    session = open_session(retry)
    call = asyncio.ensure_future(session.get(server.url))
    await until(lambda: bool(retry._closings._watches))
    (watch,) = retry._closings._watches.values()
    async with await call as answer:
        assert answer.status == 200
    assert watch.timer is not None
    assert watch.timer.cancelled()
    assert not retry._closings._watches
