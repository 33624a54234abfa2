"""The switch of a middleware: how much it may do now, and the waits that end when it is off."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from .._checks import one_of
from ..config import MODES, Mode

_RANKS: Final[dict[str, int]] = {mode: rank for rank, mode in enumerate(MODES)}


def strictest(*modes: Mode) -> Mode:
    """The mode that allows least.

    >>> strictest("on", "off", "observe")
    'off'
    """
    return max(modes, key=_RANKS.__getitem__)


class Switch:
    """The mode that was set last, and who waits. Any thread may set it."""

    __slots__ = ("mode", "waits")

    def __init__(self) -> None:
        self.mode: Mode = "on"
        #: Waits that can be ended, with their loops: of calls that have something to end with.
        self.waits: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}

    def set(self, mode: Mode) -> None:
        """Set the mode."""
        one_of("mode", mode, MODES)
        self.mode = mode

    def end_waits(self) -> None:
        """End all waits that can be ended, each on its own loop."""
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        for wait, loop in tuple(self.waits.items()):
            if loop is here:
                self._end(wait)
            else:
                # A loop that is closed has no waits left.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._end, wait)

    def _end(self, wait: asyncio.Timeout) -> None:
        if wait in self.waits and not wait.expired():
            wait.reschedule(asyncio.get_running_loop().time())
