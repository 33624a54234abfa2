"""Bodies of every kind, and whether what a server received is what the caller sent."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from ..kit.faults import Exchange

__all__ = ("BODIES", "BodyKind", "METHODS", "Place")

METHODS: Final = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE", "PATCH")

# More than a connection's buffers take at once, and no multiple of any.
CONTENT: Final = bytes(range(256)) * 700 + b"the end"
TEXT: Final = "Grüße, \N{SNOWMAN}\n" * 8000
_JSON: Final = {"text": "x" * 150_000}


@dataclass(frozen=True)
class Place:
    """Where files are, and what closes them."""

    folder: Path
    closing: contextlib.ExitStack


@dataclass(frozen=True)
class BodyKind:
    """`make` gives the arguments of a call; `sent` is what is to arrive, in each part of a form."""

    make: Callable[[Place], dict[str, Any]]
    sent: tuple[bytes, ...]
    form: bool = False
    #: Gone once a byte of it was asked for.
    one_shot: bool = False
    #: Read by a thread: gone unless its upload came to its end.
    file: bool = False

    @property
    def fragile(self) -> bool:
        """Whether it may be that it can't be sent again."""
        return self.form or self.file or self.one_shot

    def arrived(self, exchange: Exchange) -> bool:
        """Whether a body that the server took for complete is what the caller sent."""
        assert exchange.body is not None
        data = exchange.body.data
        if not self.form:
            return data == self.sent[0]
        boundary = exchange.headers.get("content-type", "").partition("boundary=")[2]
        start, *parts, end = data.split(b"--" + boundary.encode())
        return (
            bool(boundary)
            and start == b""
            and end == b"--\r\n"
            and tuple(part.split(b"\r\n\r\n", 1)[-1][:-2] for part in parts) == self.sent
        )


async def _chunks() -> AsyncIterator[bytes]:
    for start in range(0, len(CONTENT), 10_007):
        yield CONTENT[start : start + 10_007]


def _file(place: Place) -> io.BufferedReader:
    path = place.folder / "content"
    if not path.exists():
        path.write_bytes(CONTENT)
    return place.closing.enter_context(path.open("rb"))


def _form(value: Any) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("a", value, filename="a")
    form.add_field("b", b"more", filename="b")
    return form


_FORM: Final = (CONTENT, b"more")

BODIES: Final[dict[str, BodyKind]] = {
    "none": BodyKind(lambda place: {}, (b"",)),
    "empty": BodyKind(lambda place: {"data": b""}, (b"",)),
    "bytes": BodyKind(lambda place: {"data": CONTENT}, (CONTENT,)),
    "str": BodyKind(lambda place: {"data": TEXT}, (TEXT.encode(),)),
    "json": BodyKind(lambda place: {"json": _JSON}, (json.dumps(_JSON).encode(),)),
    "BytesIO": BodyKind(lambda place: {"data": io.BytesIO(CONTENT)}, (CONTENT,)),
    "file": BodyKind(lambda place: {"data": _file(place)}, (CONTENT,), file=True),
    "generator": BodyKind(lambda place: {"data": _chunks()}, (CONTENT,), one_shot=True),
    "form of bytes": BodyKind(lambda place: {"data": _form(CONTENT)}, _FORM, form=True),
    "form of a file": BodyKind(
        lambda place: {"data": _form(_file(place))}, _FORM, form=True, file=True
    ),
    "form of a generator": BodyKind(
        lambda place: {"data": _form(_chunks())}, _FORM, form=True, one_shot=True
    ),
}
