"""The faults: a table of plain values, by name. A script is a tuple of their names.

What stands here is what docs/FAULTS.md says (`python -m tests.chaos`); test_every_fault.py holds
each line of it against aiohttp alone and against the middleware.
"""

from __future__ import annotations

from typing import Final

import aiohttp

from ..kit.faults import Action, close, hang, reset
from . import tls
from .actions import answer, deaf, early, handshake, hello, interrupted, on_and_on, onwards, said
from .fault import RETRIED, Errors, Fault

__all__ = (
    "ANSWERS",
    "ENDLESS",
    "FAULTS",
    "HANDSHAKES",
    "OK",
    "REDIRECT",
    "RETRIED",
    "Fault",
    "Script",
)

#: Names of faults, one for each attempt; the last one again and again.
Script = tuple[str, ...]

_LOST: Final[Errors] = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
    aiohttp.ClientConnectionResetError,
)
_TIMEOUT: Final[Errors] = (TimeoutError,)


OK: Final = "ok"
REDIRECT: Final = "307"
#: A header of answers whose body the caller does not wait for.
ENDLESS: Final = "X-Endless"

_BEFORE: Final = {
    "no such name": Fault(
        says="The host's name can't be resolved.",
        place="name",
        raises=(aiohttp.ClientConnectorDNSError,),
    ),
    "resolver hangs": Fault(
        says="Nobody says what the host's address is.", place="name", raises=_TIMEOUT, endless=True
    ),
    "refused": Fault(
        says="The connection is refused.", place="name", raises=(aiohttp.ClientConnectorError,)
    ),
    "FIN at accept": Fault(
        says="The connection is closed as soon as it is there.",
        place="connection",
        action=close(at_accept=True),
        raises=_LOST,
    ),
    "RST at accept": Fault(
        says="The connection is reset as soon as it is there.",
        place="connection",
        action=reset(at_accept=True),
        raises=_LOST,
    ),
    "deaf": Fault(
        says="The connection is accepted, and nothing is read or written.",
        place="connection",
        action=deaf(),
        raises=_TIMEOUT,
        endless=True,
    ),
    "FIN in the upload": Fault(
        says="The connection is closed in the middle of the upload.",
        action=interrupted("close"),
        raises=_LOST,
    ),
    "RST in the upload": Fault(
        says="The connection is reset in the middle of the upload.",
        action=interrupted("reset"),
        raises=_LOST,
    ),
    "FIN": Fault(
        says="The request is taken, and the connection is closed.",
        action=close(),
        raises=(aiohttp.ServerDisconnectedError,),
    ),
    "RST": Fault(
        says="The request is taken, and the connection is reset.",
        action=reset(),
        raises=(aiohttp.ClientOSError,),
    ),
    "hangs": Fault(
        says="The request is taken, and never answered.",
        action=hang(),
        raises=_TIMEOUT,
        endless=True,
    ),
}

_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"
_HALF_A_HELLO: Final = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"


def _handshake(says: str, action: Action, *raises: type[Exception], endless: bool = False) -> Fault:
    return Fault(says=says, place="handshake", action=action, raises=raises, endless=endless)


#: What can happen to a handshake; only with https.
HANDSHAKES: Final = {
    "FIN in the handshake": _handshake(
        "The connection is closed in the TLS handshake.",
        hello(_HALF_A_HELLO, "close"),
        aiohttp.ClientConnectorError,
    ),
    "RST in the handshake": _handshake(
        "The connection is reset in the TLS handshake.",
        hello(_HALF_A_HELLO, "reset"),
        aiohttp.ClientConnectorError,
    ),
    "handshake hangs": _handshake(
        "The TLS handshake is begun and never goes on.",
        hello(_HALF_A_HELLO, "hang"),
        TimeoutError,
        endless=True,
    ),
    "no TLS": _handshake(
        "The port speaks HTTP without TLS.",
        hello(b"HTTP/1.1 400 Bad Request\r\n\r\n", "close"),
        aiohttp.ClientConnectorSSLError,
    ),
    "handshake alert": _handshake(
        "The server refuses the TLS handshake.",
        hello(_ALERT, "close"),
        aiohttp.ClientConnectorSSLError,
    ),
    "old TLS": _handshake(
        "The server has no version of TLS that the client takes.",
        handshake(tls.old),
        aiohttp.ClientConnectorError,
    ),
    "unknown authority": _handshake(
        "The certificate is from an authority that nobody trusts.",
        handshake(tls.untrusted),
        aiohttp.ClientConnectorCertificateError,
    ),
    "another name": _handshake(
        "The certificate is another host's.",
        handshake(tls.misnamed),
        aiohttp.ClientConnectorCertificateError,
    ),
    "expired": _handshake(
        "The certificate has expired.",
        handshake(tls.expired),
        aiohttp.ClientConnectorCertificateError,
    ),
}

