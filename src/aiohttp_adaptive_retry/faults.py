"""Errors of our own: counted, logged once, and never in a caller's way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

__all__ = ("Faults", "SafeClock")

_log: Final = logging.getLogger("aiohttp_adaptive_retry")


class Faults:
    """Counts what goes wrong in our own bookkeeping; the first one is logged."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, error: Exception) -> None:
        """Take note of an error. Never raises."""
        self.count += 1
        if self.count == 1:
            # The type only: a text could name what is nobody's business.
            _log.error(
                "aiohttp-adaptive-retry: internal fault (%s); requests are not affected, "
                "but counts may be off. Further faults are counted and not logged.",
                type(error).__qualname__,
            )


class SafeClock:
    """A clock that always gives a number: the injected one, or the real one where that breaks.

    An object of its own and no method of the middleware: the telemetry holds on to it for as long
    as it reports, and must not keep a middleware alive.
    """

    __slots__ = ("_clock", "_faults")

    def __init__(self, clock: Callable[[], float], faults: Faults) -> None:
        self._clock = clock
        self._faults = faults

    def __call__(self) -> float:
        try:
            return float(self._clock())
        except Exception as error:
            self._faults(error)
            return time.monotonic()
