"""Which body can be sent again, and how a request is made ready for it.

Each function answers for a measured trap of aiohttp's client; the tests name them one by one. Only
public names of aiohttp are used.
"""

from __future__ import annotations

import weakref
from typing import Any, Final, cast

from aiohttp import ClientRequest, hdrs, payload
from aiohttp.multipart import BodyPartReaderPayload, MultipartWriter


def rearm(request: ClientRequest) -> None:
    """Make a request that is sent again wait for `100 Continue` again, if it ever did."""
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        request.update_expect_continue()


#: Immutable, or rewound by aiohttp without another thread in it: safe to send again at any time.
IN_MEMORY: Final = (payload.BytesPayload, payload.BytesIOPayload)
# Gone once read, whatever `consumed` says (aiohttp 3.12 to 3.13 has it False in a FormData).
_ONE_SHOT: Final = (payload.AsyncIterablePayload, BodyPartReaderPayload)


class UploadWatch:
    """Knows whether a body's upload has begun, and whether the upload has come to its end.

    It stands before the payload's `write_with_length` on that one instance. `consumed` is not
    enough: after an early answer it is False for a file whose cancelled writer is still reading in
    an executor. A replay would race that writer and send a corrupt body.
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

    def replayable(self) -> bool:
        """Whether the body can be sent (again) from its start."""
        if not self.begun:
            return True
        body = self._body()
        return not (body is None or self._running or body.consumed or _one_shot(body))


def watch_upload(body: payload.Payload | bytes) -> None:
    """Watch the upload of a body that can't be sent again at any time."""
    if not isinstance(body, payload.Payload) or isinstance(body, IN_MEMORY):
        return
    # A body that a redirect hands on is watched already.
    if not isinstance(body.__dict__.get("write_with_length"), UploadWatch):
        body.write_with_length = UploadWatch(body)  # type: ignore[method-assign]


def is_replayable(request: ClientRequest, original: payload.Payload | bytes | None) -> bool:
    """Whether the body that was sent can be sent again from its start.

    `original` is the body at the start of the attempt, watched, or None if nobody looked.
    """
    body: payload.Payload | bytes = request.body
    if original is not None and body is not original:
        # The later middleware that replaced the body would wrap or read what is spent already.
        return False
    if not isinstance(body, payload.Payload) or isinstance(body, IN_MEMORY):
        return True
    watch = body.__dict__.get("write_with_length")
    return isinstance(watch, UploadWatch) and watch.replayable()


def _one_shot(body: payload.Payload) -> bool:
    if isinstance(body, MultipartWriter):
        parts = (part for part, _, _ in body if isinstance(part, payload.Payload))
        return any(part.consumed or _one_shot(part) for part in parts)
    return isinstance(body, _ONE_SHOT)
