"""Bodies: what can be sent again arrives whole each time; what can't is never sent in pieces."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

from ..kit.calls import books, is_idle, retrying
from ..kit.clock import Clock
from ..kit.faults import Action, Body, FaultServer, body_of, close, early, redirect, reply, reset
from ..kit.fixtures import Open, Serve

# Not a multiple of any chunk's or buffer's size.
CONTENT = bytes(range(256)) * 1100 + b"the end"
TEXT = "Grüße, \N{SNOWMAN}\n" * 3000
WHOLE = body_of(CONTENT)

Make = Callable[[Path], dict[str, Any]]


def _file(tmp_path: Path) -> io.BufferedReader:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    return path.open("rb")


def _text_file(tmp_path: Path) -> io.TextIOBase:
    path = tmp_path / "text"
    path.write_text(TEXT, encoding="utf-8")
    return path.open(encoding="utf-8")


def _from_the_middle(file: Any) -> Any:
    file.seek(1000)
    return file


def _form(**fields: Any) -> aiohttp.FormData:
    form = aiohttp.FormData()
    for name, value in fields.items():
        form.add_field(name, value, filename=name)
    return form


REPLAYABLE: dict[str, tuple[Make, Body | None]] = {
    "none": (lambda tmp: {}, body_of(b"")),
    "empty bytes": (lambda tmp: {"data": b""}, body_of(b"")),
    "bytes": (lambda tmp: {"data": CONTENT}, WHOLE),
    "bytes in chunks": (lambda tmp: {"data": CONTENT, "chunked": True}, WHOLE),
    "bytes compressed": (lambda tmp: {"data": CONTENT, "compress": "deflate"}, None),
    "bytearray": (lambda tmp: {"data": bytearray(CONTENT)}, WHOLE),
    "memoryview": (lambda tmp: {"data": memoryview(CONTENT)}, WHOLE),
    "str": (lambda tmp: {"data": TEXT}, body_of(TEXT.encode())),
    "json": (
        lambda tmp: {"json": {"text": "x" * 50_000}},
        body_of(json.dumps({"text": "x" * 50_000}).encode()),
    ),
    "BytesIO": (lambda tmp: {"data": io.BytesIO(CONTENT)}, WHOLE),
    "BytesIO from the middle": (
        lambda tmp: {"data": _from_the_middle(io.BytesIO(CONTENT))},
        body_of(CONTENT[1000:]),
    ),
    "StringIO": (lambda tmp: {"data": io.StringIO(TEXT)}, body_of(TEXT.encode())),
    "file": (lambda tmp: {"data": _file(tmp)}, WHOLE),
    "file from the middle": (
        lambda tmp: {"data": _from_the_middle(_file(tmp))},
        body_of(CONTENT[1000:]),
    ),
    "text file": (lambda tmp: {"data": _text_file(tmp)}, body_of(TEXT.encode())),
    "form of fields": (lambda tmp: {"data": {"a": "1", "b": "2 & 3"}}, body_of(b"a=1&b=2+%26+3")),
    "form of bytes": (lambda tmp: {"data": _form(a=CONTENT, b=b"more")}, None),
    "form of BytesIO": (lambda tmp: {"data": _form(a=io.BytesIO(CONTENT))}, None),
    "form of StringIO": (lambda tmp: {"data": _form(a=io.StringIO(TEXT), b=b"x")}, None),
    "form of a file": (lambda tmp: {"data": _form(a=_file(tmp), b=b"more")}, None),
}


@pytest.fixture(params=list(REPLAYABLE.values()), ids=list(REPLAYABLE))
def replayable(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[dict[str, Any], Body | None]]:
    """Arguments for `session.request`, and the body that is to arrive where it can be foretold."""
    make, expected = request.param
    options = make(tmp_path)
    yield options, expected
    if isinstance(options.get("data"), io.IOBase):
        options["data"].close()


@pytest.mark.parametrize(
    "failures",
    [(reply(503), reply(503, split=0.001)), (close(), close()), (reset(), reply(429))],
    ids=["answered", "disconnected", "reset"],
)
async def test_a_body_that_can_be_sent_again_arrives_whole_every_time(
    failures: tuple[Action, ...],
    replayable: tuple[dict[str, Any], Body | None],
    serve: Serve,
    open_session: Open,
) -> None:
    """Each of three attempts carries the same bytes, and all of them."""
    options, expected = replayable
    server = await serve(*failures, reply())
    session = open_session(retry := retrying(), limit=1)
    async with session.put(server.url, **options) as answer:
        assert answer.status == 200
    assert server.hits == len(server.bodies) == 3
    assert len(set(server.bodies)) == 1
    assert server.bodies[0].complete
    if expected is not None:
        assert server.bodies[0] == expected
    else:
        assert server.bodies[0].size > 1000
    books(retry, server.hits, retry_success=1)
    await is_idle(session)


# Bodies that are gone once sent.


async def _chunks(content: bytes = CONTENT) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 10_007):
        yield content[start : start + 10_007]


def _stream() -> asyncio.StreamReader:
    stream = asyncio.StreamReader()
    stream.feed_data(CONTENT)
    stream.feed_eof()
    return stream


def _pipe() -> Any:
    reading, writing = os.pipe()

    def fill() -> None:
        with os.fdopen(writing, "wb") as end, contextlib.suppress(BrokenPipeError):
            end.write(CONTENT)

    threading.Thread(target=fill).start()
    return os.fdopen(reading, "rb")


ONE_SHOT: dict[str, Callable[[], Any]] = {"generator": _chunks, "stream": _stream, "pipe": _pipe}


@pytest.fixture(params=list(ONE_SHOT.values()), ids=list(ONE_SHOT))
async def source(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A body that is gone once sent."""
    source = request.param()
    yield source
    if isinstance(source, io.IOBase):
        source.close()


