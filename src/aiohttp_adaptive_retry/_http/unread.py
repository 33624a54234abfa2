"""A body that somebody has read before the caller does, put back so that the caller can read it.

aiohttp keeps a body that `ClientResponse.read` has read, and so `read`, `text` and `json` work a
second time. `ClientResponse.content` is empty by then, without a word.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable
from typing import Any, Final, cast

from aiohttp import ClientResponse, StreamReader, hdrs
from aiohttp.base_protocol import BaseProtocol

# A reader that is filled at once is never too full.
_NO_LIMIT: Final = 1 << 60


class Unread:
    """Around code that may read a response's body: `with Unread(response): await ...`.

    Afterwards every way of reading gives the whole body, however much of it was read. A body that
    broke off stays broken. O(body); the loop's thread.
    """

    __slots__ = ("_content", "_response", "_seen")

    def __init__(self, response: ClientResponse) -> None:
        self._response, self._content = response, response.content
        self._seen = _Seen(response.content)

    def __enter__(self) -> None:
        self._response.content = cast(StreamReader, self._seen)

    def __exit__(self, *_: object) -> None:
        response, content, read = self._response, self._content, b"".join(self._seen.blocks)
        response.content = content
        if not read or content.exception() is not None:
            return
        if content.at_eof():
            chunked = "chunked" in response.headers.get(hdrs.TRANSFER_ENCODING, "").lower()
            response.content = _filled(read, chunked)
            return
        with warnings.catch_warnings():
            # Deprecated, and aiohttp has nothing else for a reader that is to go on.
            warnings.simplefilter("ignore", DeprecationWarning)
            content.unread_data(read)


def _filled(body: bytes, chunked: bool) -> StreamReader:
    """A reader that has a body from its start to its end; as one chunk, if it came in chunks."""
    loop = asyncio.get_running_loop()
    reader = StreamReader(BaseProtocol(loop), _NO_LIMIT, loop=loop)
    if chunked:
        reader.begin_http_chunk_receiving()
    reader.feed_data(body)
    if chunked:
        reader.end_http_chunk_receiving()
    reader.feed_eof()
    return reader


class _Seen:
    """A response's reader, which notes everything that is read from it."""

    __slots__ = ("_content", "blocks")

    def __init__(self, content: StreamReader) -> None:
        self._content = content
        self.blocks: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def _noted(self, read: Awaitable[bytes]) -> bytes:
        try:
            block = await read
        except asyncio.IncompleteReadError as error:
            self.blocks.append(error.partial)
            raise
        self.blocks.append(block)
        return block

    async def read(self, n: int = -1) -> bytes:
        return await self._noted(self._content.read(n))

    async def readany(self) -> bytes:
        return await self._noted(self._content.readany())

    async def readexactly(self, n: int) -> bytes:
        return await self._noted(self._content.readexactly(n))

    async def readline(self, **limits: Any) -> bytes:
        return await self._noted(self._content.readline(**limits))

    async def readuntil(self, separator: bytes = b"\n", **limits: Any) -> bytes:
        return await self._noted(self._content.readuntil(separator, **limits))

    async def readchunk(self) -> tuple[bytes, bool]:
        block, ends = await self._content.readchunk()
        self.blocks.append(block)
        return block, ends

    def read_nowait(self, n: int = -1) -> bytes:
        block = self._content.read_nowait(n)
        self.blocks.append(block)
        return block

    # aiohttp's own iterators, which read by the methods above.
    __aiter__ = cast(Any, StreamReader.__aiter__)
    iter_chunked = cast(Any, StreamReader.iter_chunked)
    iter_any = cast(Any, StreamReader.iter_any)
    iter_chunks = cast(Any, StreamReader.iter_chunks)
