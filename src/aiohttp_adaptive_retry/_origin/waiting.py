"""The calls of one middleware that wait, over all its origins: how many, and what they keep."""

from __future__ import annotations

from typing import Final

from ..config import AdaptiveConfig

_MIB: Final = 1024 * 1024


class WaitingCalls:
    """Counts the calls that wait for a retry, within a bound in number and one in bytes.

    An outage of many origins at once is an outage of one's own network. Then every call waits, so
    bounds for each origin bound nothing. One loop; O(1).

    >>> waiting = WaitingCalls(AdaptiveConfig(max_held_calls=2, max_held_mb=1))
    >>> waiting.enter(2_000_000), waiting.enter(1), waiting.count
    (True, False, 1)
    """

    __slots__ = ("_most", "_most_bytes", "bytes", "count")

    def __init__(self, config: AdaptiveConfig) -> None:
        self.reconfigure(config)
        #: Calls that wait now, and the bytes of their bodies and kept answers.
        self.count = 0
        self.bytes = 0

    def reconfigure(self, config: AdaptiveConfig) -> None:
        """Take the bounds of a configuration; who waits goes on waiting."""
        self._most = config.max_held_calls
        self._most_bytes = int(config.max_held_mb * _MIB)

    def enter(self, size: int) -> bool:
        """Count a call that begins to wait and keeps so many bytes; False, and nothing, if full.

        A call that is alone may keep as much as it likes: nobody else's memory is added to it.
        """
        if self.count and (self.count >= self._most or self.bytes + size > self._most_bytes):
            return False
        self.count += 1
        self.bytes += size
        return True

    def leave(self, size: int) -> None:
        """Count a call out that waits no more, with the bytes that it came with."""
        # Never below nothing: a forked child that goes on with its parent's calls counts from zero.
        self.count = max(0, self.count - 1)
        self.bytes = max(0, self.bytes - size)

    def reset(self) -> None:
        """Nobody waits."""
        self.count = self.bytes = 0
