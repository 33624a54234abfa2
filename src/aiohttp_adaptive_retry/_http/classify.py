"""What an answer or an exception says about its origin, made into an `AttemptOutcome` here only."""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import ClientRequest, ClientResponse, hdrs, payload

from .._errors import error_type
from .._policy.protocol import AttemptOutcome, Reason
from ..config import AdaptiveConfig
from .body import is_replayable
from .retry_after import parse_retry_after

#: The largest answer that a waiting call keeps, bytes: an error page.
KEPT_BYTES: Final = 16 * 1024

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_LIMITED: Final = 429
# What an overloaded server answers, and the gateway before one.
_OVERLOADED: Final = frozenset({503, 504})
# Connecting failed for a reason that the next attempt will meet again.
_PERMANENT: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientSSLError,
    aiohttp.ServerFingerprintMismatch,
)
# What the network, or the server at its other end, does to a request.
_TRANSIENT: Final = (
    aiohttp.ClientOSError,
    aiohttp.ServerConnectionError,  # disconnected, and all of its own time-outs
    aiohttp.ClientConnectionResetError,
    aiohttp.ClientPayloadError,
    ConnectionError,
)


class Classifier:
    """Says what attempts came to, by the configuration. O(1)."""

    __slots__ = ("_retry_methods", "retry_statuses")

    def __init__(self, config: AdaptiveConfig) -> None:
        self.retry_statuses = frozenset(config.retry_statuses)
        self._retry_methods = frozenset(config.retry_methods)

    def obstacle(
        self, request: ClientRequest, body: payload.Payload | bytes | None
    ) -> Reason | None:
        """Why a request can't be sent again, whatever its attempt came to, if so.

        `body` is the one at the start of the attempt, None if nobody looked.
        """
        if request.method not in self._retry_methods and _IDEMPOTENCY_KEY not in request.headers:
            return "not_idempotent"
        if (body or request.body) and not is_replayable(request, body):
            return "body_not_replayable"
        return None

    def response(self, response: ClientResponse, latency: float) -> AttemptOutcome:
        """What an answer with one of `retry_statuses` says."""
        status, headers, retry_after = response.status, response.headers, None
        if hdrs.RETRY_AFTER in headers:
            retry_after = parse_retry_after(headers[hdrs.RETRY_AFTER], headers.get(hdrs.DATE))
        content, length = response.content, response.content_length
        return AttemptOutcome(
            False,
            str(status),
            latency,
            overload=status in _OVERLOADED,
            limited=status == _LIMITED or retry_after is not None,
            retry_after=retry_after,
            # A small answer that is all here holds no connection: it can be read after a wait.
            can_wait=response.connection is None
            and content.is_eof()
            and (content.total_bytes if length is None else length) <= KEPT_BYTES,
        )

    def error(self, error: BaseException, latency: float) -> AttemptOutcome | None:
        """What an exception says; None if it says nothing about the server.

        A bare TimeoutError is the caller's own deadline, and CancelledError the caller leaving.
        What the network did not raise came from another middleware or from the caller's body.
        """
        if isinstance(error, _PERMANENT):
            replayable = False
        elif isinstance(error, _TRANSIENT):
            replayable = True
        elif isinstance(error, aiohttp.ClientHttpProxyError):
            replayable = error.status in self.retry_statuses
        elif isinstance(error, aiohttp.ClientResponseError):
            # In a handler this is an answer that can't be parsed: damage, as on any connection.
            replayable = True
        else:
            return None
        timed_out = isinstance(error, aiohttp.ServerTimeoutError)
        return AttemptOutcome(
            False,
            error_type(error),
            latency,
            no_response=timed_out or isinstance(error, aiohttp.ClientConnectorError),
            overload=timed_out,
            replayable=replayable,
        )
