"""What a fault is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import aiohttp

from ..kit.faults import Action

__all__ = ("RETRIED", "Errors", "Fault")

#: Where an attempt meets the fault: while its host's name is looked up, at its connection, in a
#: TLS handshake, or once the server has its head.
Place = Literal["name", "connection", "handshake", "request"]

Errors = tuple[type[Exception], ...]

#: Statuses among the answers here that count as failures.
RETRIED: Final = frozenset({429, 500, 503})
_PERMANENT: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that can happen to an attempt.

    `raises`: what aiohttp alone raises for it; more than one where chance or the body decides.
    `status`: of the answer, where there is one. `endless`: without a limit on time it never ends.
    `resets`: the connection is reset after the answer.
    """

    says: str
    place: Place = "request"
    action: Action | None = None
    raises: Errors = ()
    status: int | None = None
    endless: bool = False
    resets: bool = False

    @property
    def mendable(self) -> bool:
        """Whether a retry is to follow, of what may be sent again."""
        return self.status in RETRIED or (self.status is None and not self.final)

    @property
    def proven(self) -> bool:
        """Whether it is proven that nobody has processed the request."""
        return self.status == 429 or (self.place in ("name", "handshake") and not self.endless)

    @property
    def silent(self) -> bool:
        """Whether an attempt needs a limit on its time."""
        return self.endless and self.status is None

    @property
    def final(self) -> bool:
        """Whether the next attempt would meet the same."""
        return any(issubclass(error, _PERMANENT) for error in self.raises)