@pytest.fixture(params=[False, True], ids=["", "form"])
def one_shot(request: pytest.FixtureRequest, source: Any) -> Any:
    """The same, by itself or as a field of a form."""
    return _form(a=source, b=b"more") if request.param else source


async def test_a_consumed_body_is_never_sent_again(
    one_shot: Any, serve: Serve, open_session: Open
) -> None:
    """A 503 after the upload is handed back at once: a replay would be empty, and be accepted."""
    server = await serve(reply(503, b"sorry"), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock))
    async with session.put(server.url, data=one_shot) as answer:
        assert (answer.status, await answer.read()) == (503, b"sorry")
    assert (server.hits, clock.waits) == (1, [])
    (body,) = server.bodies
    assert body.complete
    assert body.size >= len(CONTENT)
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, server.hits, failed_without_retry=1)


@pytest.mark.parametrize("fault", [close(), reset()], ids=["FIN", "RST"])
async def test_a_consumed_body_is_not_sent_again_after_a_lost_connection(
    fault: Action, one_shot: Any, serve: Serve, open_session: Open
) -> None:
    """No attempt of ours, nor aiohttp's hidden one, follows an upload that can't be repeated."""
    server = await serve(fault, reply())
    session = open_session(retry := retrying())
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await session.put(server.url, data=one_shot)
    assert server.hits == 1
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, 1, failed_without_retry=1)


async def test_an_upload_that_never_began_is_sent_whole_by_a_retry(
    one_shot: Any, serve: Serve, open_session: Open
) -> None:
    """A refused connection took nothing from the body, so the retry has all of it."""
    with socket.socket() as sock:
        # Bound and not listening: refused, and nobody else can have the port meanwhile.
        sock.bind(("127.0.0.1", 0))
        server = FaultServer(reply())
        clock = Clock()

        async def come_up() -> None:
            if len(clock.waits) == 2:
                await server.listen(sock.dup())

        clock.meanwhile = come_up
        session = open_session(retry := retrying(clock))
        port = sock.getsockname()[1]
        async with session.put(f"http://127.0.0.1:{port}/", data=one_shot) as answer:
            assert answer.status == 200
        await server.close()
    assert server.hits == 1
    # The second refusal in a row is held until a probe is due, as nobody else calls.
    assert retry.snapshot().attempts == {"original": 1, "retry": 2}
    (body,) = server.bodies
    assert body.complete
    assert body.size >= len(CONTENT)
    # Two attempts were refused, which no server could count.
    assert retry.snapshot().failures == {"ClientConnectorError": 2}
    books(retry, server.hits + 2, retry_success=1)


