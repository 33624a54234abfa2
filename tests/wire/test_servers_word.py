"""What the server says is heard on the wire: limits by 403, verdicts over a status, told waits."""

from __future__ import annotations

import pytest

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.policy import FixedPolicy

from ..kit.calls import books, retrying
from ..kit.clock import Clock
from ..kit.faults import reply
from ..kit.fixtures import Open, Serve


def head(*lines: str) -> str:
    """Header lines."""
    return "".join(f"{line}\r\n" for line in lines)


async def test_a_403_with_a_wait_is_a_limit(serve: Serve, open_session: Open) -> None:
    """GitHub limits so: the call waits as it is told, and the origin is limited, not healthy."""
    server = await serve(reply(403, headers=head("Retry-After: 7")), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert clock.waits == [pytest.approx(7 * 1.125)]
    assert retry.snapshot().failures == {"403": 1}
    books(retry, 2, retry_success=1)


async def test_a_403_without_a_moment_is_handed_back(serve: Serve, open_session: Open) -> None:
    """Nothing remains and nobody says until when: that is no matter of seconds."""
    server = await serve(reply(403, headers=head("X-RateLimit-Remaining: 0")))
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.get(server.url) as answer:
        assert answer.status == 403
        assert await answer.read()
    assert clock.waits == []
    assert retry.snapshot().suppressed == {"limited": 1}
    books(retry, server.hits, failed_without_retry=1)


async def test_a_403_with_a_long_wait_is_handed_back(serve: Serve, open_session: Open) -> None:
    """As any answer is that asks for more than the cap."""
    lines = head("X-RateLimit-Remaining: 0", "X-RateLimit-Reset: 3600")
    server = await serve(reply(403, headers=lines))
    session = open_session(retry := retrying(Clock()))
    async with session.get(server.url) as answer:
        assert answer.status == 403
    assert retry.snapshot().suppressed == {"retry_after": 1}
    books(retry, server.hits, failed_without_retry=1)


@pytest.mark.parametrize(
    "lines",
    [(), ("X-RateLimit-Remaining: 59", "X-RateLimit-Reset: 7"), ("Retry-After: soon",)],
    ids=["plain", "with a limit that is not used up", "with garbage"],
)
async def test_a_403_that_forbids_is_an_answer(
    lines: tuple[str, ...], serve: Serve, open_session: Open
) -> None:
    """No failure and no retry, whatever the server tells with every answer of its limits."""
    server = await serve(reply(403, headers=head(*lines)))
    session = open_session(retry := retrying(Clock()))
    async with session.get(server.url) as answer:
        assert answer.status == 403
    assert retry.snapshot().failures == {}
    books(retry, server.hits, first_success=1)


async def test_who_wants_no_limits_retried_gets_a_403_back(
    serve: Serve, open_session: Open
) -> None:
    """Without 429 among `retry_statuses` a limit by 403 is an answer too."""
    server = await serve(reply(403, headers=head("Retry-After: 7")))
    session = open_session(retry := retrying(Clock(), retry_statuses={503}))
    async with session.get(server.url) as answer:
        assert answer.status == 403
    books(retry, server.hits, first_success=1)


@pytest.mark.parametrize("name", ["x-should-retry", "Stripe-Should-Retry"])
async def test_a_server_that_wants_it_again(name: str, serve: Serve, open_session: Open) -> None:
    """Its word is over the status: a 409 is retried, and counts as a failure."""
    server = await serve(reply(409, headers=head(f"{name}: true")), reply())
    session = open_session(retry := retrying(Clock()))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert retry.snapshot().failures == {"409": 1}
    books(retry, 2, retry_success=1)


@pytest.mark.parametrize(
    "line",
    [
        "x-should-retry: false",
        "Stripe-Should-Retry: false",
        "grpc-retry-pushback-ms: -1",
        "grpc-retry-pushback-ms: never",
        "finagle-http-nonretryable-nack: true",
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_does_not_want_it_again(
    line: str, status: int, serve: Serve, open_session: Open
) -> None:
    """One request, whatever wait the answer names besides."""
    server = await serve(reply(status, headers=head(line, "Retry-After: 1")))
    session = open_session(retry := retrying(Clock()))
    async with session.get(server.url) as answer:
        assert answer.status == status
    assert retry.snapshot().suppressed == {"not_retryable": 1}
    books(retry, server.hits, failed_without_retry=1)


async def test_garbage_gives_way_to_the_next_header(serve: Serve, open_session: Open) -> None:
    """Retry-After can't be read here, and the limit's end can."""
    lines = head("Retry-After: soon", "RateLimit-Remaining: 0", "RateLimit-Reset: 4")
    server = await serve(reply(429, headers=lines), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.get(server.url) as answer:
        assert answer.status == 200
    assert clock.waits == [pytest.approx(4 * 1.125)]
    books(retry, 2, retry_success=1)


async def test_a_policy_of_the_users_waits_no_longer_than_the_cap(
    serve: Serve, open_session: Open
) -> None:
    """Though it knows no cap, what asks for more is handed back."""
    server = await serve(reply(429, headers=head("Retry-After: 3600")))
    clock = Clock()
    retry = AdaptiveRetryMiddleware(
        policy=lambda origin: FixedPolicy(), clock=clock, sleep=clock.sleep
    )
    session = open_session(retry)
    async with session.get(server.url) as answer:
        assert answer.status == 429
    assert clock.waits == []
    assert retry.snapshot().suppressed == {"retry_after": 1}
    books(retry, server.hits, failed_without_retry=1)
