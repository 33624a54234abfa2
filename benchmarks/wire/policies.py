"""A call by each policy: True if it brought an answer that is no failure."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp_retry import RetryClient

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from .upstream import CLIENT

__all__ = ("DEADLINE", "POLICIES", "TIMEOUT", "Fetch", "Policy")

#: Seconds that a caller waits.
DEADLINE: Final = 10.0
#: What each session has: an attempt may take 1.5 s until its answer.
TIMEOUT: Final = aiohttp.ClientTimeout(total=DEADLINE, sock_connect=1.5, sock_read=1.5)

Fetch = Callable[[], Awaitable[bool]]
#: Makes the way to fetch for one client, from the arguments of a session and the URL.
Policy = Callable[[aiohttp.ClientSession, str], Fetch]


async def _attempt(session: aiohttp.ClientSession | RetryClient, url: str, client: str) -> int:
    async with session.get(url, headers={CLIENT: client}) as response:
        await response.read()
        return response.status


def _fails(status: int) -> bool:
    return status == 429 or status >= 500


def _plain_loop(session: aiohttp.ClientSession, url: str) -> Fetch:
    """Three attempts, one and two seconds between them: the loop that everyone writes."""
    client = str(id(session))

    async def fetch() -> bool:
        for attempt in range(3):
            if attempt:
                await asyncio.sleep(2.0 ** (attempt - 1))
            try:
                if not _fails(await _attempt(session, url, client)):
                    return True
            except (aiohttp.ClientError, TimeoutError):
                pass
        return False

    return fetch


def _aiohttp_retry(session: aiohttp.ClientSession, url: str) -> Fetch:
    """aiohttp_retry with its own defaults."""
    client = str(id(session))
    retrying = RetryClient(session)

    async def fetch() -> bool:
        return not _fails(await _attempt(retrying, url, client))

    return fetch


def _session(session: aiohttp.ClientSession, url: str) -> Fetch:
    """One call of the session, whatever its middlewares make of it."""
    client = str(id(session))

    async def fetch() -> bool:
        return not _fails(await _attempt(session, url, client))

    return fetch


def _no_middlewares() -> tuple[aiohttp.ClientMiddlewareType, ...]:
    return ()


def _ours() -> tuple[aiohttp.ClientMiddlewareType, ...]:
    return (AdaptiveRetryMiddleware(),)


def _ours_admitting() -> tuple[aiohttp.ClientMiddlewareType, ...]:
    return (AdaptiveRetryMiddleware(AdaptiveConfig(admission=True)),)


#: By name: how a client fetches, and the middlewares of its session.
POLICIES: Final[
    dict[str, tuple[Policy, Callable[[], tuple[aiohttp.ClientMiddlewareType, ...]]]]
] = {
    "plain loop": (_plain_loop, _no_middlewares),
    "aiohttp_retry": (_aiohttp_retry, _no_middlewares),
    "ours": (_session, _ours),
    "ours, admission": (_session, _ours_admitting),
}