_HALF_A_LINE: Final = b"HTTP/1.1 20"
_HALF_A_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Le"
_GARBAGE: Final[Errors] = (aiohttp.ClientResponseError,)

_IN_HEAD: Final = {
    "FIN in the status line": Fault(
        says="The connection is closed in the middle of the status line.",
        action=said(_HALF_A_LINE, "close"),
        raises=(aiohttp.ServerDisconnectedError,),
    ),
    "RST in the status line": Fault(
        says="The connection is reset in the middle of the status line.",
        action=said(_HALF_A_LINE, "reset"),
        raises=(aiohttp.ClientOSError,),
    ),
    "FIN in the head": Fault(
        says="The connection is closed in the middle of the answer's head.",
        action=said(_HALF_A_HEAD, "close"),
        raises=(aiohttp.ServerDisconnectedError,),
    ),
    "RST in the head": Fault(
        says="The connection is reset in the middle of the answer's head.",
        action=said(_HALF_A_HEAD, "reset"),
        raises=(aiohttp.ClientOSError,),
    ),
    "half a head": Fault(
        says="Half a head comes, and then nothing.",
        action=said(_HALF_A_HEAD, "hang"),
        raises=_TIMEOUT,
        endless=True,
    ),
    "dripping head": Fault(
        says="The head comes byte by byte, and never to its end.",
        action=on_and_on(b"HTTP/1.1 200 OK\r\nX-Drip: ", lambda _: b"x", 0.005),
        raises=_TIMEOUT,
        endless=True,
    ),
    "garbage": Fault(
        says="The answer is no HTTP.",
        action=said(b"\x16\x03\x01 what is this?\r\n\r\n", "close"),
        raises=_GARBAGE,
    ),
    "another protocol": Fault(
        says="The answer is in a version of HTTP that was not asked for.",
        action=said(b"HTTP/9.9 OK at last\r\n\r\n", "close"),
        raises=_GARBAGE,
    ),
    "long header": Fault(
        says="A header line is longer than aiohttp takes.",
        action=said(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", "close"),
        raises=_GARBAGE,
    ),
    "endless header": Fault(
        says="A header line has no end.",
        action=on_and_on(b"HTTP/1.1 200 OK\r\nX: ", lambda _: b"x" * 4096),
        raises=_GARBAGE,
    ),
    "endless headers": Fault(
        says="There is always another header line, which older releases of aiohttp do not mind.",
        action=on_and_on(
            b"HTTP/1.1 200 OK\r\n",
            lambda n: b"".join(b"X-%d-%d: x\r\n" % (n, i) for i in range(50)),
            0.001,
        ),
        raises=(aiohttp.ClientResponseError, TimeoutError),
        endless=True,
    ),
    "two lengths": Fault(
        says="The head has two different Content-Lengths.",
        action=said(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nno!\n", "close"
        ),
        raises=_GARBAGE,
    ),
    "negative length": Fault(
        says="The Content-Length is negative.",
        action=said(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "close"),
        raises=_GARBAGE,
    ),
    "longer than it says": Fault(
        says="What follows an answer of the promised length, in the same packet, is no HTTP.",
        action=said(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyes!and more\r\n\r\n", "close"),
        raises=_GARBAGE,
    ),
    "broken chunk": Fault(
        says="A chunk of the body, in the same packet as the head, has no length.",
        action=said(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nnone!\r\n", "close"
        ),
        raises=_GARBAGE,
    ),
    "continue for ever": Fault(
        says="It is told to continue again and again, and never answered.",
        action=on_and_on(b"", lambda _: b"HTTP/1.1 100 Continue\r\n\r\n", 0.005),
        raises=_TIMEOUT,
        endless=True,
    ),
    "continue and FIN": Fault(
        says="It is told to continue, and the connection is closed.",
        action=said(b"HTTP/1.1 100 Continue\r\n\r\n", "close"),
        raises=(aiohttp.ServerDisconnectedError,),
    ),
}


def _after_head(status: int) -> dict[str, Fault]:
    """The head of an answer comes, and its body does not, or not as promised."""
    line = b"HTTP/1.1 %d Scripted\r\nConnection: close\r\n" % status
    longer = line + b"Content-Length: 100\r\n\r\n"
    on = line + ENDLESS.encode() + b": yes\r\n"

    def fault(says: str, action: Action, *, endless: bool = False, resets: bool = False) -> Fault:
        return Fault(
            says=f"{status}; {says}", action=action, status=status, endless=endless, resets=resets
        )

    faults = {
        "FIN after the head": fault(
            "the connection is closed before the body.", said(longer, "close")
        ),
        "RST after the head": fault(
            "the connection is reset before the body.", said(longer, "reset"), resets=True
        ),
        "FIN in the body": fault(
            "the body is cut short: its Content-Length is too long.",
            said(longer, "close", b"half"),
        ),
        "RST in the body": fault(
            "the connection is reset in the body.", said(longer, "reset", b"half"), resets=True
        ),
        "half a body": fault(
            "half of the body comes, and then nothing.",
            said(on + b"Content-Length: 100\r\n\r\n", "hang", b"half"),
            endless=True,
        ),
        "endless body": fault(
            "the body has no end.",
            on_and_on(
                on + b"Transfer-Encoding: chunked\r\n\r\n",
                lambda _: b"4\r\nmore\r\n",
                0.001,
                body=True,
            ),
            endless=True,
        ),
        "endless flood": fault(
            "the body has no end and comes as fast as it can.",
            on_and_on(on + b"\r\n", lambda _: b"x" * 65536, body=True),
            endless=True,
        ),
        "dripping body": fault(
            "the body comes byte by byte.",
            on_and_on(
                on + b"Content-Length: 100\r\n\r\n",
                lambda n: b"x" if n < 100 else b"",
                0.02,
                body=True,
            ),
            endless=True,
        ),
        "broken gzip": fault(
            "the body says that it is gzip, and is not.",
            said(line + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n", "close", b"none!"),
        ),
    }
    return {f"{status}, {name}": fault for name, fault in faults.items()}


_EARLY: Final = {
    f"early {status}, {how}": Fault(
        says=f"{status} in the middle of the upload, {then}.",
        action=early(status, how),
        status=status,
        resets=how == "reset",
    )
    for status in (503, 200)
    for how, then in (
        ("read", "the rest of which is read"),
        ("close", "and the connection is closed"),
        ("reset", "and the connection is reset"),
        ("stall", "the rest of which is not read"),
    )
}

_COMPLETE: Final = {
    "503": Fault(says="503, complete.", action=answer(503, b"sorry"), status=503),
    "500 of 300 kB": Fault(
        says="500 with a body too large to be worth reading.",
        action=answer(500, bytes(300_000)),
        status=500,
    ),
    "429": Fault(
        says="429 with Retry-After.", action=answer(429, b"", "Retry-After: 1\r\n"), status=429
    ),
}

#: All faults, in the order in which an attempt would meet them.
FAULTS: Final[dict[str, Fault]] = {
    **_BEFORE,
    **_IN_HEAD,
    **_EARLY,
    **_after_head(503),
    **_after_head(200),
    **_COMPLETE,
}
#: The faults, and two answers that are none.
ANSWERS: Final[dict[str, Fault]] = {
    **FAULTS,
    **HANDSHAKES,
    OK: Fault(says="200, complete.", action=answer(200), status=200),
    REDIRECT: Fault(says="On to another path.", action=onwards(), status=307),
}
