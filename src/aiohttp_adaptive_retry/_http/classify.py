"""What an answer or an exception says about its origin, made into an `AttemptOutcome` here only."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Final

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, payload

from .._errors import error_type, is_answer
from .._policy.protocol import AttemptOutcome, Reason
from ..config import AdaptiveConfig
from .body import is_replayable
from .pool import was_used_before
from .proof import is_unprocessed
from .retry_after import ServerWord, heard, may_override
from .verdict import Verdict

_IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_LIMITED: Final = 429
# GitHub limits so, among others.
_FORBIDDEN: Final = 403
# What an overloaded server answers, the gateway before one, and Anthropic.
_OVERLOADED: Final = frozenset({503, 504, 529})
# Connecting failed for a reason that the next attempt will meet again.
_PERMANENT: Final = (
    aiohttp.ClientConnectorCertificateError,
    aiohttp.ClientSSLError,
    aiohttp.ServerFingerprintMismatch,
    ssl.SSLCertVerificationError,
)
# A name is wrong, or has no address. EAI_AGAIN is another matter: the resolver itself failed.
_NO_SUCH_NAME: Final = frozenset(
    getattr(socket, name)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY", "EAI_FAMILY", "EAI_SERVICE")
    if hasattr(socket, name)
)
# The same by c-ares, which aiodns asks: ARES_ENODATA and ARES_ENOTFOUND.
_NO_SUCH_NAME_ARES: Final = frozenset({1, 4})
# There is no such socket, or nobody may connect to it.
_NO_WAY: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENAMETOOLONG,
        errno.EACCES,
        errno.EPERM,
        errno.EPROTOTYPE,
        errno.EAFNOSUPPORT,
    }
)
# A connection ends so that has been made. ETIMEDOUT is the kernel's: nobody acknowledged.
_CUT: Final = frozenset(
    {errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE, errno.ESHUTDOWN, errno.ETIMEDOUT}
)
# What the network, or the server at its other end, does to a request. An answer that can't be
# parsed is damage, as on any connection.
_TRANSIENT: Final = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    aiohttp.ClientResponseError,
)


class Classifier:
    """Says what attempts came to, by the configuration. O(1)."""

    __slots__ = ("_resends", "_retry_exceptions", "_retry_methods", "retry_statuses")

    def __init__(self, config: AdaptiveConfig) -> None:
        self.retry_statuses = frozenset(config.retry_statuses)
        self._retry_methods = frozenset(config.retry_methods)
        self._retry_exceptions = tuple(config.retry_exceptions)
        self._resends = config.resend == "proven"

    def is_failure(self, response: ClientResponse) -> bool:
        """Whether an answer counts as a failure: by its status, or since its headers say so."""
        status, headers = response.status, response.headers
        if status in self.retry_statuses:
            return True
        if status < 400 or (status != _FORBIDDEN and not may_override(headers)):
            return False
        return self._fails(status, heard(status, headers))

    def _fails(self, status: int, word: ServerWord) -> bool:
        if status in self.retry_statuses:
            return True
        if status == _FORBIDDEN and _LIMITED in self.retry_statuses and _is_limit(word):
            return True
        return word.again is True

    def is_wanted_again(self, response: ClientResponse) -> bool:
        """Whether the headers of an answer make it a failure. Never raises."""
        try:
            return self.is_failure(response)
        except Exception:
            # An answer that is not aiohttp's.
            return False

    def obstacle(
        self,
        request: ClientRequest,
        body: payload.Payload | bytes | None,
        result: ClientResponse | BaseException,
        outcome: AttemptOutcome,
        handler: ClientHandlerType,
        idempotent: bool | None = None,
    ) -> Reason | None:
        """Why a request can't be sent again, whatever the policy says, if so.

        `body` is the one at the start of the attempt, None if nobody looked. `result` is what the
        attempt by `handler` brought, and `outcome` what that said. `idempotent` is the caller's
        word.
        """
        if idempotent is None:
            idempotent = (
                request.method in self._retry_methods
                or _IDEMPOTENCY_KEY in request.headers
                or (self._resends and is_unprocessed(request, handler, result))
            )
        if not idempotent:
            return "not_idempotent"
        if (body or request.body) and not is_replayable(request, body):
            return "body_not_replayable"
        if outcome.limited and outcome.retry_after is None:
            status = getattr(result, "status", 0)
            if status == _FORBIDDEN and heard(status, getattr(result, "headers", None))[0] is None:
                # A limit of which nobody knows when it ends is no matter of seconds.
                return "limited"
        return None

    def response(self, response: ClientResponse, latency: float) -> AttemptOutcome:
        """What an answer says that is a failure."""
        status = response.status
        return _said(status, heard(status, response.headers), latency)._replace(
            # An answer that is all here holds no connection: it can be read after a wait.
            can_wait=response.connection is None and response.content.is_eof(),
        )

    def verdict(
        self, verdict: Verdict, response: ClientResponse, latency: float
    ) -> AttemptOutcome | None:
        """What an answer says by its user's verdict; None if nothing."""
        if verdict.kind == "ignore":
            return None
        if verdict.kind == "success":
            return AttemptOutcome(True, latency=latency)
        outcome = self.response(response, latency)
        # What a server asks for is only ever lengthened.
        wait = max(verdict.after or 0.0, outcome.retry_after or 0.0) or None
        return outcome._replace(
            error_type=verdict.name or outcome.error_type,
            # A limit that names no moment would be handed back, but for 429.
            limited=wait is not None or response.status == _LIMITED,
            retry_after=wait,
            replayable=verdict.kind == "retry",
        )

    def error(
        self, error: BaseException, latency: float, request: ClientRequest | None = None
    ) -> AttemptOutcome | None:
        """What an exception says; None if it says nothing about the server.

        A bare TimeoutError is the caller's own deadline, and CancelledError the caller leaving.
        What the network did not raise came from another middleware or from the caller's body.
        `request` is the one that was sent, for what is to be known of its connection.
        """
        if type(error) is TimeoutError:
            return None
        named = isinstance(error, self._retry_exceptions)
        if isinstance(error, aiohttp.ClientResponseError) and is_answer(error):
            return self._answer(error, latency, named)
        if named:
            replayable = True
        elif isinstance(error, _PERMANENT):
            replayable = False
        elif isinstance(error, aiohttp.ClientConnectorError):
            replayable = not _can_not_mend(error.os_error)
        elif isinstance(error, _TRANSIENT):
            if _is_of_the_body(error):
                return None
            replayable = True
        elif isinstance(error, OSError):
            # Of a connector that is not aiohttp's, as one through SOCKS, or of another middleware.
            replayable = not _can_not_mend(error)
        else:
            return None
        # A bare TimeoutError has gone above: all others are a server's or a proxy's silence.
        timed_out = isinstance(error, TimeoutError)
        return AttemptOutcome(
            False,
            error_type(error),
            latency,
            no_response=timed_out or isinstance(error, aiohttp.ClientConnectorError),
            overload=timed_out,
            reused_connection=request is not None and _cut(error) and was_used_before(request),
            replayable=replayable,
        )

    def _answer(
        self, error: aiohttp.ClientResponseError, latency: float, named: bool
    ) -> AttemptOutcome:
        """What an answer says that came as an exception, as it would say it by itself.

        `named` is whether the exception is one of `retry_exceptions`.
        """
        word = heard(error.status, error.headers)
        fails = named or self._fails(error.status, word)
        if isinstance(error, aiohttp.ClientHttpProxyError):
            # Without the tunnel nobody has answered, whatever the proxy says of it.
            outcome = _said(error.status, word, latency)
            return outcome._replace(replayable=fails and outcome.replayable)
        # A middleware after ours has made an exception of the answer.
        return (
            _said(error.status, word, latency) if fails else AttemptOutcome(True, latency=latency)
        )


