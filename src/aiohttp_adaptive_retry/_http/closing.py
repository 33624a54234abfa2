"""Waits end when their session is closed.

A session tells nobody that it is closed. So it is looked at again and again as long as a call
waits, by one timer for each session.
"""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import ClientSession

#: Seconds between two looks.
_LOOK: Final = 0.05


class Closings:
    """The waits of one middleware, by session. A session belongs to one loop."""

    __slots__ = ("_watches",)

    def __init__(self) -> None:
        # By the session's identity: as long as a call waits its session lives.
        self._watches = dict[int, _Watch]()

    def begin(self, session: ClientSession, wait: asyncio.Timeout) -> None:
        """A call of this session begins to wait; `wait` is around its wait."""
        watch = self._watches.get(id(session))
        if watch is None:
            watch = self._watches[id(session)] = _Watch()
        watch.waits.add(wait)
        if watch.timer is None:
            watch.look(session)

    def end(self, session: ClientSession, wait: asyncio.Timeout) -> None:
        """The wait is over."""
        watch = self._watches.get(id(session))
        if watch is None:
            return
        watch.waits.discard(wait)
        if not watch.waits:
            del self._watches[id(session)]
            if watch.timer is not None:
                watch.timer.cancel()


class _Watch:
    """The waits of one session, and the timer of its next look."""

    __slots__ = ("timer", "waits")

    def __init__(self) -> None:
        self.waits = set[asyncio.Timeout]()
        self.timer: asyncio.TimerHandle | None = None

    def look(self, session: ClientSession) -> None:
        """End all waits if the session is closed; look again later if not."""
        loop = asyncio.get_running_loop()
        if not session.closed:
            self.timer = loop.call_later(_LOOK, self.look, session)
            return
        for wait in self.waits:
            if not wait.expired():
                wait.reschedule(loop.time())
