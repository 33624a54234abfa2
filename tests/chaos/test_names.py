"""Names whose addresses change, or that have several."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from ..kit.calls import books, is_idle, retrying
from ..kit.clock import Clock
from ..kit.faults import FaultServer, close, reply, reset
from ..kit.fixtures import Open
from ..kit.resolvers import EverywhereHere
from .tls import HOST

#: An answer of the resolver: ports, or an error.
Ports = list[int] | OSError


class Resolver(EverywhereHere):
    """Gives its answers one after the other, the last one again and again."""

    def __init__(self, *answers: Ports) -> None:
        self._answers = answers
        self.asked = 0

    async def ports(self, port: int) -> list[int]:
        answer = self._answers[min(self.asked, len(self._answers) - 1)]
        self.asked += 1
        if isinstance(answer, OSError):
            raise answer
        return answer


@pytest.fixture
async def places() -> AsyncIterator[tuple[int, FaultServer, FaultServer]]:
    """A port where nobody is, and two servers: the old one and the new one."""
    old, new = FaultServer(reply(503)), FaultServer(reply(200, b"here"))
    await old.listen()
    await new.listen()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        yield nobody.getsockname()[1], old, new
    await old.close()
    await new.close()


def _connector(resolver: Resolver, **options: Any) -> aiohttp.TCPConnector:
    options.setdefault("use_dns_cache", False)
    return aiohttp.TCPConnector(resolver=resolver, limit=1, family=socket.AF_INET, **options)


def _port(server: FaultServer) -> int:
    assert server.url.port is not None
    return server.url.port


@pytest.mark.parametrize(
    "before",
    [
        lambda nobody: [nobody],
        lambda nobody: OSError(None, "no such host"),
    ],
    ids=["nobody there", "unknown"],
)
async def test_a_name_that_moves_is_found(
    before: Callable[[int], Ports],
    places: tuple[int, FaultServer, FaultServer],
    open_session: Open,
) -> None:
    """An address that is wrong now may be right for the next attempt, which asks again."""
    nobody, _, new = places
    resolver = Resolver(before(nobody), [_port(new)])
    session = open_session(retry := retrying(), connector=_connector(resolver))
    async with session.get(f"http://{HOST}/") as answer:
        assert (answer.status, await answer.read()) == (200, b"here")
    assert (resolver.asked, new.hits) == (2, 1)
    books(retry, 2, retry_success=1)
    await is_idle(session)


@pytest.mark.parametrize("fault", [close(), reset()], ids=["FIN", "RST"])
async def test_a_lost_connection_asks_for_the_address_again(
    fault: Any, places: tuple[int, FaultServer, FaultServer], open_session: Open
) -> None:
    """The retry goes to where the name points now."""
    _, old, new = places
    old.script = [fault]
    resolver = Resolver([_port(old)], [_port(new)])
    session = open_session(retry := retrying(), connector=_connector(resolver))
    async with session.get(f"http://{HOST}/") as answer:
        assert (answer.status, await answer.read()) == (200, b"here")
    assert (resolver.asked, old.hits, new.hits) == (2, 1, 1)
    books(retry, 2, retry_success=1)


async def test_a_connection_that_is_there_is_used_wherever_its_name_has_gone(
    places: tuple[int, FaultServer, FaultServer], open_session: Open
) -> None:
    """After a small 503 the retries stay on its connection, as any request of aiohttp's does."""
    _, old, new = places
    resolver = Resolver([_port(old)], [_port(new)])
    retry = retrying(max_attempts=3)
    session = open_session(retry, connector=_connector(resolver))
    async with session.get(f"http://{HOST}/") as answer:
        assert answer.status == 503
    assert (resolver.asked, old.hits, old.connections, new.hits) == (1, 3, 1, 0)
    books(retry, 3, failed_after_retry=1)


async def test_several_addresses_are_one_attempt(
    places: tuple[int, FaultServer, FaultServer], open_session: Open
) -> None:
    """aiohttp tries them all; nothing has failed as long as one of them works."""
    nobody, _, new = places
    resolver = Resolver([nobody, _port(new)])
    clock = Clock()
    session = open_session(retry := retrying(clock), connector=_connector(resolver))
    async with session.get(f"http://{HOST}/") as answer:
        assert answer.status == 200
    assert (resolver.asked, new.hits, clock.waits) == (1, 1, [])
    books(retry, 1, first_success=1)


async def test_an_address_that_aiohttp_keeps_is_kept(
    places: tuple[int, FaultServer, FaultServer], open_session: Open
) -> None:
    """A limit: with aiohttp's DNS cache a wrong address is asked again until the cache forgets."""
    nobody, _, new = places
    resolver = Resolver([nobody], [_port(new)])
    connector = _connector(resolver, use_dns_cache=True)
    session = open_session(retry := retrying(max_attempts=3), connector=connector)
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(f"http://{HOST}/")
    assert (resolver.asked, new.hits) == (1, 0)
    connector.clear_dns_cache()
    async with session.get(f"http://{HOST}/") as answer:
        assert answer.status == 200
    assert (resolver.asked, new.hits) == (2, 1)
    books(retry, 4, failed_after_retry=1, first_success=1)
