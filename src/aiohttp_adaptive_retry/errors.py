"""Names of errors, bounded in length and in number, and texts with nothing secret in them.

What the windows and the metrics keep of an error is one small integer. The catalogue turns it
back into a name; it holds at most 254 of them for ever, since a label that was once exported
stays in the memory of the exporter.
"""

from __future__ import annotations

import re
from typing import Final

import aiohttp

__all__ = (
    "OK",
    "OTHER",
    "OTHER_NAME",
    "ErrorCatalogue",
    "OriginUnavailable",
    "error_name",
    "error_text",
    "error_type",
)

#: The code of a success.
OK: Final = 0
#: The code that all names share which found no place in the catalogue.
OTHER: Final = 255
OTHER_NAME: Final = "_OTHER"


class OriginUnavailable(aiohttp.ClientError):
    """A first attempt was not sent, since its origin would not have served it; only with
    `admission=True`.

    A `ClientError`, but none of those that make aiohttp run the middlewares a second time.

    Args:
        reason: `origin_down`, `congested`, `limited` or, where the call's deadline would have come
            before it could be sent, `deadline`.
    """

    def __init__(self, reason: str = "origin_down") -> None:
        super().__init__(f"not sent: {reason}")
        self.reason = reason


class ErrorCatalogue:
    """Gives each error name a code from 1 to 254, first come, first served, then `OTHER`.

    A name that has a code keeps it: a flood of new names can't push out the old ones.
    `code` is O(1), one dict look-up. At most 254 names of `max_length` characters are held.
    To be used on one loop; `name` may be called from any thread.
    """

    __slots__ = ("_codes", "_max_length", "_names")

    def __init__(self, max_length: int = 64) -> None:
        self._max_length = max_length
        self._codes: dict[str, int] = {}
        # Index is code - 1. Appended to and never changed otherwise: readers need no lock.
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def code(self, name: str) -> int:
        """The code of a name (cut to `max_length`), or `OTHER` once 254 others are known.

        >>> catalogue = ErrorCatalogue()
        >>> catalogue.code("503"), catalogue.code("ClientOSError"), catalogue.code("503")
        (1, 2, 1)
        """
        known = self._codes.get(name)
        if known is not None:
            return known
        name = name[: self._max_length]
        known = self._codes.get(name)
        if known is not None:
            return known
        # A long-lived name has to be a string of our own, not a subclass that drags along more.
        name = str(name)
        if len(self._names) >= OTHER - 1 or name == OTHER_NAME:
            return OTHER
        self._names.append(name)
        self._codes[name] = code = len(self._names)
        return code

    def name(self, code: int) -> str:
        """The name behind a code from `code`; never raises for a code that was given out."""
        return OTHER_NAME if code == OTHER else self._names[code - 1]


def error_name(error: BaseException) -> str:
    """The exception's qualified name, as OpenTelemetry's `error.type` has it.

    Where a class was made inside a function, the function's name is left out: it is no part of
    what the error is called.

    >>> error_name(TimeoutError())
    'TimeoutError'
    """
    return type(error).__qualname__.rpartition("<locals>.")[2]


def error_type(error: BaseException) -> str:
    """OpenTelemetry's `error.type`: a status where the server (or a proxy) gave one."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return str(error.status)
    return error_name(error)


# The authority ends at the first character that can't be part of it; what follows up to white
# space, a quote or a bracket is path, query and fragment.
_URL: Final = re.compile(
    # Bounded, or a long run of letters would cost the square of its length.
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]{0,15}://)(?:[^\s/?#'\"<>]*@)?(?P<host>[^\s/?#'\"<>@]*)"
    r"(?:[/?#][^\s'\"<>]*)?"
)


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
    if "://" not in text:
        return text[:max_length]
    # Cut before the search as well, since a text can be of any size; a URL that is cut here still
    # has its scheme in front, and so is still found.
    return _URL.sub(r"\g<scheme>\g<host>", text[: 4 * max_length + 1024])[:max_length]
