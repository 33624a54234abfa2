"""One HTTP call, once it is more than a first success."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.payload import Payload

from .._call import Call
from .._policy.protocol import AttemptOutcome
from .classify import Classifier
from .kept import KEPT_BYTES, answer_bytes, body_bytes, error_bytes, without_frames
from .pool import Queue
from .replay import Run

_Result = TypeVar("_Result", ClientResponse, BaseException)

#: Methods whose calls can get a key (draft-ietf-httpapi-idempotency-key-header).
KEYED_METHODS: Final = frozenset({"POST", "PATCH"})
IDEMPOTENCY_KEY: Final = "Idempotency-Key"


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class _HttpCall(Call):
    """A call with its request, what sends the request, and the body at the start."""

    request: ClientRequest
    handler: ClientHandlerType
    body: Payload | bytes | None
    #: The pool's queue, as the newest attempt met it; None if nobody looked.
    queue: Queue | None = None
    #: Attempts that were lost with a connection that had been used before.
    lost: int = 0
    #: What judges its attempts.
    classifier: Classifier | None = None
    #: The caller's word whether the request may be sent twice.
    idempotent: bool | None = None
    #: The Idempotency-Key that we have given it, and the name of the origin that the key is for.
    idempotency_key: tuple[str, str] | None = None
    #: Bytes of what the newest attempt brought.
    brought: int = 0

    def kept_bytes(self) -> int:
        """Bytes that the call keeps while it waits."""
        size = 0
        try:
            if body := self.request.body:
                size = body_bytes(body)
        except Exception:
            # A body that can't be measured, as its buffer is closed. It can't be sent again either.
            pass
        return size + self.brought if self.brought <= KEPT_BYTES or not self.must_send else size

    def rest(self, result: _Result) -> _Result | None:
        """What the call keeps while it waits, to end with if no other attempt can follow.

        Of a large answer, and of one that holds a connection, nothing is kept.
        """
        if not self.must_send:
            return result
        if isinstance(result, BaseException):
            return without_frames(result) if self.brought <= KEPT_BYTES else None
        done = result.connection is None and result.content.is_eof()
        return result if done and self.brought <= KEPT_BYTES else None

    def measured(
        self, outcome: AttemptOutcome, result: ClientResponse | BaseException
    ) -> AttemptOutcome:
        """Note how much an attempt brought; what is too large can't be kept while the call waits.

        So a call that got such an answer or exception either ends with it at once, or lets go of it
        and is sent again.
        """
        if isinstance(result, BaseException):
            self.brought = error_bytes(result)
        else:
            self.brought = answer_bytes(result)
        # What the request remembers of the attempt: its answer, with all headers.
        self.request.response = None
        return outcome if self.brought <= KEPT_BYTES else outcome._replace(can_wait=False)

    def limits(self, now: float) -> tuple[float | None, float | None]:
        """Seconds that an attempt may take which begins now: by `attempt_timeout`, and by `until`.

        The first limit stands still while the attempt waits in the pool's queue.
        """
        if self.observed:
            return None, None
        timeout = (self.own or self.origin.config).attempt_timeout
        return timeout, None if self.until is None else self.until - now

    @property
    def method(self) -> str:
        """The request's method."""
        return self.request.method

    def follow(self, earlier: Run) -> None:
        """Go on with a call that a redirect led here."""
        self.started = earlier.started
        self.requests_before = earlier.sent
        self.idempotency_key = earlier.idempotency_key

    def put_key(self) -> None:
        """Put an Idempotency-Key on a POST or PATCH that has none: one for the whole call.

        After a redirect the key goes along to its own origin alone. To another origin nothing is
        sent, as nobody there has asked for it.
        """
        headers, place = self.request.headers, self.origin.name
        if self.request.method not in KEYED_METHODS or IDEMPOTENCY_KEY in headers:
            return
        if not self.requests_before:
            self.idempotency_key = str(uuid.uuid4()), place
        if self.idempotency_key is not None and self.idempotency_key[1] == place:
            headers[IDEMPOTENCY_KEY] = self.idempotency_key[0]
