"""Who asks for what: methods, statuses, keys, and the server's own word, Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest

from ..kit.calls import books, retrying, tokens
from ..kit.clock import Clock
from ..kit.faults import reply
from ..kit.fixtures import Open, Serve


def _date(seconds: float) -> str:
    """An HTTP date that many seconds from now."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"])
async def test_an_idempotent_method_is_retried(
    method: str, serve: Serve, open_session: Open
) -> None:
    """A second copy of these does no more than the first."""
    server = await serve(reply(503), reply())
    session = open_session(retry := retrying())
    async with session.request(method, server.url) as answer:
        assert answer.status == 200
    assert [request.method for request in server.requests] == [method] * 2
    books(retry, 2, retry_success=1)


@pytest.mark.parametrize("method", ["POST", "PATCH", "LOCK"])
async def test_a_method_that_is_not_idempotent_is_not_retried(
    method: str, serve: Serve, open_session: Open
) -> None:
    """A 503 to a POST may have done its work: it is handed back, with the reason counted."""
    server = await serve(reply(503, b"perhaps"), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.request(method, server.url, data=b"x") as answer:
        assert (answer.status, await answer.read()) == (503, b"perhaps")
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"not_idempotent": 1}
    books(retry, 1, failed_without_retry=1)


@pytest.mark.parametrize("listed", ["POST", "post"])
async def test_a_method_is_retried_if_the_caller_lists_it(
    listed: str, serve: Serve, open_session: Open
) -> None:
    """`retry_methods` replaces the default."""
    server = await serve(reply(503), reply(503), reply())
    session = open_session(retry := retrying(retry_methods=[listed]))
    async with session.post(server.url, data=b"x") as answer:
        assert answer.status == 200
    server.script = [reply(503)]
    async with session.get(server.url) as answer:
        assert answer.status == 503
    assert server.hits == 4
    books(retry, 4, retry_success=1, failed_without_retry=1)


@pytest.mark.parametrize("name", ["Idempotency-Key", "idempotency-key"])
async def test_an_idempotency_key_makes_a_post_retryable(
    name: str, serve: Serve, open_session: Open
) -> None:
    """The header is the caller's word that a second copy does no harm; both copies carry it."""
    server = await serve(reply(503), reply())
    session = open_session(retry := retrying())
    async with session.post(server.url, data=b"x", headers={name: "k-1"}) as answer:
        assert answer.status == 200
    assert [request.headers["idempotency-key"] for request in server.requests] == ["k-1", "k-1"]
    assert len(set(server.bodies)) == 1
    books(retry, 2, retry_success=1)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 524, 529])
async def test_these_statuses_are_retried(status: int, serve: Serve, open_session: Open) -> None:
    """Answers that a later attempt may mend; each is counted under its code."""
    server = await serve(reply(status), reply())
    session = open_session(retry := retrying())
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert retry.snapshot().failures == {str(status): 1}
    books(retry, server.hits, retry_success=1)


@pytest.mark.parametrize("status", [200, 204, 206, 304, 400, 401, 403, 404, 409, 410, 501, 505])
async def test_other_statuses_are_answers(status: int, serve: Serve, open_session: Open) -> None:
    """They are handed back as they come, and are no failures."""
    server = await serve(reply(status, b""))
    session = open_session(retry := retrying())
    async with session.get(server.url) as answer:
        assert answer.status == status
    assert retry.snapshot().failures == {}
    books(retry, server.hits, first_success=1)


# Retry-After. The fake random gives 0.5: a first wait of our own is 0.1 s, and the first wait
# that a server asks for is an eighth longer than it asks.


async def _wait_for(header: str, serve: Serve, open_session: Open) -> float:
    server = await serve(reply(503, headers=header), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    books(retry, server.hits, retry_success=1)
    (wait,) = clock.waits
    return wait


@pytest.mark.parametrize("seconds", [1, 7, 26])
async def test_retry_after_in_seconds_is_heeded(
    seconds: int, serve: Serve, open_session: Open
) -> None:
    """The wait is what was asked for, and up to a quarter more the first time."""
    wait = await _wait_for(f"Retry-After: {seconds}\r\n", serve, open_session)
    assert wait == pytest.approx(seconds * 1.125)


async def test_retry_after_as_a_date_is_heeded(serve: Serve, open_session: Open) -> None:
    """A date is counted from now where the answer has no Date."""
    wait = await _wait_for(f"Retry-After: {_date(20)}\r\n", serve, open_session)
    # Dates have no fractions of seconds.
    assert 18 * 1.125 <= wait <= 20 * 1.125


async def test_retry_after_as_a_date_is_counted_from_the_servers_date(
    serve: Serve, open_session: Open
) -> None:
    """A client whose clock is a day off waits as long as the server meant."""
    header = f"Date: {_date(86_400)}\r\nRetry-After: {_date(86_410)}\r\n"
    wait = await _wait_for(header, serve, open_session)
    assert 9 * 1.125 <= wait <= 11 * 1.125


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "soon", "1e3", "\N{SUPERSCRIPT TWO}", "", "  ", "Wed", "inf"],
)
async def test_retry_after_that_asks_for_nothing_means_the_usual_pace(
    value: str, serve: Serve, open_session: Open
) -> None:
    """Zero, and what is no number and no date, are not waited for."""
    assert await _wait_for(f"Retry-After: {value}\r\n", serve, open_session) == pytest.approx(0.1)


async def test_retry_after_gone_by_means_the_usual_pace(serve: Serve, open_session: Open) -> None:
    """So do dates gone by."""
    wait = await _wait_for(f"Retry-After: {_date(-3600)}\r\n", serve, open_session)
    assert wait == pytest.approx(0.1)


@pytest.mark.parametrize("value", ["31", "86400", "99999", "date"])
async def test_retry_after_beyond_the_cap_is_never_waited_for(
    value: str, serve: Serve, open_session: Open
) -> None:
    """What asks for more than `retry_after_cap` is handed back, at once and whole."""
    value = _date(3600) if value == "date" else value
    server = await serve(reply(429, b"come back later", headers=f"Retry-After: {value}\r\n"))
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.get(server.url) as answer:
        assert (answer.status, await answer.read()) == (429, b"come back later")
        assert answer.headers["Retry-After"] == value
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"retry_after": 1}
    assert tokens(retry) == 4.0
    books(retry, 1, failed_without_retry=1)


async def test_retry_after_beyond_the_deadline_is_handed_back(
    serve: Serve, open_session: Open
) -> None:
    """A call with 10 seconds does not wait for 20."""
    server = await serve(reply(503, b"in 20", headers="Retry-After: 20\r\n"))
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.get(server.url, timeout=aiohttp.ClientTimeout(total=10)) as answer:
        assert (answer.status, await answer.read()) == (503, b"in 20")
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"deadline": 1}
    books(retry, 1, failed_without_retry=1)


async def test_waits_grow_and_are_jittered(serve: Serve, open_session: Open) -> None:
    """Half of the spans 0.2, 0.6, 1.8 and 5 seconds, with a random number of 0.5."""
    server = await serve(reply(503))
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.get(server.url) as answer:
        assert answer.status == 503
    assert clock.waits == pytest.approx([0.1, 0.3, 0.9, 2.5])
    books(retry, server.hits, failed_after_retry=1)
