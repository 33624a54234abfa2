"""Errors: what they are called, their texts with nothing secret in them, and the one of our own."""

from __future__ import annotations

import re
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError


class OriginUnavailable(aiohttp.ClientError):
    """A first attempt was not sent, since its origin would not have served it.

    Only with `admission=True`, or with a policy of your own that gives up before an attempt. None
    of the `ClientError`s that make aiohttp run the middlewares a second time.

    Args:
        reason: `origin_down`, `congested`, `limited` or, where the call's deadline would have come
            before it could be sent, `deadline`.
        origin: "scheme://host:port"; "" where there is none, as with `AdaptiveStrategy`.
        retry_after: seconds after which a call may be sent to find out more; None if unknown.

    It can be pickled and copied.
    """

    def __init__(
        self,
        reason: str = "origin_down",
        origin: str = "",
        retry_after: float | None = None,
    ) -> None:
        text = f"{origin}: not sent: {reason}" if origin else f"not sent: {reason}"
        if retry_after is not None:
            text += f"; worth another try in {retry_after:.1f} s"
        super().__init__(text)
        self.reason, self.origin, self.retry_after = reason, origin, retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        # By its fields: the text is made of them.
        return type(self), (self.reason, self.origin, self.retry_after), self.__dict__


def error_name(error: BaseException) -> str:
    """OpenTelemetry's `error.type`: the class's qualified name, without functions around it.

    >>> error_name(TimeoutError())
    'TimeoutError'
    """
    return type(error).__qualname__.rpartition("<locals>.")[2]


def error_type(error: BaseException) -> str:
    """OpenTelemetry's `error.type`: a status where the server (or a proxy) gave one."""
    if isinstance(error, aiohttp.ClientResponseError) and is_answer(error):
        return str(error.status)
    return error_name(error)


def is_answer(error: aiohttp.ClientResponseError) -> bool:
    """Whether an exception stands for an answer with a status, as `raise_for_status` makes it.

    If not, it stands for an answer that aiohttp could not parse; the status is then aiohttp's own.
    """
    parsing = isinstance(error.__cause__, HttpProcessingError)
    return not parsing and isinstance(error.status, int) and 100 <= error.status <= 599


# A URL ends at white space or an angle bracket, which no URL may hold. Quotes, brackets and commas
# are legal in a path and a query. The scheme's length is bounded, or a long run of letters would
# cost the square of its length.
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]{0,15}://)([^\s<>]*)")
# A host ends at what none may hold; a port is a number.
_HOST: Final = re.compile(r"(?:\[[0-9A-Za-z:.%_~\-]*\]|[^\s:'\"`(){}\[\]|,;\\]*)(?::\d+)?")


def _origin_of(url: re.Match[str]) -> str:
    """What is kept of a URL: scheme, host and port."""
    scheme, rest = url.groups()
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    host = authority.rpartition("@")[2]
    known = _HOST.match(host)
    end = 0 if known is None else known.end()
    if ":" in host[end:] and "@" in rest:
        # A password that holds a slash, so this was no host.
        return scheme
    return scheme + host[:end]


def error_text(error: BaseException, max_length: int) -> str:
    """The error's text, cut to `max_length`, its URLs down to scheme, host and port.

    What a server sent is left out: aiohttp puts raw header lines into the texts of protocol
    errors, and whole response heads into `ServerDisconnectedError`.

    >>> error_text(ValueError("no route to https://me:pw@example.com:8443/a?token=b now"), 200)
    'no route to https://example.com:8443 now'
    """
    if isinstance(error, aiohttp.ClientResponseError):
        return str(error.status)[:max_length]
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        return "Server disconnected"[:max_length]
    if isinstance(error, aiohttp.InvalidURL):
        return "Invalid URL"[:max_length]
    try:
        text = str(error)
    except Exception:
        return ""
    return without_paths(text, max_length)


def without_paths(text: str, max_length: int) -> str:
    """A text cut to `max_length`, its URLs down to scheme, host and port."""
    if "://" not in text:
        return text[:max_length]
    # A text can be of any size, so it is cut before the search. A URL that is cut keeps its scheme
    # in front, and is still found.
    return _URL.sub(_origin_of, text[: 4 * max_length + 1024])[:max_length]
