"""The server of the loopback section: its time must not be counted as the client's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from aiohttp import web

from ..child import child, first_word

__all__ = ("upstream",)

_BODY = b'{"items": []}'


async def _answer(request: web.BaseRequest) -> web.Response:
    return web.Response(body=_BODY, content_type="application/json")


async def _serve(pipe: Connection) -> None:
    runner = web.ServerRunner(web.Server(_answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    pipe.send(runner.addresses[0][1])
    # Until the other end says so or is gone.
    gone = asyncio.Event()
    asyncio.get_running_loop().add_reader(pipe.fileno(), gone.set)
    await gone.wait()
    await runner.cleanup()


def _main(pipe: Connection) -> None:
    asyncio.run(_serve(pipe))


@contextmanager
def upstream() -> Iterator[str]:
    """The URL of a server in a process of its own, as long as the body of the `with` runs."""
    with child(_main) as pipe:
        yield f"http://127.0.0.1:{first_word(pipe)}/v1/items"
