"""One HTTP call, once it is more than a first success."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import ClientHandlerType, ClientRequest
from aiohttp.payload import Payload

from .._call import Call
from .pool import Queue
from .replay import Run


@dataclass(slots=True, eq=False, kw_only=True)
class _HttpCall(Call):
    """A call with its request, what sends the request, and the body at the start."""

    request: ClientRequest
    handler: ClientHandlerType
    body: Payload | bytes | None
    #: The pool's queue, as the newest attempt met it; None if nobody looked.
    queue: Queue | None = None
    #: Attempts that were lost with a connection that had been used before.
    lost: int = 0

    def follow(self, earlier: Run) -> None:
        """Go on with a call that a redirect led here."""
        self.started = earlier.started
        self.requests_before = earlier.sent