def _said(status: int, word: ServerWord, latency: float) -> AttemptOutcome:
    """What a failure says by its status and its headers."""
    wait = word.seconds or None
    return AttemptOutcome(
        False,
        str(status),
        latency,
        overload=status in _OVERLOADED,
        limited=status == _LIMITED
        or wait is not None
        or (status == _FORBIDDEN and _is_limit(word)),
        retry_after=wait,
        replayable=word.again is not False,
    )


def _is_limit(word: ServerWord) -> bool:
    """Whether an answer 403 is a limit: it names a time, or says that nothing is left."""
    return word.seconds is not None or word.exhausted


def _is_of_the_body(error: BaseException) -> bool:
    """Whether the caller's body raised what aiohttp reports as a connection's error."""
    if type(error) is not aiohttp.ClientConnectionError:
        return False
    return error.__cause__ is not None and not isinstance(error.__cause__, OSError)


def _can_not_mend(reason: OSError) -> bool:
    """Whether connecting failed for a reason that the next attempt will meet again."""
    if isinstance(reason, socket.gaierror):
        return reason.errno in _NO_SUCH_NAME
    if reason.errno is None:
        # aiohttp's resolver on aiodns passes on the text alone, and the error as its cause.
        cause = reason.__cause__
        return (
            cause is not None
            and type(cause).__module__.partition(".")[0] == "aiodns"
            and cause.args[:1] != ()
            and cause.args[0] in _NO_SUCH_NAME_ARES
        )
    # OpenSSL has numbers of its own.
    return reason.errno in _NO_WAY and not isinstance(reason, ssl.SSLError)


def _cut(error: BaseException) -> bool:
    """Whether a connection that was there got lost before an answer began."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        # With half a head the message is what could be read of it.
        return isinstance(error.message, str)
    if isinstance(error, aiohttp.ClientConnectorError):
        return False
    if isinstance(error, aiohttp.ClientOSError):
        # Writing the body fails without a number of its own; so may reading the caller's file.
        return error.errno in _CUT or isinstance(error.__cause__, ConnectionError)
    return isinstance(error, ConnectionError)
