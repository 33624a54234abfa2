"""Failures that the next attempt will meet again: they end the call as fast as without us."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_exceptions import UnixClientConnectorError

from ..chaos import tls
from ..kit.calls import books, plainly, retrying
from ..kit.clock import Clock
from ..kit.faults import reply
from ..kit.fixtures import Open, Serve
from ..kit.resolvers import EverywhereHere


class Failing(EverywhereHere):
    """Fails as it is told; counts who asks."""

    def __init__(self, make: Callable[[], Exception]) -> None:
        self._make = make
        self.asked = 0

    async def ports(self, port: int) -> Iterable[int]:
        self.asked += 1
        raise self._make()


def gai(name: str) -> Callable[[], Exception]:
    """What `getaddrinfo` raises."""
    return lambda: socket.gaierror(getattr(socket, name), name)


#: The class that aiodns raises: aiohttp's resolver on aiodns passes it on as a cause only.
_DNSError = type("DNSError", (Exception,), {"__module__": "aiodns.error"})


def ares(status: int) -> Callable[[], Exception]:
    """What aiohttp's resolver on aiodns raises."""

    def make() -> Exception:
        error = OSError(None, "aiodns says so")
        error.__cause__ = _DNSError(status, "aiodns says so")
        return error

    return make


FOR_GOOD = {
    "no such name": gai("EAI_NONAME"),
    "a name without addresses": gai("EAI_NODATA"),
    "no such name, by aiodns": ares(4),
    "a name without addresses, by aiodns": ares(1),
}
FOR_NOW = {
    "the resolver fails": gai("EAI_AGAIN"),
    "the resolver fails, by aiodns": ares(11),
    "the resolver is slow, by aiodns": ares(12),
    "something fails": lambda: OSError(None, "something"),
}


@pytest.mark.parametrize("make", FOR_GOOD.values(), ids=FOR_GOOD)
async def test_a_name_that_does_not_exist(
    make: Callable[[], Exception], open_session: Open
) -> None:
    """One look-up, no wait, and the error that aiohttp raises; each time anew."""
    clock, resolver = Clock(), Failing(make)
    retry = retrying(clock)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    session = open_session(retry, connector=connector)
    for number in range(1, 6):
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await session.get("http://nowhere.example/")
        assert resolver.asked == number
    assert clock.waits == []
    assert retry.snapshot().suppressed == {"not_retryable": 5}
    books(retry, 5, failed_without_retry=5)


@pytest.mark.parametrize("make", FOR_NOW.values(), ids=FOR_NOW)
async def test_a_resolver_that_fails(make: Callable[[], Exception], open_session: Open) -> None:
    """Whether the name exists is not known, so the look-up is tried again."""
    resolver = Failing(make)
    retry = retrying(max_attempts=2)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    session = open_session(retry, connector=connector)
    with pytest.raises(aiohttp.ClientConnectorDNSError):
        await session.get("http://nowhere.example/")
    assert resolver.asked == 2
    assert retry.snapshot().suppressed == {"max_attempts": 1}


async def test_a_proxy_that_does_not_exist(open_session: Open) -> None:
    """The same for the name of a proxy."""
    clock, resolver = Clock(), Failing(gai("EAI_NONAME"))
    retry = retrying(clock)
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False)
    session = open_session(retry, connector=connector)
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get("http://127.0.0.1:9/", proxy="http://nowhere.example:3128")
    assert (resolver.asked, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"not_retryable": 1}


async def test_a_missing_socket_file(tmp_path: Path, open_session: Open) -> None:
    """One attempt, no wait, aiohttp's own error."""
    clock = Clock()
    retry = retrying(clock)
    path = str(tmp_path / "missing")
    session = open_session(retry, connector=aiohttp.UnixConnector(path))
    for _ in range(5):
        with pytest.raises(UnixClientConnectorError) as caught:
            await session.get("http://localhost/")
        assert caught.value.errno == errno.ENOENT
    assert clock.waits == []
    assert retry.snapshot().suppressed == {"not_retryable": 5}
    books(retry, 5, failed_without_retry=5)
    alone = await plainly("http://localhost/", connector=aiohttp.UnixConnector(path))
    assert (type(alone), str(alone)) == (type(caught.value), str(caught.value))


async def test_a_socket_that_nobody_listens_on(tmp_path: Path, open_session: Open) -> None:
    """Its server may come back, as one behind a port may."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    retry = retrying(max_attempts=2)
    session = open_session(retry, connector=aiohttp.UnixConnector(str(path)))
    with pytest.raises(UnixClientConnectorError):
        await session.get("http://localhost/")
    assert retry.snapshot().suppressed == {"max_attempts": 1}
    books(retry, 2, failed_after_retry=1)


async def test_a_file_that_is_no_socket(tmp_path: Path, open_session: Open) -> None:
    """A path through a file leads nowhere."""
    (tmp_path / "file").touch()
    clock = Clock()
    retry = retrying(clock)
    session = open_session(retry, connector=aiohttp.UnixConnector(str(tmp_path / "file" / "x")))
    with pytest.raises(UnixClientConnectorError):
        await session.get("http://localhost/")
    assert clock.waits == []
    assert retry.snapshot().suppressed == {"not_retryable": 1}


WRONG = {"unknown authority": tls.untrusted, "another name": tls.misnamed, "expired": tls.expired}


@pytest.mark.parametrize("side", WRONG.values(), ids=WRONG)
async def test_a_certificate_that_is_wrong(
    side: Callable[[], Any], serve: Serve, open_session: Open
) -> None:
    """One handshake, no wait."""
    clock = Clock()
    server = await serve(reply(), tls=side())
    retry = retrying(clock)
    connector = aiohttp.TCPConnector(resolver=EverywhereHere(), ssl=tls.client_side())
    session = open_session(retry, connector=connector)
    with pytest.raises(aiohttp.ClientConnectorCertificateError):
        await session.get(server.url.with_host(tls.HOST))
    assert (server.connections, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"not_retryable": 1}


@pytest.mark.parametrize(
    "url",
    ["http://example..com/", "http://.example.com/", "http:///x", "http://a:99999/", "ftp://h/"],
)
async def test_a_url_that_makes_no_sense(url: str, open_session: Open) -> None:
    """The same error as without us, and nothing is counted as a failure of an origin."""
    clock = Clock()
    retry = retrying(clock)
    session = open_session(retry)
    alone = await failing(open_session(), url)
    ours = await failing(session, url)
    assert (type(ours), str(ours)) == (type(alone), str(alone))
    assert clock.waits == []
    assert retry.snapshot().faults == 0


async def failing(session: aiohttp.ClientSession, url: str) -> Exception:
    """What a call raises."""
    try:
        await session.get(url)
    except Exception as error:
        return error
    raise AssertionError("this was to fail")
