"""A server on a raw socket that does, request by request, what a script says, and counts.

It knows no HTTP but what it needs, so that it can be as wrong as a server, a proxy or a network
ever is. An action gets one exchange and says whether the connection may serve another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

#: Longer than any test, and than pytest's patience.
FOR_EVER = 3600.0


#: Of a body no more than this is kept.
_KEPT = 1 << 20


@dataclass(frozen=True)
class Body:
    """What arrived of a request's body."""

    size: int
    sha256: str
    #: Whether it came to the end that its head, or its last chunk, promised.
    complete: bool
    #: Its first megabyte.
    data: bytes = field(default=b"", repr=False, compare=False)


@dataclass
class Exchange:
    """One request, or one connection that is done with before a request could be read."""

    server: FaultServer
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    method: str = ""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: Body | None = None

    async def read_body(
        self, after: int = 0, then: Callable[[], Awaitable[bool]] | None = None
    ) -> Body:
        """Read the body to its end, and put it on the server's list.

        `then` happens once `after` bytes are here, or at the end of a shorter body; if it says
        False, what is left is not read.
        """
        digest, size, complete, kept = hashlib.sha256(), 0, False, bytearray()
        try:
            async with contextlib.aclosing(self._parts()) as parts:
                async for part in parts:
                    digest.update(part)
                    size += len(part)
                    kept += part[: _KEPT - len(kept)]
                    if then is not None and size >= after:
                        now, then = then, None
                        if not await now():
                            break
                else:
                    complete = True
        except (EOFError, ValueError, ConnectionError):
            # IncompleteReadError is an EOFError; a chunk without a length is where a body broke.
            pass
        self.body = Body(size, digest.hexdigest(), complete, bytes(kept))
        self.server.bodies.append(self.body)
        if then is not None:
            await then()
        return self.body

    async def _parts(self) -> AsyncGenerator[bytes, None]:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            while length := int(await self.reader.readline() or b"", 16):
                chunk = await self.reader.readexactly(length + 2)
                yield chunk[:-2]
            await self.reader.readline()
            return
        left = int(self.headers.get("content-length", "0"))
        while left:
            part = await self.reader.read(min(left, 1 << 16))
            if not part:
                raise EOFError
            yield part
            left -= len(part)

    async def send(self, data: bytes) -> None:
        """Write, and let it leave, unless the client has left before."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            self.server.cut += 1


Run = Callable[[Exchange], Awaitable[bool]]


@dataclass(frozen=True)
class Action:
    """What happens to one request; `at_accept` if not even its head is read."""

    run: Run
    at_accept: bool = False


def body_of(data: bytes) -> Body:
    """What the server is to see of a body of these bytes."""
    return Body(len(data), hashlib.sha256(data).hexdigest(), True)


class FaultServer:
    """Serves its script, one action a request; the last action again when the script is over."""

    def __init__(self, *script: Action) -> None:
        self.script = list(script)
        self.connections = 0
        #: Attempts that reached us: heads read, and connections that were done with at accept.
        self.hits = 0
        self.requests: list[Exchange] = []
        self.bodies: list[Body] = []
        #: Answers that the client left before they were sent.
        self.cut = 0
        self.url = URL()
        self._tls: ssl.SSLContext | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(
        self,
        sock: socket.socket | None = None,
        *,
        path: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen on a port of its own, or on the socket or path given."""
        if path is not None:
            self._server = await asyncio.start_unix_server(self._accept, path)
            self.url = URL("http://localhost/")
            return
        if sock is None:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        self._tls = tls
        self._server = await asyncio.start_server(self._accept, sock=sock)
        self.url = URL(f"{'http' if tls is None else 'https'}://127.0.0.1:{port}/")

    async def close(self) -> None:
        """Stop listening, and end what is still being served."""
        if self._server is not None:
            self._server.close()
            # A connection that was being accepted is handed over in the next turns of the loop.
            for _ in range(5):
                await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
        # Transports that were closed say so in the next turn.
        await asyncio.sleep(0)

    def _next(self) -> Action:
        """The action that the next attempt will meet."""
        return self.script[min(self.hits, len(self.script) - 1)]

    def keeps_connection(self) -> bool:
        """Whether the next attempt may come on a connection that is open already."""
        return not self._next().at_accept

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours: the one that asyncio would make complains when it is cancelled.
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            await self._secure(writer)
            if self._next().at_accept:
                action = self._next()
                self.hits += 1
                await action.run(Exchange(self, reader, writer))
                return
            while exchange := await self._head(reader, writer):
                action = self._next()
                self.hits += 1
                self.requests.append(exchange)
                if not await action.run(exchange):
                    return
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _secure(self, writer: asyncio.StreamWriter) -> None:
        # Here and not in start_server, so that failed handshakes are counted.
        if self._tls is not None:
            await writer.start_tls(self._tls)

    async def _head(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Exchange | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (EOFError, ConnectionError):
            return None
        first, *lines = head.decode("latin-1").strip().split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        headers = {name.lower(): value.strip() for name, value in pairs}
        return Exchange(self, reader, writer, method, path, headers)


# What can happen. Each of these makes one action.


def reply(
    status: int = 200, body: bytes = b"ok", *, headers: str = "", split: float | None = None
) -> Action:
    """A complete answer; with `split` its body comes in a later packet, that much later."""

    async def run(exchange: Exchange) -> bool:
        await exchange.read_body()
        head = f"HTTP/1.1 {status} Scripted\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        if exchange.method == "HEAD":
            await exchange.send(head.encode())
        elif split is None:
            await exchange.send(head.encode() + body)
        else:
            await exchange.send(head.encode())
            await asyncio.sleep(split)
            await exchange.send(body)
        return True

    return Action(run)


def raw(data: bytes, *, then: str = "serve") -> Action:
    """These very bytes, and then: "serve" the next request, "close", "reset", or "hang"."""

    async def run(exchange: Exchange) -> bool:
        await exchange.read_body()
        await exchange.send(data)
        if then == "hang":
            await exchange.reader.read()
        if then == "reset":
            hard_close(exchange)
        return then == "serve"

    return Action(run)


def endless(status: int = 503) -> Action:
    """An answer whose body goes on until the client leaves."""

    async def run(exchange: Exchange) -> bool:
        await exchange.read_body()
        writer = exchange.writer
        writer.write(f"HTTP/1.1 {status} On\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        while not writer.is_closing():
            await exchange.send(b"1\r\nx\r\n")
            await asyncio.sleep(0.005)
        return False

    return Action(run)


def close(*, at_accept: bool = False) -> Action:
    """No answer, only FIN: when the request is there, or when the connection is."""

    async def run(exchange: Exchange) -> bool:
        if not at_accept:
            await exchange.read_body()
        return False

    return Action(run, at_accept)


def hard_close(exchange: Exchange) -> None:
    """End the connection with RST instead of FIN."""
    sock = exchange.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.writer.transport.abort()


def reset(*, at_accept: bool = False) -> Action:
    """No answer, only RST."""

    async def run(exchange: Exchange) -> bool:
        if not at_accept:
            await exchange.read_body()
        hard_close(exchange)
        return False

    return Action(run, at_accept)


def garbage() -> Action:
    """An answer that is no HTTP."""
    return raw(b"\x16\x03\x01 what is this?\r\n\r\n", then="close")


def hang() -> Action:
    """No answer as long as the client waits for one."""

    async def run(exchange: Exchange) -> bool:
        await exchange.read_body()
        await exchange.reader.read()
        return False

    return Action(run)


def early(status: int = 503, *, after: int = 1 << 16, then: str = "read") -> Action:
    """An answer while the upload runs, after that many bytes of it.

    Then: "read" what is left of the upload and serve the next request, "close", or "stall", which
    keeps the connection and reads no more.
    """

    async def run(exchange: Exchange) -> bool:
        got = 0
        while got < after:
            part = await exchange.reader.read(after - got)
            if not part:
                return False
            got += len(part)
        await exchange.send(f"HTTP/1.1 {status} Early\r\nContent-Length: 4\r\n\r\nno!\n".encode())
        if then == "stall":
            exchange.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(FOR_EVER)
        if then == "read":
            while await exchange.reader.read(1 << 16):
                pass
        return False

    return Action(run)


def hundred(action: Action, premature: list[int]) -> Action:
    """Asks for the body with 100 Continue, and notes how much came before it had asked."""

    async def run(exchange: Exchange) -> bool:
        try:
            async with asyncio.timeout(0.1):
                premature.append(len(await exchange.reader.read(1)))
        except TimeoutError:
            premature.append(0)
        await exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await action.run(exchange)

    return Action(run)


def redirect(location: str, status: int = 302) -> Action:
    """On to another place."""
    return reply(status, b"", headers=f"Location: {location}\r\n")