async def test_a_refused_upload_that_is_consumed_later_is_not_sent_a_third_time(
    serve: Serve, open_session: Open
) -> None:
    """Refused, then uploaded and answered 503: the retry was possible once and is not twice."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = FaultServer(reply(503), reply())
        clock = Clock()
        clock.meanwhile = lambda: server.listen(sock.dup())
        session = open_session(retry := retrying(clock))
        port = sock.getsockname()[1]
        async with session.put(f"http://127.0.0.1:{port}/", data=_chunks()) as answer:
            assert answer.status == 503
        await server.close()
    assert server.bodies == [WHOLE]
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, 2, failed_after_retry=1)


async def _twenty_megabytes(sent: list[int]) -> AsyncIterator[bytes]:
    for _ in range(200):
        yield bytes(100_000)
        sent.append(100_000)


@pytest.mark.parametrize("then", ["read", "close"])
async def test_an_early_answer_to_a_generator_is_handed_back(
    then: str, serve: Serve, open_session: Open
) -> None:
    """A 503 in the middle of a 20 MB upload ends the call: what is left of it is no request."""
    server = await serve(early(503, then=then), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock), limit=1)
    sent: list[int] = []
    async with session.put(server.url, data=_twenty_megabytes(sent)) as answer:
        assert (answer.status, await answer.read()) == (503, b"no!\n")
    assert (server.hits, clock.waits) == (1, [])
    assert server.bodies == []
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, server.hits, failed_without_retry=1)
    await is_idle(session)


class SlowFile(io.BufferedReader):
    """A seekable file on a slow disk: a read that has begun goes on in its thread."""

    def __init__(self, path: Path, gate: threading.Event) -> None:
        super().__init__(io.FileIO(path))
        self._gate = gate
        self.reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self.reads += 1
        if self.reads > 1:
            self._gate.wait(0.05)
        return super().read(size)


@pytest.fixture
def slow_file(tmp_path: Path) -> Iterator[SlowFile]:
    """A file of 1 MB whose reads take 50 ms from the second on, until its gate is opened."""
    path = tmp_path / "slow"
    path.write_bytes((CONTENT * 4)[:1_000_003])
    gate = threading.Event()
    with SlowFile(path, gate) as file:
        yield file
        gate.set()


@pytest.mark.parametrize("then", ["read", "close"])
@pytest.mark.parametrize("in_form", [False, True], ids=["file", "form"])
async def test_an_unfinished_file_upload_is_not_sent_again(
    then: str, in_form: bool, slow_file: SlowFile, serve: Serve, open_session: Open
) -> None:
    """The cancelled upload still reads the file; a replay would race it and send a corrupt body."""
    server = await serve(early(503, after=30_000, then=then), reply())
    clock = Clock()
    session = open_session(retry := retrying(clock), limit=1)
    data = _form(a=slow_file) if in_form else slow_file
    async with session.put(server.url, data=data) as answer:
        assert answer.status == 503
    assert server.bodies == []
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, server.hits, failed_without_retry=1)


@pytest.mark.parametrize("in_form", [False, True], ids=["file", "form"])
async def test_a_finished_file_upload_is_sent_again_whole(
    in_form: bool, slow_file: SlowFile, serve: Serve, open_session: Open
) -> None:
    """The same slow file, read to its end before the 503, arrives whole three times."""
    slow_file.reads = -1_000_000
    server = await serve(reply(503), reply(503), reply())
    session = open_session(retry := retrying())
    data = _form(a=slow_file) if in_form else slow_file
    async with session.put(server.url, data=data) as answer:
        assert answer.status == 200
    assert len(server.bodies) == 3
    assert len(set(server.bodies)) == 1
    assert server.bodies[0].complete
    assert server.bodies[0].size >= 1_000_003
    books(retry, server.hits, retry_success=1)


@pytest.mark.parametrize("then", ["read", "close", "stall"])
async def test_an_early_answer_to_a_body_in_memory_is_retried_whole(
    then: str, serve: Serve, open_session: Open
) -> None:
    """Bytes in memory are rewound without a race, also when the server takes no more of them."""
    content = CONTENT * 18
    server = await serve(early(503, then=then), reply())
    session = open_session(retry := retrying())
    async with asyncio.timeout(5), session.put(server.url, data=io.BytesIO(content)) as answer:
        assert answer.status == 200
    assert server.bodies == [body_of(content)]
    books(retry, 2, retry_success=1)


class _Tracked(aiohttp.BytesIOPayload):
    """A body in memory that knows how many of its uploads are under way."""

    running = 0

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        self.running += 1
        try:
            await super().write_with_length(writer, content_length)
        finally:
            self.running -= 1


async def test_an_upload_has_ended_before_the_next_one_begins(
    serve: Serve, open_session: Open
) -> None:
    """One that an early answer has cut short is out of the body first, however short the wait."""
    server = await serve(early(503, then="stall"), reply())
    clock = Clock()
    body = _Tracked(io.BytesIO(CONTENT * 18))
    running: list[int] = []

    async def at_once(seconds: float) -> None:
        clock.now += seconds

    async def look(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        running.append(body.running)
        return await handler(request)

    retry = AdaptiveRetryMiddleware(clock=clock, sleep=at_once, random=lambda: 0.5)
    session = open_session(retry, look)
    async with session.put(server.url, data=body) as answer:
        assert answer.status == 200
    assert running == [0, 0]
    assert server.bodies[-1] == body_of(CONTENT * 18)
    books(retry, 2, retry_success=1)


async def test_a_redirected_file_is_sent_again_whole(
    tmp_path: Path, serve: Serve, open_session: Open
) -> None:
    """A 307 hands the body on to a new request; that one is retried with all of the body too."""
    server = await serve(redirect("/there", 307), reply(503), reply(503), reply())
    session = open_session(retry := retrying())
    with _file(tmp_path) as file:
        async with session.put(server.url, data=file) as answer:
            assert answer.status == 200
    assert server.bodies == [WHOLE] * 4
    books(retry, server.hits, first_success=1, retry_success=1)


async def test_a_body_that_breaks_by_itself_is_not_the_servers_fault(
    serve: Serve, open_session: Open
) -> None:
    """What the caller's own generator raises ends the call as it would without the middleware."""
    server = await serve(reply())
    session = open_session(retry := retrying())

    async def breaking() -> AsyncIterator[bytes]:
        yield b"so far"
        raise RuntimeError("the caller's own")

    with pytest.raises(aiohttp.ClientConnectionError):
        await session.put(server.url, data=breaking())
    assert server.hits <= 1
    assert retry.snapshot().failures == {}
    books(retry, 1, ignored=1)
    assert retry.snapshot().failures == {}
    books(retry, 1, ignored=1)


