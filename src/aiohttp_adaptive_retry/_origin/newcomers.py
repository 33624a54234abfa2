"""Origins that have never succeeded: what all of them together may cost, and what is a name.

A name costs whoever makes it up nothing, and a redirect can lead to any. So whatever each unknown
origin gets by itself, a server can have as often as it likes.
"""

from __future__ import annotations

import re
from typing import Final

from ..config import AdaptiveConfig

#: The longest DNS name (RFC 1035 section 2.3.4).
LONGEST_NAME: Final = 253
#: Unknown origins that may be retried at first; as many as the usual budget holds.
_LEAST: Final = 20.0
#: What a success anywhere adds.
_SHARE: Final = 0.1
# Of names and addresses. yarl lets quotes and braces through, which no name has.
_NAME: Final = re.compile(r"[\w.~%:\[\]-]+", re.ASCII)


def is_too_long(host: str) -> bool:
    """Whether a host's name is longer than any that there can be; a last dot is no part of it."""
    return len(host) > LONGEST_NAME and len(host.removesuffix(".")) > LONGEST_NAME


def can_be_label(host: str) -> bool:
    """Whether a name is fit to be shown as it is.

    >>> can_be_label("api.example.com"), can_be_label('x"} 1')
    (True, False)
    """
    return _NAME.fullmatch(host) is not None and not is_too_long(host)


class Newcomers:
    """Permits for origins that have never succeeded, over all of a middleware: a permit each.

    An origin takes one permit with its first retry, and gives it back when it first succeeds. Then
    its own budget is all that bounds it. A tenth of all successes come as further permits. So
    hundreds of names of one dead server get no retries each, and a client of many hosts, of which
    most are there, never runs out. One loop; O(1).

    >>> newcomers = Newcomers(2.0)
    >>> newcomers.take(), newcomers.take(), newcomers.take()
    (True, True, False)
    >>> newcomers.give_back(); newcomers.take()
    True
    """

    __slots__ = ("_most", "permits")

    def __init__(self, most: float) -> None:
        self._most = self.permits = most

    @classmethod
    def of(cls, config: AdaptiveConfig) -> Newcomers:
        """As many as one origin's budget can hold, and at least twenty."""
        return cls(max(_LEAST, float(config.budget_capacity)))

    def take(self) -> bool:
        """Take a permit; False, and nothing, if none is left."""
        if self.permits < 1.0:
            return False
        self.permits -= 1.0
        return True

    def give_back(self) -> None:
        """Give back the permit of an origin that succeeds."""
        self.permits = min(self._most, self.permits + 1.0)

    def earn(self, successes: int) -> None:
        """Add what so many successes earn."""
        if self.permits < self._most:
            self.permits = min(self._most, self.permits + _SHARE * successes)

    def reset(self) -> None:
        """As in the beginning."""
        self.permits = self._most


#: For an origin that stands alone.
ANY_NUMBER: Final = Newcomers(float("inf"))
