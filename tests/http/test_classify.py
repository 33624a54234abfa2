"""What answers and exceptions say, in one table; and that nothing else in the package judges."""

from __future__ import annotations

import ast
import asyncio
import errno
import inspect
import socket
import ssl
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientRequest, ClientResponse
from aiohttp.client_reqrep import ConnectionKey
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

import aiohttp_adaptive_retry
from aiohttp_adaptive_retry import AdaptiveConfig, OriginUnavailable
from aiohttp_adaptive_retry._http.classify import Classifier
from aiohttp_adaptive_retry.policy import AttemptOutcome

from ..kit.fakes import Request, Response

CLASSIFIER = Classifier(AdaptiveConfig())
KEY = ConnectionKey("h.example", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(
    URL("https://h.example/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("https://h.example/")
)


def made(kind: type[BaseException]) -> BaseException:
    """An exception as aiohttp raises it, whatever it is made of."""
    make = cast(Any, kind)
    if issubclass(kind, aiohttp.ClientConnectorCertificateError):
        return cast(BaseException, make(KEY, ssl.SSLCertVerificationError("unknown issuer")))
    if issubclass(kind, aiohttp.ClientConnectorError):
        return cast(BaseException, make(KEY, OSError(111, "refused")))
    if issubclass(kind, aiohttp.ClientResponseError):
        return cast(BaseException, make(INFO, (), status=400))
    if issubclass(kind, aiohttp.ServerFingerprintMismatch):
        return cast(BaseException, make(b"a", b"b", "h.example", 443))
    if issubclass(kind, aiohttp.InvalidURL):
        return cast(BaseException, make("nonsense"))
    if issubclass(kind, aiohttp.WebSocketError):
        return cast(BaseException, make(1002, "protocol error"))
    return cast(BaseException, make())


# What an exception says: that nobody answered, that the server is overloaded, that it will be so
# again; None: nothing about the server.
LOST: dict[str, bool] = {}
NO_RESPONSE = {"no_response": True}
TIMED_OUT = {"no_response": True, "overload": True}
PERMANENT = {"replayable": False}
ANSWER = {"ok": True}
NOT_CONNECTED_FOR_EVER = {"no_response": True, "replayable": False}
Said = dict[str, bool] | None

#: Each exception class that aiohttp exports.
AIOHTTPS: dict[str, Said] = {
    # The connection could not be made.
    "ClientConnectorError": NO_RESPONSE,
    "ClientConnectorDNSError": NO_RESPONSE,
    "ClientProxyConnectionError": NO_RESPONSE,
    "ClientConnectorCertificateError": NOT_CONNECTED_FOR_EVER,
    "ClientConnectorSSLError": NOT_CONNECTED_FOR_EVER,
    "ClientSSLError": NOT_CONNECTED_FOR_EVER,
    "ServerFingerprintMismatch": PERMANENT,
    # It was lost.
    "ClientConnectionError": LOST,
    "ClientOSError": LOST,
    "ClientConnectionResetError": LOST,
    "ServerConnectionError": LOST,
    "ServerDisconnectedError": LOST,
    "ClientPayloadError": LOST,
    # Nothing came in time.
    "ServerTimeoutError": TIMED_OUT,
    "ConnectionTimeoutError": TIMED_OUT,
    "SocketTimeoutError": TIMED_OUT,
    # An answer, made an exception by a middleware after ours: 400 is not one of `retry_statuses`.
    "ClientResponseError": ANSWER,
    "ContentTypeError": ANSWER,
    "TooManyRedirects": ANSWER,
    "WSServerHandshakeError": ANSWER,
    # A proxy's answer: 400 is not one of `retry_statuses`.
    "ClientHttpProxyError": PERMANENT,
    # Not the network's: of the caller, of another middleware, or of what reads an answer.
    "ClientError": None,
    "InvalidURL": None,
    "InvalidUrlClientError": None,
    "InvalidUrlRedirectClientError": None,
    "NonHttpUrlClientError": None,
    "NonHttpUrlRedirectClientError": None,
    "RedirectClientError": None,
    "UploadAbortedError": None,
    "EofStream": None,
    "WebSocketError": None,
    "WSMessageTypeError": None,
    "BadContentDispositionHeader": None,
    "BadContentDispositionParam": None,
}
OTHERS: list[tuple[BaseException, Said]] = [
    (ConnectionRefusedError(), LOST),
    (ConnectionResetError(), LOST),
    (ConnectionAbortedError(), LOST),
    (BrokenPipeError(), LOST),
    # The caller's own deadline, and the caller leaving.
    (TimeoutError(), None),
    (asyncio.CancelledError(), None),
    (KeyboardInterrupt(), None),
    (SystemExit(), None),
    # Of a connector that is not aiohttp's, or of another middleware.
    (OSError(28, "No space left on device"), LOST),
    (OSError(), LOST),
    (FileNotFoundError(), LOST),
    (FileNotFoundError(errno.ENOENT, "missing"), PERMANENT),
    (PermissionError(errno.EACCES, "denied"), PERMANENT),
    (socket.gaierror(socket.EAI_AGAIN, "later"), LOST),
    (socket.gaierror(socket.EAI_NONAME, "no such name"), PERMANENT),
    (ssl.SSLError(), LOST),
    (ssl.SSLCertVerificationError(), PERMANENT),
    (type("ProxyTimeoutError", (TimeoutError,), {})(), TIMED_OUT),
    (ValueError(), None),
    (RuntimeError("Session is closed"), None),
    # Ours, of another middleware of this kind behind this one.
    (OriginUnavailable(), None),
    (aiohttp.ClientHttpProxyError(INFO, (), status=503), {"overload": True}),
    (aiohttp.ClientHttpProxyError(INFO, (), status=502), LOST),
    (aiohttp.ClientHttpProxyError(INFO, (), status=429), {"limited": True}),
    (aiohttp.ClientHttpProxyError(INFO, (), status=403), PERMANENT),
    (aiohttp.ClientHttpProxyError(INFO, (), status=407), PERMANENT),
]


def said(error: BaseException, name: str, expected: Said) -> None:
    outcome = CLASSIFIER.error(error, 0.25)
    if expected is None:
        assert outcome is None
    elif expected == ANSWER:
        assert outcome == AttemptOutcome(True, latency=0.25)
    else:
        assert outcome == AttemptOutcome(False, name, 0.25, **expected)


def exported() -> set[str]:
    """The names of the exception classes that aiohttp exports."""
    found = {name: getattr(aiohttp, name) for name in aiohttp.__all__}
    return {
        name
        for name, value in found.items()
        if inspect.isclass(value) and issubclass(value, BaseException)
    }


def test_every_exported_exception_is_in_the_table() -> None:
    """A release of aiohttp with a new one has to be looked at; older ones lack the newest."""
    assert exported() <= set(AIOHTTPS)
    assert set(AIOHTTPS) - exported() <= {"UploadAbortedError"}


@pytest.mark.parametrize("name", sorted(exported()))
def test_what_an_exception_of_aiohttp_says(name: str) -> None:
    """Whether it is evidence, of what, and whether another attempt is possible."""
    error = made(getattr(aiohttp, name))
    said(error, "400" if name == "ClientHttpProxyError" else name, AIOHTTPS[name])


@pytest.mark.parametrize(
    ("error", "expected"), OTHERS, ids=lambda value: type(value).__name__.lower()
)
def test_what_another_exception_says(error: BaseException, expected: Said) -> None:
    """What the network does, and nothing that came from anybody else."""
    status = getattr(error, "status", None)
    said(error, type(error).__name__ if status is None else str(status), expected)


@pytest.mark.parametrize(
    ("reason", "replayable"),
    [
        (OSError(errno.ECONNREFUSED, "refused"), True),
        (OSError(errno.ENETUNREACH, "unreachable"), True),
        (OSError(errno.EHOSTUNREACH, "unreachable"), True),
        (OSError(errno.EADDRNOTAVAIL, "no port is free"), True),
        (OSError(errno.EMFILE, "too many files"), True),
        (OSError(None, "no host"), True),
        (OSError(errno.ENOENT, "missing"), False),
        (OSError(errno.ENOTDIR, "no folder"), False),
        (OSError(errno.EACCES, "denied"), False),
        (OSError(errno.EPERM, "denied"), False),
        (OSError(errno.EAFNOSUPPORT, "no such family"), False),
        # OpenSSL's own numbers: these are no ENOENT and no EPERM.
        (ssl.SSLWantReadError(2, "more"), True),
        (ssl.SSLEOFError(8, "the end"), True),
        (ssl.SSLError(1, "broken"), True),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
        (socket.gaierror(socket.EAI_AGAIN, "later"), True),
        (socket.gaierror(socket.EAI_FAIL, "the resolver"), True),
    ],
    ids=repr,
)
@pytest.mark.parametrize(
    "kind",
    [
        aiohttp.ClientConnectorError,
        aiohttp.ClientConnectorDNSError,
        aiohttp.ClientProxyConnectionError,
    ],
)
def test_why_a_connection_could_not_be_made(
    kind: type[aiohttp.ClientConnectorError], reason: OSError, replayable: bool
) -> None:
    """What is wrong with the address, the file or the rights stays wrong."""
    outcome = CLASSIFIER.error(kind(KEY, reason), 0.25)
    assert outcome == AttemptOutcome(
        False, kind.__name__, 0.25, no_response=True, replayable=replayable
    )


@pytest.mark.parametrize(
    ("error", "cut"),
    [
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ServerDisconnectedError("Server disconnected"), True),
        (aiohttp.ServerDisconnectedError(cast(Any, object())), False),
        (aiohttp.ClientOSError(errno.ECONNRESET, "reset"), True),
        (aiohttp.ClientOSError(errno.EPIPE, "broken pipe"), True),
        (aiohttp.ClientOSError(errno.ETIMEDOUT, "no acknowledgement"), True),
        (aiohttp.ClientOSError(errno.EIO, "the caller's disk"), False),
        (aiohttp.ClientOSError(None, "unknown"), False),
        (aiohttp.ClientConnectionResetError("closing"), True),
        (aiohttp.ClientConnectorError(KEY, OSError(errno.ECONNRESET, "reset")), False),
        (aiohttp.SocketTimeoutError(), False),
        (aiohttp.ClientPayloadError(), False),
    ],
    # Without an address, which would differ from one test process to the next.
    ids=lambda value: repr(value).partition(" object at")[0],
)
@pytest.mark.parametrize("used", [False, True])
def test_a_used_connection_that_is_lost(error: BaseException, cut: bool, used: bool) -> None:
    """It must have been used before, and lost before an answer began."""
    request: Any = SimpleNamespace(
        response=SimpleNamespace(_protocol=SimpleNamespace(_adaptive_retry_used=used))
    )
    outcome = CLASSIFIER.error(error, 0.25, request)
    assert outcome is not None
    assert outcome.reused_connection is (cut and used)


@pytest.mark.parametrize(
    "request_",
    [None, SimpleNamespace(), SimpleNamespace(response=None), SimpleNamespace(response=object())],
    ids=["none", "no response", "no answer", "no protocol"],
)
def test_a_connection_that_nobody_knows(request_: Any) -> None:
    """Where aiohttp does not tell, the connection counts as a new one."""
    outcome = CLASSIFIER.error(aiohttp.ServerDisconnectedError(), 0.25, request_)
    assert outcome == AttemptOutcome(False, "ServerDisconnectedError", 0.25)


@pytest.mark.parametrize("name", sorted(name for name in AIOHTTPS if AIOHTTPS[name] == LOST))
def test_a_class_below_one_of_these_says_the_same(name: str) -> None:
    """Under its own name."""
    kind = type("Special", (getattr(aiohttp, name),), {})
    said(made(kind), "Special", LOST)


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (500, {}, {}),
        (502, {}, {}),
        (408, {}, {}),
        (503, {}, {"overload": True}),
        (504, {}, {"overload": True}),
        (429, {}, {"limited": True}),
        (429, {"Retry-After": "7"}, {"limited": True, "retry_after": 7.0}),
        (429, {"Retry-After": "soon"}, {"limited": True}),
        (503, {"Retry-After": "7"}, {"overload": True, "limited": True, "retry_after": 7.0}),
        (500, {"Retry-After": "7"}, {"limited": True, "retry_after": 7.0}),
        (503, {"Retry-After": "0"}, {"overload": True}),
        (529, {}, {"overload": True}),
        (520, {}, {}),
        (524, {}, {}),
        (403, {"Retry-After": "7"}, {"limited": True, "retry_after": 7.0}),
        (403, {"Retry-After": "0"}, {"limited": True}),
        (403, {"X-RateLimit-Remaining": "0"}, {"limited": True}),
        (503, {"X-RateLimit-Remaining": "0"}, {"overload": True}),
        (
            500,
            {"RateLimit-Remaining": "0", "RateLimit-Reset": "7"},
            {"limited": True, "retry_after": 7.0},
        ),
        (500, {"x-should-retry": "false"}, {"replayable": False}),
        (500, {"grpc-retry-pushback-ms": "-1"}, {"replayable": False}),
        (409, {"x-should-retry": "true"}, {}),
        (
            503,
            {
                "Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT",
                "Date": "Sun, 06 Nov 1994 08:49:30 GMT",
            },
            {"overload": True, "limited": True, "retry_after": 7.0},
        ),
    ],
)
def test_what_an_answer_says(
    status: int, headers: dict[str, str], expected: dict[str, Any]
) -> None:
    """Its status is its name; Retry-After makes any of these a limit."""
    response = cast(ClientResponse, Response(status, headers))
    outcome = CLASSIFIER.response(response, 0.25)
    assert outcome == AttemptOutcome(False, str(status), 0.25, **expected)


