"""The bounded window: a ring of what the newest attempts came to.

This is the mission guide's first two patterns in one structure. *Proactive trimming*: an insertion
into a full ring overwrites the oldest attempt. *Expiry by time*: every insertion drops what is
older than `duration`, and a sweep does it for windows that see no insertions. The third pattern,
clean-up by memory, calls `restrict` (see memory.py and origins.py).

An attempt is a timestamp (8 bytes) and an error code (1 byte) in two flat arrays; there is no
object per attempt. Arrays start at 8 attempts and double up to the bound; while the last doubling
copies, old and new stand side by side: 13.5 bytes per attempt of the bound.

Counts are running sums, so an insertion costs the same whatever the size. When much expires at
once, an insertion drops at most `_CHUNK` attempts and the next ones go on; what is read meanwhile
never counts what has expired, removed or not.

What almost every call comes to is a success at a moment when nothing is due: no expiry, no growth,
nothing that the window's owner wants to look at. `open` says until when that is so, by number and
by time; in between a success is one timestamp and one number (`succeed`, whose few lines the
middleware has in line), as the codes there are a success's already. Whatever changes what is due
closes the window.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_right
from collections import Counter
from typing import Final

from .errors import OK

__all__ = ("BYTES_PER_ATTEMPT", "Window")

BYTES_PER_ATTEMPT: Final = 9

_FIRST_CAPACITY: Final = 8
_CHUNK: Final = 1024
# What a sweep drops at once: a few milliseconds in the worst case of many error types.
_LARGE_CHUNK: Final = 32_768
# How far ahead `open` looks: a tenth of a microsecond, once for so many successes.
_LOOK_AHEAD: Final = 1024
# A clock that steps back by more than this is another clock: old stamps say nothing any more.
_BACKSTEP: Final = 1.0
_NEVER: Final = -sys.float_info.max
_INFINITE: Final = math.inf


def _expired(times: array[float], capacity: int, start: int, count: int, cutoff: float) -> int:
    """How many of `count` attempts from `start` on are at or before `cutoff`."""
    return bisect_right(range(count), cutoff, key=lambda n: times[(start + n) % capacity])


class Window:
    """A ring of (timestamp, code), bounded by `size` attempts and `duration` seconds.

    Args:
        size: most attempts held, 1 or more.
        duration: seconds after which an attempt has expired, above zero.

    `append` is amortised O(1) and never more than O(`_CHUNK`); memory is 9 bytes per attempt of
    the present capacity. All methods belong to one loop, but `length_at`, `memory` and the
    `evicted_*` numbers, which only read and may be called from any thread.
    """

    __slots__ = (
        "_clean",
        "_duration",
        "_errors",
        "_expires_at",
        "_failures",
        "_moving",
        "_removed",
        "_size",
        "capacity",
        "codes",
        "end",
        "evicted_expired",
        "evicted_memory",
        "newest",
        "times",
        "until",
        "upto",
    )

    def __init__(self, size: int, duration: float) -> None:
        self._size = size
        self._duration = duration
        #: Slots there are at present. Attempt n lies in slot n % capacity.
        self.capacity = self._fitting(1)
        self.times = array("d", (0.0,)) * self.capacity
        self.codes = bytearray(self.capacity)
        #: Number that the next attempt will get: how many there ever were.
        self.end = 0
        #: The newest attempt's timestamp.
        self.newest = _NEVER
        #: Up to that number and before that moment `succeed` may write.
        self.upto = 0
        self.until = _NEVER
        # All attempts below this number were taken out: by age, for memory, or by newer ones before
        # the capacity last changed. What newer ones pushed out since then follows from `end`.
        self._removed = 0
        # No attempt expires before this: a lower bound, put right when it is reached. While the
        # ring is empty it is in the past, so that the first insertion sets it.
        self._expires_at = _NEVER
        self._failures = 0
        # No slot has the code of a failure, neither of one in the window nor of one long gone.
        self._clean = True
        # None before the first failure: most origins' windows see none.
        self._errors: dict[int, int] | None = None
        self.evicted_expired = 0
        self.evicted_memory = 0
        # Odd while attempts move from the ring to these counts: in between, both miss them, or
        # both have them, and other threads have to look again (a sequence lock).
        self._moving = 0

    def append(self, now: float, code: int) -> None:
        """Add an attempt; drop what has expired, and then the oldest if the ring is full."""
        self.upto = 0
        if not self.newest <= now < _INFINITE:
            now = self._regressed(now)
        held = len(self)
        if held and now >= self._expires_at:
            self._expire(now, _CHUNK)
            held = len(self)
        if held >= self.capacity and self.capacity < self._size:
            self._resize(self._fitting(held + 1))
        end = self.end
        slot = end % self.capacity
        if held >= self.capacity:
            self._forget(self.codes[slot], 1)
        self.times[slot] = self.newest = now
        self.codes[slot] = code
        self.end = end + 1
        if code:
            self._clean = False
            self._failures += 1
            if self._errors is None:
                self._errors = {}
            self._errors[code] = self._errors.get(code, 0) + 1
        if not held:
            self._expires_at = now + self._duration

    def open(self, upto: int, until: float) -> None:
        """Let `succeed` write before that number of attempts and that moment, if nothing of the
        window's own is due before."""
        if self.capacity < self._size:
            # The ring has to grow first.
            full = self.start + self.capacity
            if full < upto:
                upto = full
        if not self._clean:
            # Codes of failures have to be taken out of the sums.
            clean = self.end + self._successes_ahead(upto - self.end)
            if clean < upto:
                upto = clean
        self.upto = upto
        self.until = until if until < self._expires_at else self._expires_at

    def succeed(self, now: float) -> bool:
        """Add a success, if the window is open for it; False: nothing was done.

        These lines stand in `AdaptiveRetryMiddleware.__call__` too.
        """
        end = self.end
        if end < self.upto and self.newest <= now < self.until:
            self.times[end % self.capacity] = self.newest = now
            self.end = end + 1
            return True
        return False

    def settle(self, now: float) -> None:
        """Drop what has expired at `now`: all of it at once, or else at most 32,768 attempts."""
        if now >= self._expires_at and self.end > self.start:
            self._expire(now, _LARGE_CHUNK)

    def restrict(self, size: int, now: float) -> int:
        """Hold at most the newest `size` attempts from now on; give back how many that dropped.

        O(`size`), whatever there was before: the sums are made anew from what is kept, and so are
        the arrays, so that the memory really goes back. `relax` lifts the bound.
        """
        expired = self._expired_at(now)
        dropped = max(0, len(self) - expired - size)
        self._moving += 1
        self._removed = self.start + expired + dropped
        self.evicted_expired += expired
        self.evicted_memory += dropped
        self._moving += 1
        self._size = size
        self._resize(self._fitting(len(self)))
        kept = [code for _, code in map(self.at, range(self.start, self.end)) if code]
        self._failures = len(kept)
        self._errors = dict(Counter(kept)) or None
        if not len(self):
            self._expires_at = _NEVER
        return dropped

    def relax(self, size: int) -> None:
        """Let the window grow up to `size` again."""
        self.upto = 0
        self._size = size

    def compact(self) -> None:
        """Give back arrays that are mostly empty. O(attempts held)."""
        count = len(self)
        if self.capacity > _FIRST_CAPACITY and count * 4 <= self.capacity:
            self._resize(self._fitting(count))

    # What is in it. `len` counts what is not removed yet; the others never count what has expired.

    def __len__(self) -> int:
        return self.end - self.start

    def failures_at(self, now: float) -> int:
        """How many of the attempts that have not expired failed. O(1), or a pass over bytes in C
        while expired attempts wait for their removal: under a millisecond for a million."""
        expired = self._expired_at(now)
        return self._failures - (expired - self._count(OK, expired) if expired else 0)

    def errors_at(self, now: float) -> dict[int, int]:
        """Attempts per error code. O(codes present), or such a pass for each of them."""
        expired = self._expired_at(now)
        left = {
            code: count - (self._count(code, expired) if expired else 0)
            for code, count in (self._errors or {}).items()
        }
        return {code: count for code, count in left.items() if count}

    def start_at(self, now: float) -> int:
        """Number of the oldest attempt that has not expired. O(log size)."""
        return self.start + self._expired_at(now)

    @property
    def start(self) -> int:
        """Number of the oldest attempt held; attempts are numbered from 0 for ever."""
        start = self.end - self.capacity
        return start if start > self._removed else self._removed

    def at(self, number: int) -> tuple[float, int]:
        """Timestamp and code of the attempt of that number, `start` <= number < `end`."""
        slot = number % self.capacity
        return self.times[slot], self.codes[slot]

    # From any thread: reads, and changes nothing.

    @property
    def memory(self) -> int:
        """Bytes that the ring's arrays hold."""
        return self.capacity * BYTES_PER_ATTEMPT

    @property
    def evicted_capacity(self) -> int:
        """Attempts that newer ones pushed out, ever."""
        return max(0, self.start - self.evicted_expired - self.evicted_memory)

    def length_at(self, now: float) -> int:
        """Attempts that have not expired at `now`, removed yet or not. O(log size).

        The loop may change the ring meanwhile; the answer is then right for one of both moments,
        or off by what was just added, and within bounds in any case.
        """
        return self._divided_at(now)[0]

    def evicted_at(self, now: float) -> tuple[int, int, int]:
        """Attempts evicted by capacity, by age and for memory, ever; those that have expired and
        are not removed yet are among them. Never more than there were: zeros, if the loop stands
        still right in between, which only another thread can see."""
        for _ in range(100):
            moving = self._moving
            expired = self.evicted_expired + self._divided_at(now)[1]
            counts = (self.evicted_capacity, expired, self.evicted_memory)
            if moving == self._moving and not moving & 1:
                return counts
        return 0, 0, 0

    def _divided_at(self, now: float) -> tuple[int, int]:
        """How many of the attempts in the ring have not expired, and how many have."""
        times, capacity, end = self.times, self.capacity, self.end
        start = max(self._removed, end - capacity)
        count = max(0, end - start)
        if not count or now < self._expires_at:
            return count, 0
        try:
            expired = _expired(times, capacity, start, count, now - self._duration)
        except IndexError:  # arrays and capacity were read on two sides of a resize
            return count, 0
        return count - expired, expired

    # How it works.

    def _expired_at(self, now: float) -> int:
        """How many attempts have expired and not been removed."""
        return self._divided_at(now)[1]

    def _successes_ahead(self, most: int) -> int:
        """How many of the next slots, `most` of them at most, have the code of a success."""
        if not self._failures and len(self) >= self.capacity:
            self._clean = True
            return most
        slot = self.end % self.capacity
        ahead = self.codes[slot : slot + min(most, _LOOK_AHEAD)]
        return len(ahead) - len(ahead.lstrip(b"\0"))

    def _count(self, code: int, among: int) -> int:
        """How many of the oldest `among` attempts have that code."""
        slot = self.start % self.capacity
        run = min(among, self.capacity - slot)
        return self.codes.count(code, slot, slot + run) + self.codes.count(code, 0, among - run)

    def _fitting(self, count: int) -> int:
        """The smallest capacity for `count` attempts: the bound halved as often as it goes.

        Counting down from the bound, and not up from 16, makes the last doubling end on the bound
        itself.
        """
        capacity = self._size
        while capacity > _FIRST_CAPACITY and (capacity + 1) // 2 >= count:
            capacity = (capacity + 1) // 2
        return capacity

    def _resize(self, capacity: int) -> None:
        if capacity == self.capacity:
            return
        self.upto = 0
        self._removed = self.start
        # No `array("d", bytes(...))` and no slices of arrays: each would hold a second copy for a
        # moment, at the worst of moments.
        times = array("d", (0.0,)) * capacity
        codes = bytearray(capacity)
        with (
            memoryview(self.times) as old_times,
            memoryview(self.codes) as old_codes,
            memoryview(times) as new_times,
            memoryview(codes) as new_codes,
        ):
            # Slots follow from numbers, so a run contiguous in both rings moves as a block.
            number = self._removed
            while number < self.end:
                old, new = number % self.capacity, number % capacity
                run = min(self.end - number, self.capacity - old, capacity - new)
                new_times[new : new + run] = old_times[old : old + run]
                new_codes[new : new + run] = old_codes[old : old + run]
                number += run
        self.times, self.codes, self.capacity = times, codes, capacity
        self._clean = not self._failures

    def _remove(self, count: int) -> None:
        """Take the oldest `count` attempts out of the sums."""
        failures = count - self._count(OK, count)
        for code in tuple(self._errors or ()) if failures else ():
            # Counting is one pass in C; each pass done may make the rest unneeded.
            found = self._count(code, count)
            self._forget(code, found)
            failures -= found
            if not failures:
                break
        self._removed = self.start + count

    def _forget(self, code: int, count: int) -> None:
        errors = self._errors
        if code == OK or not count or errors is None:
            return
        self._failures -= count
        left = errors[code] - count
        if left:
            errors[code] = left
        else:
            del errors[code]

    def _expire(self, now: float, most: int) -> None:
        cutoff = now - self._duration
        if self.newest <= cutoff:
            self._clear()
            return
        start = self.start
        expired = _expired(self.times, self.capacity, start, min(self.end - start, most), cutoff)
        if expired:
            self._moving += 1
            self._remove(expired)
            self.evicted_expired += expired
            self._moving += 1
        # Still expired, as there was more than `most`: this brings the next insertion here again.
        self._expires_at = self.times[self.start % self.capacity] + self._duration

    def _clear(self) -> None:
        """Let all expire at once, at a cost that does not depend on how much there is."""
        self._moving += 1
        self.evicted_expired += len(self)
        self._removed = self.end
        self._moving += 1
        self._failures = 0
        self._errors = None
        self._expires_at = _NEVER
        self._resize(self._fitting(1))

    def _regressed(self, now: float) -> float:
        """What to make of a reading that is no time at all, or lies before the last one."""
        if not math.isfinite(now):
            return self.newest if self.newest > _NEVER else 0.0
        if now < self.newest - _BACKSTEP:
            self._clear()
            return now
        return self.newest
