"""Whether a request is a retry already: of another retry layer around us, in a client library.

Such libraries count their attempts in a header, or send the same id again. An id is remembered when
a call with it fails, and only as a keyed hash.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from typing import Final

from .call import _HttpCall

#: A library's own count: botocore's "attempt=2; max=3", from 1, and Stainless's "1", from 0.
OF_AWS: Final = "amz-sdk-request"
OF_STAINLESS: Final = "x-stainless-retry-count"
#: An id that stays the same when a library sends again: Azure's, and anybody's.
ID: Final = "x-ms-client-request-id"
KEY: Final = "Idempotency-Key"

_ATTEMPT: Final = re.compile(r"(?:^|;)\s*attempt=(\d{1,9})\s*(?:;|$)", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,9}", re.ASCII)
# Libraries wait up to two minutes between their attempts (azure-core), and a call may wait as well.
_REMEMBERED: Final = 300.0
#: Ids remembered at a time, of all origins; about 150 bytes each.
MOST_IDS: Final = 512
# Of a longer id the beginning counts.
_ID_LENGTH: Final = 1024


class Layers:
    """Tells retries of other layers. O(1); at most `MOST_IDS` hashes are kept. One loop."""

    __slots__ = ("_failed", "_key")

    def __init__(self) -> None:
        self._key = os.urandom(16)
        # When calls with these ids failed, oldest first.
        self._failed: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._failed)

    def arrived(self, call: _HttpCall, now: float) -> None:
        """Note on a call whether a layer around us has sent it before."""
        headers = call.request.headers
        counted = _ATTEMPT.search(headers.get(OF_AWS, ""))
        count = headers.get(OF_STAINLESS, "")
        if (counted is not None and int(counted[1]) > 1) or (
            _COUNT.fullmatch(count) is not None and int(count) > 0
        ):
            call.is_resend = True
        elif self._failed:
            # No id is hashed as long as none is remembered.
            for hashed in self._hashed(call):
                age = now - self._failed.get(hashed, -math.inf)
                call.is_resend = call.is_resend or 0.0 <= age < _REMEMBERED

    def failed(self, call: _HttpCall, now: float) -> None:
        """Note the same on a call whose first attempt has failed, and remember its ids."""
        self.arrived(call, now)
        ids = self._failed
        for hashed in self._hashed(call):
            # The newest failure goes to the end.
            ids.pop(hashed, None)
            ids[hashed] = now
        while ids:
            oldest = next(iter(ids))
            if len(ids) <= MOST_IDS and 0.0 <= now - ids[oldest] < _REMEMBERED:
                break
            del ids[oldest]

    def _hashed(self, call: _HttpCall) -> list[bytes]:
        """The request's ids, hashed with header and origin; no id can be read from a hash."""
        found, origin = [], call.origin
        for header in (ID, KEY):
            value = call.request.headers.get(header)
            if value:
                place = f"{origin.scheme}://{origin.host}:{origin.port}"
                text = f"{header}\n{place}\n{value[:_ID_LENGTH]}"
                data = text.encode("utf-8", "surrogatepass")
                found.append(hashlib.blake2b(data, digest_size=8, key=self._key).digest())
        return found