# A middleware after ours puts another body in place of the caller's.


async def _parts() -> AsyncIterator[bytes]:
    for number in range(3):
        yield b"part %d" % number


ORIGINALS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"original",
    "str": lambda: "original",
    "none": lambda: None,
    "stream": _parts,
    "file": lambda: io.BufferedReader(io.BytesIO(b"original")),
    "form": lambda: _form(field=b"original"),
}
REPLACEMENTS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"replaced",
    "stream": _parts,
    "form": lambda: _form(field=b"replaced"),
}


@pytest.mark.parametrize("replacement", REPLACEMENTS.values(), ids=REPLACEMENTS)
@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS)
async def test_a_body_that_was_replaced_is_not_sent_again(
    original: Callable[[], Any],
    replacement: Callable[[], Any],
    serve: Serve,
    open_session: Open,
) -> None:
    """The middleware after ours would wrap its own work, or read what is spent: nothing is sent
    twice, the answer is handed back, and the reason is said."""
    runs = 0

    async def replacing(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        nonlocal runs
        runs += 1
        await request.update_body(replacement())
        return await handler(request)

    server = await serve(reply(503), reply())
    session = open_session(retry := retrying(), replacing)
    async with session.put(server.url, data=original()) as answer:
        assert answer.status == 503
    assert (runs, server.hits) == (1, 1)
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}
    books(retry, 1, failed_without_retry=1)


async def test_a_stream_that_is_wrapped_is_not_sent_empty(serve: Serve, open_session: Open) -> None:
    """A middleware that counts the caller's stream spends it: the server never sees it empty."""
    source = _parts()

    async def counting(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async def counted() -> AsyncIterator[bytes]:
            async for part in source:
                yield part

        await request.update_body(counted())
        return await handler(request)

    server = await serve(reply(503), reply())
    session = open_session(retry := retrying(), counting)
    async with session.put(server.url, data=source) as answer:
        assert answer.status == 503
    assert [body.data for body in server.bodies] == [b"part 0part 1part 2"]
    assert retry.snapshot().suppressed == {"body_not_replayable": 1}


async def test_a_middleware_that_leaves_the_body_alone_changes_nothing(
    serve: Serve, open_session: Open
) -> None:
    """A header that is set for each attempt is no other body."""

    async def signing(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.headers["X-Signature"] = "signed"
        return await handler(request)

    server = await serve(reply(503), reply())
    session = open_session(retrying(), signing)
    async with session.put(server.url, data=CONTENT) as answer:
        assert answer.status == 200
    assert server.bodies == [WHOLE, WHOLE]
