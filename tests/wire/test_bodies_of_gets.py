"""A GET with a body is rare, and safe all the same."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ..kit.calls import retrying
from ..kit.faults import reply
from ..kit.fixtures import Open, Serve


async def test_a_get_with_a_streamed_body_is_not_sent_again(
    serve: Serve, open_session: Open
) -> None:
    """Its upload is not watched, so it counts as spent: never is half a body sent."""
    server = await serve(reply(503), reply())
    session = open_session(retry := retrying())

    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    async with session.get(server.url, data=body()) as answer:
        assert answer.status == 503
    assert server.hits == 1
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}


async def test_a_get_with_a_body_in_memory_is_sent_again_whole(
    serve: Serve, open_session: Open
) -> None:
    """What is in memory can be sent at any time, by any method."""
    server = await serve(reply(503), reply())
    session = open_session(retrying())
    async with session.get(server.url, data=b"query") as answer:
        assert answer.status == 200
    assert server.hits == 2
    assert [body.size for body in server.bodies] == [5, 5]
