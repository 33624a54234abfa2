"""The ring against a naive list, its bounds, and its cost in bytes."""

from __future__ import annotations

import gc
import math
import sys
import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry._origin.window import BYTES_PER_ATTEMPT, OK, Window


class NaiveWindow:
    """What a window promises, in the plainest way: a list that is filtered at every look."""

    def __init__(self, size: int, duration: float) -> None:
        self.size, self.duration = size, duration
        self.attempts: list[tuple[float, int]] = []
        self.recorded = 0

    def append(self, now: float, code: int) -> None:
        self.attempts.append((now, code))
        self.recorded += 1
        self.attempts = self.attempts[-self.size :]

    def live(self, now: float) -> list[tuple[float, int]]:
        return [(at, code) for at, code in self.attempts if at > now - self.duration]


def contents(window: Window) -> list[tuple[float, int]]:
    return [window.at(number) for number in range(window.start, window.end)]


Steps = list[tuple[str, float, int]]

steps = st.lists(
    st.tuples(
        st.sampled_from(
            ["append", "append", "fast", "fast", "expire", "compact", "shrink", "grow"]
        ),
        st.sampled_from([0.0, 0.0, 0.0, 0.001, 0.5, 1.0, 3.0, 9.99, 10.0, 10.01, 50.0]),
        st.integers(0, 5),
    ),
    min_size=12,
    max_size=200,
)


