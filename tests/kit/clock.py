"""A clock for tests: time passes only when somebody sleeps, or when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Clock:
    """Calling the clock gives its time; a sleep is noted, moves the time on, and is over at once.

    >>> clock = Clock(5.0)
    >>> asyncio.run(clock.sleep(2.5))
    >>> clock(), clock.waits
    (7.5, [2.5])
    """

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        #: The seconds of each sleep, in order.
        self.waits: list[float] = []
        #: Awaited during each sleep, if it is set.
        self.meanwhile: Callable[[], Awaitable[object]] | None = None

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Move the time on, and let others run once."""
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)
        if self.meanwhile is not None:
            await self.meanwhile()
