"""Whether it is proven that nobody has processed a request, so that any method may be sent again.

A doubt is no proof: a request of which a byte may have been written may have been processed, unless
the server says otherwise.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from .._errors import is_answer
from .pool import is_direct
from .retry_after import heard

# Turned away before it was looked at: too early (RFC 8470), and too many requests (RFC 6585).
_UNREAD: Final = frozenset({425, 429})
_UNAVAILABLE: Final = 503
# No connection was made. aiohttp raises these while it connects, and not later.
_NOT_CONNECTED: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_UNKNOWN: Final = object()


def is_unprocessed(
    request: ClientRequest, handler: ClientHandlerType, result: ClientResponse | BaseException
) -> bool:
    """Whether nobody has processed a request that was sent by `handler` and brought `result`."""
    if isinstance(result, aiohttp.ClientHttpProxyError):
        # The request would have gone through the tunnel that the proxy refused.
        return True
    if not isinstance(result, BaseException):
        return _is_turned_away(result)
    if isinstance(result, aiohttp.ClientResponseError) and is_answer(result):
        return _is_turned_away(result)
    # aiohttp puts the answer that it waits for on the request once it has begun to write. A
    # middleware after ours may have sent the request before, or another one in its place.
    answer = getattr(request, "response", _UNKNOWN)
    if isinstance(result, _NOT_CONNECTED):
        return answer is None or answer is _UNKNOWN
    return answer is None and is_direct(handler)


def _is_turned_away(answer: ClientResponse | aiohttp.ClientResponseError) -> bool:
    """Whether a server says that it has not processed the request."""
    status = answer.status
    word = heard(status, answer.headers)
    return (
        status in _UNREAD
        or (status == _UNAVAILABLE and word.invites)
        or word.again is True
        or word.unread
    )
