"""The server of the loopback section: its time must not be counted as the client's."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from aiohttp import web

__all__ = ("upstream",)

_BODY = b'{"items": []}'
_STARTS_WITHIN = 30.0


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
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_STARTS_WITHIN):
            raise RuntimeError("the server did not start")
        yield f"http://127.0.0.1:{ours.recv()}/v1/items"
    finally:
        ours.close()
        process.join(5.0)
        if process.is_alive():
            process.terminate()
            process.join()
