"""How a failed answer is let go of, so that a call that waits holds no connection.

Each function answers for a measured trap of aiohttp's client; the tests name them one by one.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
from aiohttp import ClientResponse

from .kept import KEPT_BYTES

#: A body up to this many bytes is read to its end, so that its connection can be used again.
_DRAIN_BYTES: Final = 64 * 1024
#: Seconds given to it. A body that is not there by now is not worth a connection's wait.
_DRAIN_SECONDS: Final = 0.05


async def arrive(response: ClientResponse) -> None:
    """Give a small body that is still under way 50 ms to come, without reading it."""
    length = response.content_length
    if length is not None and length > KEPT_BYTES:
        return
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await response.content.wait_eof()
    except Exception:
        # Whatever becomes of the body, the answer stands. aiohttp's parsers raise more than
        # `ClientError` here. The call's deadline comes as a cancellation.
        pass


async def discard(response: ClientResponse) -> None:
    """Give the connection of a response back before the wait: to the pool if that is cheap.

    A small body that comes within 50 ms is read to its end, which returns the connection by itself.
    Everything else is released, which closes the connection.
    """
    scope = asyncio.timeout(_DRAIN_SECONDS)
    try:
        content, length, read = response.content, response.content_length, 0
        if not content.is_eof() and (length is None or length <= _DRAIN_BYTES):
            async with scope:
                while not content.at_eof() and read <= _DRAIN_BYTES:
                    read += len(await content.readany())
    except aiohttp.ClientError:
        pass
    except Exception as error:
        # Whatever becomes of the body, nobody will read it. But a bare TimeoutError that is not
        # ours is the call's deadline. aiohttp raises that error only once: who swallows it sends
        # the next attempt after the deadline.
        if isinstance(error, TimeoutError) and not scope.expired():
            raise
    finally:
        response.release()
