"""What leads to an origin is part of what it is: a proxy, or a socket file."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ..kit.calls import retrying
from ..kit.faults import reply
from ..kit.fixtures import Open, Serve


def states(retry: Any) -> list[tuple[str, int | None, str, int]]:
    """Of each origin its label, its state, and how many attempts failed."""
    return [
        (origin.host, origin.port, origin.state, sum(origin.errors.values()))
        for origin in retry.snapshot().origins
    ]


@pytest.mark.parametrize("proxy_first", [False, True])
async def test_a_proxy_that_is_down(proxy_first: bool, serve: Serve, open_session: Open) -> None:
    """Calls that go past it find the origin as it is: well."""
    server = await serve(reply())
    session = open_session(retry := retrying(max_attempts=2, hold_cap=0))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy = f"http://me:s3cr3t@127.0.0.1:{nobody.getsockname()[1]}"
        for direct in (proxy_first, not proxy_first):
            for _ in range(4):
                if direct is proxy_first:
                    with pytest.raises(aiohttp.ClientProxyConnectionError):
                        await session.get(server.url, proxy=proxy)
                else:
                    async with session.get(server.url) as answer:
                        assert answer.status == 200
    found = {(state, failed > 0) for _, _, state, failed in states(retry)}
    assert found == {("down", True), ("healthy", False)}
    assert [where[:2] for where in states(retry)] == [("127.0.0.1", server.url.port)] * 2
    snapshot = retry.snapshot()
    assert snapshot.requests.first_success == server.hits == 4
    assert snapshot.requests.total == 8
    assert [origin.in_flight for origin in snapshot.origins] == [0, 0]
    assert "s3cr3t" not in repr(snapshot)
    assert not [key for key in retry._registry.table if "s3cr3t" in str(key)]


async def test_two_socket_files(tmp_path: Path, serve: Serve, open_session: Open) -> None:
    """Behind one name there are two servers, and one of them is ill."""
    retry = retrying(max_attempts=1)
    for name, status in (("secret-ill", 503), ("secret-well", 200)):
        server = await serve(reply(status), path=tmp_path / name)
        session = open_session(retry, connector=aiohttp.UnixConnector(str(tmp_path / name)))
        for _ in range(5):
            async with session.get("http://localhost/") as answer:
                assert answer.status == status
        assert server.hits == 5
    assert sorted(failed for *_, failed in states(retry)) == [0, 5]
    assert {where[:2] for where in states(retry)} == {("localhost", 80)} or len(states(retry)) == 2
    assert "secret" not in repr(retry.snapshot())
    assert not [key for key in retry._registry.table if "secret" in str(key)]


async def test_one_way_is_one_origin(serve: Serve, open_session: Open) -> None:
    """Credentials and the path of a proxy's URL make no other way."""
    proxy = await serve(reply())
    session = open_session(retry := retrying())
    place = f"127.0.0.1:{proxy.url.port}"
    for url in (f"http://{place}", f"http://me:pw@{place}/", f"http://you@{place}"):
        async with session.get("http://upstream.example/", proxy=url) as answer:
            assert answer.status == 200
    assert len(retry.snapshot().origins) == 1


async def test_without_ways_nothing_changes(serve: Serve, open_session: Open) -> None:
    """One origin, found by its place alone."""
    server = await serve(reply())
    session = open_session(retry := retrying())
    for _ in range(3):
        async with session.get(server.url) as answer:
            assert answer.status == 200
    assert list(retry._registry.table) == [f"127.0.0.1:{server.url.port}"]
    assert retry._registry.direct is retry._registry.table
