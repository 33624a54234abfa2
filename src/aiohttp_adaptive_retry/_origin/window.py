"""The bounded window: a ring of what the newest attempts came to.

An attempt is a timestamp (8 bytes) and an error code (1 byte) in two flat arrays. Arrays start at 8
attempts and double up to the bound; while the last doubling copies, old and new stand side by side:
13.5 bytes per attempt of the bound.

Counts are running sums, so an insertion costs the same whatever the size. When much expires at
once, an insertion drops at most `_CHUNK` attempts and the next ones go on. Whatever is read
meanwhile never counts what has expired, removed or not.

The fast path. A lease says up to which number (`lease_end`) and moment (`lease_until`) nothing is
due: no expiry, no growth, nothing that the window's owner wants to look at. During a lease a
success is one timestamp and one number (`record_fast`), because the codes in those slots are a
success's already. `end - appended` is the number of successes recorded so, ever. Whoever counts
successes keeps a cursor of its own on that number. Whatever changes what is due ends the lease.
"""

from __future__ import annotations

import math
import sys
from array import array
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

#: The code of a success.
OK: Final = 0

BYTES_PER_ATTEMPT: Final = 9

_FIRST_CAPACITY: Final = 8
_CHUNK: Final = 1024
# What a sweep drops at once: a few milliseconds in the worst case of many error types.
_LARGE_CHUNK: Final = 32_768
# How far ahead `renew_lease` looks: a tenth of a microsecond, once for so many successes.
_LOOK_AHEAD: Final = 1024
# A clock that steps back by more than this is another clock: old stamps say nothing any more.
_BACKSTEP: Final = 1.0
_NEVER: Final = -sys.float_info.max


def _expired(times: array[float], capacity: int, start: int, count: int, cutoff: float) -> int:
    """How many of `count` attempts from `start` on are at or before `cutoff`."""
    return bisect_right(range(count), cutoff, key=lambda n: times[(start + n) % capacity])


