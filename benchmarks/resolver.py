"""A resolver for which every name is this host."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ("AnyName",)


class AnyName(AbstractResolver):
    """Resolves every name to loopback. A subclass may choose another port for each connection."""

    def choose(self, port: int) -> int:
        """The port for one connection."""
        return port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host="127.0.0.1",
                port=self.choose(port),
                family=socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Nothing to close."""
