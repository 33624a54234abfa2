"""Stand-ins for the network at the end of the chain."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from typing import cast

from aiohttp import (
    EMPTY_PAYLOAD,
    ClientConnectorError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientSession,
)
from multidict import CIMultiDict
from yarl import URL

__all__ = (
    "Answer",
    "LightRequest",
    "as_request",
    "bare",
    "handler_answering",
    "refused",
    "requests_to",
)


class Answer:
    """As much of a response as a retry looks at: it is all here, and empty."""

    __slots__ = ("connection", "content", "content_length", "headers", "status")

    def __init__(self, status: int) -> None:
        self.status = status
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.connection = None
        self.content = EMPTY_PAYLOAD
        self.content_length = 0

    def release(self) -> None:
        """Nothing is held."""


def handler_answering(status: int) -> ClientHandlerType:
    """A handler that answers at once, always with the same object."""
    answer = cast(ClientResponse, Answer(status))

    async def handler(request: ClientRequest) -> ClientResponse:
        return answer

    return handler


bare = handler_answering(200)


async def requests_to(
    session: ClientSession, urls: Sequence[str], method: str = "GET", data: bytes | None = None
) -> list[ClientRequest]:
    """Real requests as a session makes them, made once: making them is not what is measured."""
    loop = asyncio.get_running_loop()
    headers = {"User-Agent": "benchmark", "Accept": "application/json"}
    return [
        ClientRequest(method, URL(url), headers=headers, data=data, loop=loop, session=session)
        for url in urls
    ]


def refused(request: ClientRequest) -> ClientConnectorError:
    """What aiohttp raises when nobody listens."""
    reason = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('192.0.2.1', 8443)")
    return ClientConnectorError(request.connection_key, reason)


class LightRequest:
    """A request in a tenth of the time: for a million hosts, where only its memory matters."""

    __slots__ = ("__weakref__", "body", "headers", "method", "response", "session", "url")

    def __init__(self, url: URL, session: ClientSession, method: str = "GET") -> None:
        self.url = url
        self.response = None
        self.session = session
        self.method = method
        self.body = b""
        self.headers: CIMultiDict[str] = CIMultiDict()

    async def close(self) -> None:
        """Nothing is being sent."""


def as_request(request: LightRequest) -> ClientRequest:
    """For the type checker."""
    return cast(ClientRequest, request)
