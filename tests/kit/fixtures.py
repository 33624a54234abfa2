"""Fixtures: fault servers and sessions that are closed when the test is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from .faults import Action, FaultServer

Serve = Callable[..., Awaitable[FaultServer]]
Open = Callable[..., aiohttp.ClientSession]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a fault server with a script."""
    servers: list[FaultServer] = []

    async def start(*script: Action, **listen: Any) -> FaultServer:
        server = FaultServer(*script)
        servers.append(server)
        await server.listen(**listen)
        return server

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
async def open_session() -> AsyncIterator[Open]:
    """Open a session with these middlewares; `limit` is its connector's."""
    sessions: list[aiohttp.ClientSession] = []

    def start(*middlewares: Any, limit: int = 100, **options: Any) -> aiohttp.ClientSession:
        # Waits move the fake clock on, and all calls share it: far away, but there.
        options.setdefault("timeout", aiohttp.ClientTimeout(total=100_000))
        options.setdefault("connector", aiohttp.TCPConnector(limit=limit))
        session = aiohttp.ClientSession(middlewares=middlewares, **options)
        sessions.append(session)
        return session

    yield start
    for session in sessions:
        await session.close()