@dataclass(slots=True, eq=False, repr=False)
class Window:
    """A ring of (timestamp, code), bounded by `size` attempts and `duration` seconds.

    `size` is 1 or more, `duration` above zero. `append` is amortised O(1) and never more than
    O(`_CHUNK`); memory is 9 bytes per attempt of the present capacity. One loop may call the
    methods; any thread may call `length_at`, `evicted_at` and what else only reads.
    """

    size: int
    duration: float
    #: Slots there are at present. Attempt n lies in slot n % capacity.
    capacity: int = 0
    times: array[float] = field(init=False)
    codes: bytearray = field(init=False)
    #: The number that the next attempt will get: how many there ever were.
    end: int = 0
    #: How many of them were added by `append`.
    appended: int = 0
    #: The newest attempt's timestamp.
    newest: float = _NEVER
    #: Up to that number and before that moment `record_fast` may write.
    lease_end: int = 0
    lease_until: float = _NEVER
    evicted_expired: int = 0
    evicted_memory: int = 0
    # All attempts below this number were taken out: by age, for memory, or by newer ones before
    # the capacity last changed. What newer ones pushed out since then follows from `end`.
    _removed: int = 0
    # No attempt expires before this lower bound. It is put right when it is reached.
    _expires_at: float = _NEVER
    _failures: int = 0
    # No slot has the code of a failure, in the window or long gone.
    _clean: bool = True
    # None before the first failure: most origins' windows see none.
    _errors: dict[int, int] | None = None
    # A sequence lock: odd while attempts move from the ring to the counts of evictions.
    _moving: int = 0

    def __post_init__(self) -> None:
        self.capacity = self._fitting(1)
        self.times = array("d", (0.0,)) * self.capacity
        self.codes = bytearray(self.capacity)

    def append(self, now: float, code: int) -> None:
        """Add an attempt; drop what has expired, and then the oldest if the ring is full."""
        self.lease_end = 0
        if not self.newest <= now < math.inf:
            now = self._regressed(now)
        held = self.end - max(self.end - self.capacity, self._removed)
        if held and now >= self._expires_at:
            self._expire(now, _CHUNK)
            held = len(self)
        if held >= self.capacity and self.capacity < self.size:
            self._resize(self._fitting(held + 1))
        end = self.end
        slot = end % self.capacity
        if held >= self.capacity:
            self._forget(self.codes[slot], 1)
        self.times[slot] = self.newest = now
        self.codes[slot] = code
        # Counted before it is there: another thread must not take it for one of the fast path.
        self.appended += 1
        self.end = end + 1
        if code:
            self._clean = False
            self._failures += 1
            if self._errors is None:
                self._errors = {}
            self._errors[code] = self._errors.get(code, 0) + 1
        if not held:
            self._expires_at = now + self.duration

    def renew_lease(self, end: int, until: float) -> None:
        """Let `record_fast` write before that number of attempts and that moment, if nothing of the
        window's own is due before."""
        if self.capacity < self.size:
            # The ring has to grow first.
            end = min(end, max(self.end - self.capacity, self._removed) + self.capacity)
        if not self._failures and self.end - self._removed >= self.capacity:
            self._clean = True
        if not self._clean:
            # Codes of failures have to be taken out of the sums: only successes' are written over.
            slot = self.end % self.capacity
            ahead = self.codes[slot : slot + min(end - self.end, _LOOK_AHEAD)]
            end = min(end, self.end + len(ahead) - len(ahead.lstrip(b"\0")))
        self.lease_end = end
        self.lease_until = min(self._expires_at, until)

    def record_fast(self, now: float) -> bool:
        """Add a success, if there is a lease; False: nothing was done.

        These lines stand in `AdaptiveRetryMiddleware.__call__` too.
        """
        end = self.end
        if end < self.lease_end and self.newest <= now < self.lease_until:
            self.times[end % self.capacity] = self.newest = now
            self.end = end + 1
            return True
        return False

    def expire(self, now: float) -> None:
        """Drop what has expired at `now`: all of it at once, or else at most 32,768 attempts."""
        if now >= self._expires_at and self.end > self.start:
            self._expire(now, _LARGE_CHUNK)

    def set_limit(self, size: int, now: float) -> int:
        """Hold at most the newest `size` attempts from now on; give back how many that dropped.

        O(1) for a larger size, O(`size`) for a smaller one: sums and arrays are made anew from what
        is kept, so that the memory really goes back.
        """
        if size > self.size:
            self.lease_end = 0
            self.size = size
            return 0
        expired = self._expired_at(now)
        dropped = max(0, len(self) - expired - size)
        self._evict(self.start + expired + dropped, expired, dropped)
        self.size = size
        self._resize(self._fitting(len(self)))
        kept = [code for _, code in map(self.at, range(self.start, self.end)) if code]
        self._failures = len(kept)
        self._errors = dict(Counter(kept)) or None
        if not len(self):
            self._expires_at = _NEVER
        return dropped

    def set_duration(self, seconds: float) -> None:
        """Let attempts stop counting at another age from now on. O(1)."""
        self.lease_end = 0
        self.duration = seconds
        if len(self):
            self._expires_at = self.times[self.start % self.capacity] + seconds

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

    def success_rate_at(self, now: float) -> float:
        """Share of successes among the attempts that have not expired; 1.0 while there are none."""
        count = self.length_at(now)
        return (count - self.failures_at(now)) / count if count else 1.0

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
        return max(self.end - self.capacity, self._removed)

    def at(self, number: int) -> tuple[float, int]:
        """Timestamp and code of the attempt of that number, `start` <= number < `end`."""
        slot = number % self.capacity
        return self.times[slot], self.codes[slot]

    # From any thread: reads, and changes nothing.

    @property
    def fast_total(self) -> int:
        """Successes that the fast path has recorded, ever."""
        # Below the truth by one for a moment in `append`.
        return max(0, self.end - self.appended)

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

        If the loop changes the ring meanwhile, the answer may be off by what was just added.
        """
        return self._divided_at(now)[0]

    def evicted_at(self, now: float) -> tuple[int, int, int]:
        """Attempts evicted by capacity, by age (removed yet or not) and for memory, ever.

        Never more than there were; zeros, if the loop stands still right in the middle of a change.
        """
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
            expired = _expired(times, capacity, start, count, now - self.duration)
        except IndexError:  # arrays and capacity were read on two sides of a resize
            return count, 0
        return count - expired, expired

    def _expired_at(self, now: float) -> int:
        """How many attempts have expired and not been removed."""
        return self._divided_at(now)[1]

    def _count(self, code: int, among: int) -> int:
        """How many of the oldest `among` attempts have that code."""
        slot = self.start % self.capacity
        run = min(among, self.capacity - slot)
        return self.codes.count(code, slot, slot + run) + self.codes.count(code, 0, among - run)

    def _fitting(self, count: int) -> int:
        """The smallest capacity for `count` attempts: the bound halved as often as it goes."""
        capacity = self.size
        while capacity > _FIRST_CAPACITY and (capacity + 1) // 2 >= count:
            capacity = (capacity + 1) // 2
        return capacity

    def _resize(self, capacity: int) -> None:
        if capacity == self.capacity:
            return
        self.lease_end = 0
        self._removed = self.start
        # No `array("d", bytes(...))` and no slices of arrays: each would hold a second copy for a
        # moment, at the worst of moments.
        times, codes = array("d", (0.0,)) * capacity, bytearray(capacity)
        old_times, old_codes = memoryview(self.times), memoryview(self.codes)
        new_times, new_codes = memoryview(times), memoryview(codes)
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

    def _evict(self, start: int, expired: int, dropped: int = 0) -> None:
        """Hold the attempts from `start` on, and count the others as evicted."""
        self._moving += 1
        self._removed = start
        self.evicted_expired += expired
        self.evicted_memory += dropped
        self._moving += 1

    def _forget(self, code: int, count: int) -> None:
        """Take `count` attempts with that code out of the sums."""
        errors = self._errors
        if code == OK or not count or errors is None:
            return
        self._failures -= count
        errors[code] -= count
        if not errors[code]:
            del errors[code]

    def _expire(self, now: float, most: int) -> None:
        cutoff = now - self.duration
        if self.newest <= cutoff:
            self._clear()
            return
        start = self.start
        expired = _expired(self.times, self.capacity, start, min(self.end - start, most), cutoff)
        if expired:
            failures = expired - self._count(OK, expired)
            for code in tuple(self._errors or ()):
                # Counting is one pass in C; each pass done may make the rest unneeded.
                if not failures:
                    break
                found = self._count(code, expired)
                self._forget(code, found)
                failures -= found
            self._evict(start + expired, expired)
        # In the past if more than `most` had expired: the next insertion then comes here again.
        self._expires_at = self.times[self.start % self.capacity] + self.duration

    def _clear(self) -> None:
        """Let all expire at once, at a cost that does not depend on how much there is."""
        self._evict(self.end, len(self))
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