@pytest.mark.parametrize(
    ("connected", "arrived", "can_wait"),
    [(False, True, True), (True, True, False), (False, False, False)],
)
def test_which_answer_can_be_kept_through_a_wait(
    connected: bool, arrived: bool, can_wait: bool
) -> None:
    """One that is all here, and holds no connection. Whether it is too large is told elsewhere."""
    response: Any = SimpleNamespace(
        status=503,
        headers=CIMultiDict(),
        content=SimpleNamespace(is_eof=lambda: arrived),
        connection=object() if connected else None,
    )
    assert CLASSIFIER.response(response, 0.25).can_wait is can_wait


def test_an_error_of_the_callers_body() -> None:
    """aiohttp reports what a body raises as a connection's error; the cause tells them apart."""
    error = aiohttp.ClientConnectionError("Failed to send bytes")
    error.__cause__ = ValueError("of the generator")
    said(error, "", None)
    error.__cause__ = OSError("of the socket")
    said(error, "ClientConnectionError", LOST)


class Named(Exception):
    """Of an inner middleware."""


def test_exceptions_that_the_user_names() -> None:
    """They and the classes below them are transient, those of aiohttp too; a deadline is not."""
    kinds = (Named, aiohttp.ClientSSLError, OSError)
    classifier = Classifier(AdaptiveConfig(retry_exceptions=kinds))
    for error in (Named(), type("Below", (Named,), {})(), ssl.SSLCertVerificationError()):
        outcome = classifier.error(error, 0.25)
        assert outcome == AttemptOutcome(False, type(error).__name__, 0.25)
    assert classifier.error(TimeoutError(), 0.25) is None
    assert classifier.error(RuntimeError(), 0.25) is None
    assert CLASSIFIER.error(Named(), 0.25) is None