@settings(max_examples=600, deadline=None)
@given(size=st.sampled_from([1, 2, 3, 16, 17, 40, 40, 100]), steps=steps)
def test_window_equals_a_naive_list(size: int, steps: Steps) -> None:
    """Whatever happens to it, the ring shows what a list filtered by count and age would show."""
    window, naive, now = Window(size, 10.0), NaiveWindow(size, 10.0), 100.0
    before = (0, 0, 0)
    for action, seconds, code in steps:
        now += seconds
        evicted = window.evicted_at(now)
        assert all(new >= old for new, old in zip(evicted, before, strict=True))
        before = evicted
        if action == "append":
            window.append(now, code)
            naive.append(now, code)
        elif action == "fast":
            for _ in range(1 + 10 * code):
                if not window.record_fast(now):
                    window.append(now, 0)
                    window.renew_lease(window.end + 10 * code, now + 30.0)
                naive.append(now, 0)
        elif action == "expire":
            window.expire(now)
        elif action == "compact":
            window.compact()
        elif action == "shrink":
            least = max(1, size // 2)
            window.set_limit(least, now)
            naive.size = least
            naive.attempts = naive.live(now)[-least:]
        else:
            window.set_limit(size, now)
            naive.size = size
        live = naive.live(now)
        assert window.length_at(now) == len(live)
        if action not in ("append", "fast"):
            window.expire(now)
        assert contents(window)[len(window) - len(live) :] == live
        assert window.start_at(now) == window.end - len(live)
        assert window.failures_at(now) == sum(code != 0 for _, code in live)
        codes = [code for _, code in live if code]
        assert window.errors_at(now) == {code: codes.count(code) for code in set(codes)}
        evicted = window.evicted_at(now)
        assert sum(evicted) + window.length_at(now) == naive.recorded == window.end
        removed = window.evicted_capacity + window.evicted_expired + window.evicted_memory
        assert removed + len(window) == naive.recorded
        assert all(new >= old for new, old in zip(evicted, before, strict=True))
        before = evicted


def test_a_failure_further_on_than_a_lease_looks_is_taken_out_too() -> None:
    """In a ring of thousands the next lap finds each failure, however far it is."""
    window = Window(3000, math.inf)
    for number in range(3000):
        window.append(0.0, 1 if number == 2500 else OK)
    for _ in range(3000):
        if not window.record_fast(1.0):
            window.append(1.0, OK)
            window.renew_lease(sys.maxsize, math.inf)
    assert window.failures_at(1.0) == 0
    assert {code for _, code in contents(window)} == {OK}


@pytest.mark.parametrize("change", ["compact", "shrink", "grow", "expire", "append"])
def test_what_changes_the_ring_ends_the_lease(change: str) -> None:
    """A lease given to a full ring must not let it write on when it has to grow again."""
    window = Window(100, 10.0)
    for _ in range(100):
        window.append(0.0, OK)
    window.append(9.0, OK)
    window.append(10.0, OK)
    window.renew_lease(sys.maxsize, math.inf)
    assert window.record_fast(10.0)
    if change == "compact":
        window.compact()
    elif change == "shrink":
        window.set_limit(3, 10.0)
    elif change == "grow":
        window.set_limit(200, 10.0)
    elif change == "expire":
        window.expire(30.0)
    else:
        window.append(10.0, OK)
    assert not window.record_fast(10.0)


@pytest.mark.parametrize("size", [1, 7, 16, 100, 1000, 4097])
def test_length_never_exceeds_the_bound(size: int) -> None:
    """Ten times the window's size leaves the window's size, the newest ones."""
    window = Window(size, math.inf)
    for attempt in range(10 * size):
        window.append(float(attempt), attempt % 3)
        assert len(window) <= size
    assert [at for at, _ in contents(window)] == [float(n) for n in range(9 * size, 10 * size)]
    assert window.evicted_capacity == 9 * size


def test_what_expired_at_once_is_never_counted_and_costs_no_single_call_much() -> None:
    """A million attempts that expire together are gone for every reader at once."""
    window = Window(1_000_000, 10.0)
    for attempt in range(1_000_000):
        window.append(0.0 if attempt < 999_000 else 5.0, attempt % 2)
    assert window.length_at(9.0) == 1_000_000
    assert window.length_at(10.0) == 1_000
    assert len(window) == 1_000_000  # looking changes nothing
    window.append(12.0, 0)
    # One insertion drops a bounded number; the sums follow it.
    assert 990_000 < len(window) < 1_000_001
    assert window.length_at(12.0) == 1_001
    assert window.failures_at(12.0) == 500
    assert window.errors_at(12.0) == {1: 500}
    sweeps = 0
    while len(window) > 1_001:
        window.expire(12.0)
        sweeps += 1
    assert len(window) == 1_001
    assert 10 < sweeps < 40  # no call does it all
    window.expire(16.0)
    assert (len(window), window.failures_at(16.0), window.errors_at(16.0)) == (1, 0, {})
    window.expire(22.0)
    assert len(window) == 0
    assert window.memory == 8 * BYTES_PER_ATTEMPT


def test_later_insertions_finish_what_one_left() -> None:
    """Expired attempts leave with the insertions that follow, without a sweep."""
    window = Window(100_000, 10.0)
    for _ in range(99_000):
        window.append(0.0, 1)
    window.append(5.0, 0)
    for _ in range(200):
        window.append(11.0, 0)
    assert len(window) == 201
    assert window.failures_at(11.0) == 0


def test_ten_bytes_an_attempt_and_fourteen_while_growing() -> None:
    """A full window of a million holds 9 bytes an attempt, and 13.5 for the moment of growing."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        window = Window(1_000_000, math.inf)
        now = 0.0
        for _ in range(1_000_000):
            now += 1.0
            window.append(now, 0)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 9.0 <= (held - before) / 1_000_000 <= 10.0
    assert (peak - before) / 1_000_000 <= 14.0
    assert window.memory == 9_000_000


def test_a_small_start() -> None:
    """A window that may hold a million takes a few hundred bytes while it holds little."""
    window = Window(1_000_000, math.inf)
    for _ in range(10):
        window.append(1.0, 0)
    assert window.memory <= 300
    assert sys.getsizeof(window) <= 200


@pytest.mark.parametrize("size", [100, 1000, 999, 3])
def test_arrays_end_on_the_bound_itself(size: int) -> None:
    """Doubling never makes room for more than the bound."""
    window = Window(size, math.inf)
    for _ in range(size + 5):
        window.append(1.0, 0)
        assert window.memory <= size * BYTES_PER_ATTEMPT
    assert window.memory == size * BYTES_PER_ATTEMPT


def test_pressure_gives_memory_back_and_the_window_grows_again() -> None:
    """Cut to its newest, a window frees its arrays; let grow, it fills up to its size again."""
    window = Window(1000, math.inf)
    for attempt in range(1000):
        window.append(float(attempt), 1)
    assert window.set_limit(100, 1000.0) == 900
    assert window.memory <= 100 * BYTES_PER_ATTEMPT
    assert [at for at, _ in contents(window)] == [float(n) for n in range(900, 1000)]
    for attempt in range(1000, 1200):
        window.append(float(attempt), 0)
    assert len(window) == 100
    window.set_limit(1000, 1200.0)
    for attempt in range(1200, 3000):
        window.append(float(attempt), 0)
    assert len(window) == 1000
    assert window.evicted_memory == 900


def test_sweeping_gives_back_arrays_that_are_mostly_empty() -> None:
    """What expired no longer takes room once the window is compacted."""
    window = Window(10_000, 10.0)
    for _ in range(10_000):
        window.append(0.0, 0)
    for _ in range(20):
        window.append(9.0, 0)
    window.expire(12.0)
    window.compact()
    assert len(window) == 20
    assert window.memory < 100 * BYTES_PER_ATTEMPT


@pytest.mark.parametrize("reading", [math.nan, math.inf, -math.inf])
def test_a_reading_that_is_no_time_changes_no_order(reading: float) -> None:
    """Such an attempt counts as made at the time of the one before it."""
    window = Window(10, 10.0)
    window.append(reading, 1)
    window.append(5.0, 0)
    window.append(reading, 1)
    window.append(6.0, 0)
    stamps = [at for at, _ in contents(window)]
    assert stamps == sorted(stamps)
    assert stamps[-3:] == [5.0, 5.0, 6.0]
    assert len(window) == 4


def test_a_clock_that_leaps_back_starts_anew() -> None:
    """Stamps of another clock say nothing about age; a step within a second is only noise."""
    window = Window(10, 10.0)
    window.append(1000.0, 1)
    window.append(999.5, 1)
    assert [at for at, _ in contents(window)] == [1000.0, 1000.0]
    window.append(3.0, 0)
    assert contents(window) == [(3.0, 0)]
    assert window.evicted_expired == 2


def test_reading_from_another_thread_while_the_ring_changes() -> None:
    """A reader in another thread never fails and never sees a length out of bounds."""
    window, done, seen = Window(5_000, 3.0), threading.Event(), []
    evicted: list[tuple[int, int, int]] = []

    def read() -> None:
        try:
            while not done.is_set():
                seen.append(window.length_at(now))
                window.memory  # noqa: B018
                evicted.append(window.evicted_at(now))
        except BaseException as error:
            seen.append(-1)
            raise error from None

    now = 0.0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for attempt in range(60_000):
            now += 0.001 if attempt % 7_000 else 2.9
            window.append(now, attempt % 2)
            if attempt % 5_000 == 0:
                window.set_limit(50, now)
                window.set_limit(5_000, now)
    finally:
        done.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert seen
    assert min(seen) >= 0
    assert max(seen) <= 5_000
    # Once reported, a count stays: so none may ever be too large.
    last = window.evicted_at(now)
    for column in range(3):
        assert max(counts[column] for counts in evicted) <= last[column]
