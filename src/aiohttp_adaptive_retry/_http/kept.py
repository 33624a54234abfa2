"""What a call that waits keeps in memory, in bytes, as it really is there.

A Content-Length says how much was sent. Behind it a compressed body can be a thousand times larger,
and a head has no length at all. So what is there is measured, after decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from aiohttp import ClientResponse, payload
from aiohttp.multipart import MultipartWriter

from .body import IN_MEMORY

_E = TypeVar("_E", bound=BaseException)

#: The largest answer or exception that a waiting call keeps, bytes: an error page and its head.
KEPT_BYTES: Final = 16 * 1024
# A chain of causes that is longer was made by no network.
_MOST_CAUSES: Final = 8
_MOST_ITEMS: Final = 64


def answer_bytes(response: ClientResponse) -> int:
    """The decoded body so far, read or not, and the head."""
    # Stand-ins for answers have no such names.
    size: int = getattr(response.content, "total_bytes", 0)
    for name, value in getattr(response, "raw_headers", ()):
        size += len(name) + len(value)
    return size


def body_bytes(body: payload.Payload | bytes) -> int:
    """A request's body, as far as it stands in memory: a file, or a generator, does not."""
    if isinstance(body, MultipartWriter):
        parts = (part for part, _, _ in body if isinstance(part, payload.Payload))
        return sum(map(body_bytes, parts))
    if isinstance(body, payload.Payload):
        return (body.size or 0) if isinstance(body, IN_MEMORY) else 0
    return len(body)


def error_bytes(error: BaseException) -> int:
    """The texts in an exception and its causes; more than `KEPT_BYTES` if a raw head is in it.

    aiohttp puts the whole head of a broken answer into `ServerDisconnectedError`.
    """
    size, cause = 0, cast("BaseException | None", error)
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        size += _bytes_in(cause.args) + _bytes_in(tuple(cause.__dict__.values()))
        cause = cause.__cause__ or cause.__context__
    return size


def without_frames(error: _E) -> _E:
    """The same exception without the frames that it and its causes have passed."""
    cause: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if cause is None:
            break
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error


def _bytes_in(values: tuple[Any, ...]) -> int:
    size = 0
    for value in values[:_MOST_ITEMS]:
        if isinstance(value, str | bytes | bytearray):
            size += len(value)
        elif isinstance(value, Mapping):
            size += sum(len(str(name)) + len(str(text)) for name, text in value.items())
        elif hasattr(value, "raw_headers") and not isinstance(value, ClientResponse):
            size += KEPT_BYTES + 1
    return size