def stands_in_the_way(request: Request, body: bytes, answer: Response | None = None) -> str | None:
    """Why a request can't be sent again that was answered so, by 500 unless told otherwise."""
    response = cast(ClientResponse, answer or Response(500))
    outcome = CLASSIFIER.response(response, 0.25)
    sender: Any = None
    return CLASSIFIER.obstacle(cast(ClientRequest, request), body, response, outcome, sender)


@pytest.mark.parametrize(
    ("method", "header", "body", "obstacle"),
    [
        ("GET", None, b"", None),
        ("PUT", None, b"x", None),
        ("POST", None, b"", "not_idempotent"),
        ("PATCH", None, b"", "not_idempotent"),
        ("POST", "Idempotency-Key", b"x", None),
        ("POST", "idempotency-key", b"x", None),
        ("POST", "X-Idempotency", b"x", "not_idempotent"),
        ("get", None, b"", "not_idempotent"),
    ],
)
def test_what_stands_in_the_way_of_a_second_copy(
    method: str, header: str | None, body: bytes, obstacle: str | None
) -> None:
    """The method, unless the caller says by a header that a second copy does no harm."""
    request = Request(method=method)
    request.body = body
    if header is not None:
        request.headers[header] = "k"
    assert stands_in_the_way(request, body) == obstacle


