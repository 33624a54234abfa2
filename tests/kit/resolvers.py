"""Resolvers for tests: every name leads to this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from aiohttp.abc import AbstractResolver, ResolveResult


class EverywhereHere(AbstractResolver):
    """All names are this machine's: one server, as many origins as wanted.

    A subclass decides with `ports` where a name leads to.
    """

    async def ports(self, port: int) -> Iterable[int]:
        """The ports behind the name; `port` was asked for. An OSError says that nobody has it."""
        return (port,)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host="127.0.0.1", port=there, family=family, proto=0, flags=0
            )
            for there in await self.ports(port)
        ]

    async def close(self) -> None:
        """Nothing to close."""
