"""aiohttp's side of one attempt: what its outcome means, what may be sent again, what to let go.

Each function here answers for a measured trap of aiohttp's client; the tests name them one by one.
Only public names of aiohttp are used.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any, Final, Literal, cast

import aiohttp
from aiohttp import ClientRequest, ClientResponse, hdrs, payload
from aiohttp.multipart import BodyPartReaderPayload, MultipartWriter

__all__ = (
    "UploadWatch",
    "arrive",
    "classify",
    "discard",
    "is_absence",
    "is_timeout",
    "is_whole",
    "may_be_sent_again",
    "rearm",
    "unwatched_body",
    "watch_upload",
)

Outcome = Literal["transient", "permanent", "ignored"]

# Connecting failed for a reason that the next attempt will meet again.
_PERMANENT: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientSSLError,
    aiohttp.ServerFingerprintMismatch,
)
# What the network, or the server at its other end, does to a request.
_TRANSIENT: Final = (
    aiohttp.ClientOSError,
    aiohttp.ServerConnectionError,  # disconnected, and all of its own timeouts
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientPayloadError,
    ConnectionError,
)


def classify(error: BaseException, retry_statuses: frozenset[int]) -> Outcome:
    """What an exception says about the server.

    "transient": a failure that a retry may mend. "permanent": a failure that it will not.
    "ignored": nothing about the server. A bare TimeoutError is the caller's own deadline (`total`
    fires once; who retries after it outlives the deadline), CancelledError is the caller leaving,
    and what the network did not raise came from another middleware or from the caller's body.
    """
    if isinstance(error, _PERMANENT):
        return "permanent"
    if isinstance(error, _TRANSIENT):
        return "transient"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return "transient" if error.status in retry_statuses else "permanent"
    if isinstance(error, aiohttp.ClientResponseError):
        # In a handler this is an answer that can't be parsed: damage, as on any connection.
        return "transient"
    return "ignored"


def is_absence(error: BaseException) -> bool:
    """Whether nobody answered: refused, unreachable, unknown to DNS, or timed out."""
    return isinstance(error, aiohttp.ClientConnectorError | aiohttp.ServerTimeoutError)


def is_timeout(error: BaseException) -> bool:
    """Whether the server, or the way to it, took too long: what a flooded one does too."""
    return isinstance(error, aiohttp.ServerTimeoutError)


# Sending again.

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"


def may_be_sent_again(request: ClientRequest, methods: frozenset[str]) -> bool:
    """Whether a second copy does no harm: by its method, or by the caller's word for it."""
    return request.method in methods or _IDEMPOTENCY_KEY in request.headers


def rearm(request: ClientRequest) -> None:
    """Make a request that is sent again wait for `100 Continue` again, if it ever did."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        request.update_expect_continue()


# Immutable, or rewound by aiohttp without another thread in it: safe to send again at any time.
_IN_MEMORY: Final = (payload.BytesPayload, payload.BytesIOPayload)
# Gone once read, whatever `consumed` says (aiohttp 3.12 to 3.13 has it False in a FormData).
_ONE_SHOT: Final = (payload.AsyncIterablePayload, BodyPartReaderPayload)


class UploadWatch:
    """Knows whether a body's upload has begun, and whether it has come to its end.

    It stands before the payload's public `write_with_length` on that one instance, since nothing
    public says so: after an early answer `consumed` is False for a file whose cancelled writer is
    still reading in an executor, and a replay would race it and send a corrupt body.
    """

    __slots__ = ("_body", "_running", "begun")

    def __init__(self, body: payload.Payload) -> None:
        # Weak, as the payload holds this object.
        self._body = weakref.ref(body)
        self._running = 0
        self.begun = False

    async def __call__(self, writer: Any, content_length: int | None) -> None:
        self.begun = True
        self._running += 1
        # aiohttp calls this as the body's method, so there is a body.
        body = cast(payload.Payload, self._body())
        await type(body).write_with_length(body, writer, content_length)
        # Not reached by an upload that fails or is cancelled: what it left behind is unknown.
        self._running -= 1

    @property
    def finished(self) -> bool:
        """Whether every upload that began has come to its end."""
        return not self._running

    def replayable(self) -> bool:
        """Whether the body can be sent (again) from its start."""
        if not self.begun:
            return True
        body = self._body()
        return body is not None and self.finished and not body.consumed and not _one_shot(body)


def unwatched_body(request: ClientRequest) -> bool:
    """Whether a request that was not watched has a body that would have had to be."""
    body: payload.Payload | bytes = request.body
    return isinstance(body, payload.Payload) and not isinstance(body, _IN_MEMORY)


def watch_upload(request: ClientRequest) -> UploadWatch | None:
    """Watch the body's upload, if it has one that can't be sent again at any time.

    A body that a redirect hands on is watched already.
    """
    body: payload.Payload | bytes = request.body
    if not isinstance(body, payload.Payload) or isinstance(body, _IN_MEMORY):
        return None
    watch = body.__dict__.get("write_with_length")
    if not isinstance(watch, UploadWatch):
        watch = UploadWatch(body)
        body.write_with_length = watch  # type: ignore[method-assign]
    return watch


def _one_shot(body: payload.Payload) -> bool:
    if isinstance(body, MultipartWriter):
        parts = (part for part, _, _ in body if isinstance(part, payload.Payload))
        return any(part.consumed or _one_shot(part) for part in parts)
    return isinstance(body, _ONE_SHOT)


# Letting go.

#: A body up to this many bytes is read to its end, so that its connection can be used again.
_DRAIN_BYTES: Final = 64 * 1024
#: Seconds given to it. A body that is not there by now is not worth a connection's wait.
_DRAIN_SECONDS: Final = 0.05


#: The largest answer that a held call keeps, bytes: an error page.
_KEPT_BYTES: Final = 16 * 1024


def is_whole(response: ClientResponse) -> bool:
    """Whether an answer can be kept through a hold and read later: it is all here and small.

    Such an answer holds no connection: aiohttp gave it back when the body's end came.
    """
    content = response.content
    if response.connection is not None or not content.is_eof():
        return False
    length = response.content_length
    return length <= _KEPT_BYTES if length is not None else content.total_bytes <= _KEPT_BYTES


async def arrive(response: ClientResponse) -> None:
    """Give a small body that is still under way 50 ms to come, without reading it."""
    length = response.content_length
    if length is not None and length > _KEPT_BYTES:
        return
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await response.content.wait_eof()
    except (TimeoutError, aiohttp.ClientError, OSError):
        # Only our own timeout: here the call's deadline comes as a cancellation.
        pass


async def discard(response: ClientResponse) -> None:
    """Give the connection of a response back before the wait: to the pool if that is cheap.

    A small body that is there, or that comes within 50 ms, is read to its end, which returns the
    connection by itself. Everything else is released, which closes it: no body is waited for that
    may not end.
    """
    try:
        content = response.content
        length = response.content_length
        if not content.is_eof() and (length is None or length <= _DRAIN_BYTES):
            await _drain(content)
    finally:
        response.release()


async def _drain(content: aiohttp.StreamReader) -> None:
    scope = asyncio.timeout(_DRAIN_SECONDS)
    try:
        async with scope:
            read = 0
            while not content.at_eof():
                read += len(await content.readany())
                if read > _DRAIN_BYTES:
                    return
    except aiohttp.ClientError:
        pass
    except OSError as error:
        # A bare TimeoutError that is not ours is the call's deadline. aiohttp says it only once:
        # who swallows it sends the next attempt after the deadline.
        if isinstance(error, TimeoutError) and not scope.expired():
            raise