def test_a_body_that_was_replaced_stands_in_the_way() -> None:
    """A middleware after ours would wrap, compress or read once more what it has put there."""
    request = Request(method="PUT")
    request.body = b"compressed"
    assert stands_in_the_way(request, b"plain") == "body_not_replayable"


#: Who else names aiohttp's exception classes, which, and why that is no judging of an attempt.
ELSEWHERE = {
    "_errors": {
        # Our own error is one of aiohttp's.
        "ClientError",
        # What an error is called, and which texts of errors hold what a server sent.
        "ClientResponseError",
        "ServerDisconnectedError",
        "InvalidURL",
    },
    # What proves that nobody has processed a request, whatever the attempt came to.
    "_http/proof": {
        "ClientConnectorError",
        "ClientHttpProxyError",
        "ClientResponseError",
        "ConnectionTimeoutError",
    },
    # What aiohttp itself answers with a second run, which is aiohttp's rule and not ours.
    "_http/replay": {"ClientConnectorError", "ClientOSError", "ServerDisconnectedError"},
    # How the rest of an answer that is let go of ends says nothing more.
    "_http/release": {"ClientError"},
    # What aiohttp itself raises for a closed session, where a call has nothing else to end with.
    "_http/retries": {"ClientConnectionError"},
    # It is raised there, and judged like aiohttp's own.
    "_http/attempt": {"ServerTimeoutError"},
}


def test_nothing_else_judges() -> None:
    """aiohttp's exception classes are named where they are judged, and for a reason elsewhere."""
    package = Path(aiohttp_adaptive_retry.__file__).parent
    named: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        module = path.relative_to(package).with_suffix("").as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = set[str]()
            if isinstance(node, ast.Attribute):
                names = {node.attr} if ast.unparse(node.value) == "aiohttp" else names
            elif isinstance(node, ast.ImportFrom) and not node.level:
                module_of = (node.module or "").partition(".")[0]
                names = {alias.name for alias in node.names} if module_of == "aiohttp" else names
            if names & exported():
                named.setdefault(module, set()).update(names & exported())
    assert named.pop("_http/classify")
    assert named == ELSEWHERE
