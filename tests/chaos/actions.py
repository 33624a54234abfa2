"""What the server does in a fault, beside the actions of tests/kit/faults.py."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from ..kit.faults import FOR_EVER, Action, Exchange, hard_close

#: How much of an upload is taken before it is interrupted.
SOME = 16 * 1024


def end(exchange: Exchange, how: str) -> bool:
    """End an exchange: "serve" the next one on its connection, "close" it, or "reset" it."""
    if how == "reset":
        hard_close(exchange)
    return how == "serve"


def answer(status: int, body: bytes = b"ok", headers: str = "") -> Action:
    """A complete answer. It says so if the next attempt has to come on another connection."""

    async def run(exchange: Exchange) -> bool:
        await exchange.read_body()
        more = headers
        last = not exchange.server.keeps_connection()
        if last:
            more += "Connection: close\r\n"
        head = f"HTTP/1.1 {status} Scripted\r\nContent-Length: {len(body)}\r\n{more}\r\n"
        await exchange.send(head.encode() + (b"" if exchange.method == "HEAD" else body))
        return not last

    return Action(run)


def onwards() -> Action:
    """A redirect to where nobody has been yet."""

    async def run(exchange: Exchange) -> bool:
        location = f"Location: /hop-{exchange.server.hits}\r\n"
        return await answer(307, b"", location).run(exchange)

    return Action(run)


def said(head: bytes, how: str, body: bytes = b"") -> Action:
    """These very bytes once the request is here; then "close", "reset" or "hang"."""

    async def run(exchange: Exchange) -> bool:
        await exchange.read_body()
        await exchange.send(head if exchange.method == "HEAD" else head + body)
        if how == "hang":
            await exchange.reader.read()
        return end(exchange, how)

    return Action(run)


def interrupted(how: str) -> Action:
    """The upload is cut in the middle, without an answer."""

    async def run(exchange: Exchange) -> bool:
        async def cut() -> bool:
            if how == "reset":
                hard_close(exchange)
                return False
            # The kernel would send a reset if bytes were unread. TLS has no end of one side.
            if exchange.writer.can_write_eof():
                exchange.writer.write_eof()
            return exchange.writer.can_write_eof()

        await exchange.read_body(SOME, cut)
        return False

    return Action(run)


def early(status: int, how: str) -> Action:
    """An answer in the middle of the upload; then "read" the rest, "close", "reset" or "stall"."""

    async def run(exchange: Exchange) -> bool:
        async def now() -> bool:
            head = f"HTTP/1.1 {status} Early\r\nContent-Length: 4\r\nConnection: close\r\n\r\n"
            await exchange.send(head.encode() + (b"" if exchange.method == "HEAD" else b"no!\n"))
            if how == "stall":
                await _stall(exchange)
            return how == "read"

        await exchange.read_body(SOME, now)
        return end(exchange, how)

    return Action(run)


def on_and_on(
    head: bytes, piece: Callable[[int], bytes], pause: float = 0.0, *, body: bool = False
) -> Action:
    """Bytes after bytes, of the head or of the body, until the client leaves."""

    async def run(exchange: Exchange) -> bool:
        await exchange.read_body()
        await exchange.send(head)
        count = 0
        while not exchange.writer.is_closing() and not (body and exchange.method == "HEAD"):
            count += 1
            await exchange.send(piece(count))
            # Without a pause the loop would belong to this server.
            await asyncio.sleep(pause)
        return False

    return Action(run)


def handshake(server_side: Callable[[], ssl.SSLContext]) -> Action:
    """A TLS handshake with another certificate, or other rules, than the client can accept."""

    async def run(exchange: Exchange) -> bool:
        await exchange.writer.start_tls(server_side())
        # If the upload ends all the same, the client has to leave first.
        await exchange.reader.read()
        return False

    return Action(run, at_accept=True)


def hello(data: bytes, how: str) -> Action:
    """These very bytes where a TLS handshake goes on; then "close", "reset" or "hang"."""

    async def run(exchange: Exchange) -> bool:
        await exchange.reader.read(1)
        await exchange.send(data)
        if how == "close":
            exchange.writer.write_eof()
        if how != "reset":
            await exchange.reader.read()
        return end(exchange, how)

    return Action(run, at_accept=True)


def deaf() -> Action:
    """A connection that is accepted, and then neither read nor written."""

    async def run(exchange: Exchange) -> bool:
        await _stall(exchange)
        return False

    return Action(run, at_accept=True)


async def _stall(exchange: Exchange) -> None:
    exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(FOR_EVER)
