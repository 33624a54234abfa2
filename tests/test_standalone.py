"""The strategy alone: recording, deciding, and cleaning up without any HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import math
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveStrategy, AttemptRecord, OriginUnavailable, report
from aiohttp_adaptive_retry.policy import AttemptOutcome, GiveUp, Wait
from aiohttp_adaptive_retry.standalone import StrategyCall

from .kit.clock import Clock
from .kit.waiting import until
from .policy.driving import Driving, adaptive


def make(clock: Clock | None = None, **fields: Any) -> AdaptiveStrategy:
    clock = clock or Clock()
    return AdaptiveStrategy(clock=clock, sleep=clock.sleep, random=lambda: 0.5, **fields)


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """How many bytes were taken since the block began, and not given back."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    try:
        yield lambda: tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


async def test_attempts_are_recorded_oldest_first_as_plain_values() -> None:
    """A record is a time, a type's name and perhaps a text; a success has neither of the two."""
    clock = Clock()
    strategy = make(clock)
    before = datetime.now(UTC)
    await strategy.should_retry(ValueError("secret"))
    clock.now += 60
    strategy.record_success()
    first, second = strategy.recent_attempts
    assert (first.error_type, first.error_message) == ("ValueError", None)
    assert (second.error_type, second.error_message) == (None, None)
    assert second.timestamp - first.timestamp == timedelta(seconds=60)
    assert abs(first.timestamp - before) < timedelta(seconds=30)
    assert first.timestamp.utcoffset() == timedelta(0)
    assert [type(field) for field in first] == [datetime, str, type(None)]


async def test_recent_attempts_is_a_read_only_sequence() -> None:
    """Indexes, slices, iteration and length as of a list, but nothing can be changed."""
    strategy = make(window_size=5)
    for number in range(8):
        await strategy.should_retry([KeyError, OSError][number % 2]())
    attempts = strategy.recent_attempts
    names = [record.error_type for record in attempts]
    assert names == ["OSError", "KeyError", "OSError", "KeyError", "OSError"]
    assert len(attempts) == 5
    assert attempts[0] == next(iter(attempts))
    assert attempts[-1] == list(attempts)[-1]
    assert list(attempts[1:3]) == list(attempts)[1:3]
    assert [record.error_type for record in reversed(attempts)] == names[::-1]
    with pytest.raises(IndexError):
        attempts[5]
    with pytest.raises(TypeError):
        attempts[0] = attempts[1]  # type: ignore[index]
    assert not hasattr(attempts, "append")
    assert isinstance(attempts[0], AttemptRecord)


async def test_success_rate_is_of_the_attempts_in_the_window() -> None:
    """Expired and pushed out attempts do not count; an empty window is full of hope."""
    clock = Clock()
    strategy = make(clock, window_size=4, window_duration=timedelta(seconds=10))
    assert strategy.success_rate == 1.0
    await strategy.should_retry(OSError())
    assert strategy.success_rate == 0.0
    for _ in range(3):
        strategy.record_success()
    assert strategy.success_rate == 0.75
    strategy.record_success()
    assert strategy.success_rate == 1.0
    await strategy.should_retry(OSError())
    clock.now += 10
    assert strategy.success_rate == 1.0
    assert len(strategy.recent_attempts) == 0


@pytest.mark.parametrize("initial", [1, 4])
async def test_a_fresh_strategy_affords_a_retry_and_then_refuses(initial: int) -> None:
    """Without any success the budget runs dry at once; a few more look whether all is well."""
    strategy = make(budget_initial=initial)
    granted = [await strategy.should_retry(OSError()) for _ in range(60)]
    # The first look comes as soon as a retry would.
    assert granted[:initial] == [True] * initial
    assert sum(granted) <= initial + 3
    assert sum(granted) >= 2
    assert not any(granted[-50:])


async def test_a_retry_that_mends_costs_nothing() -> None:
    """Where each retry succeeds, retries are granted for ever."""
    strategy = make()
    for _ in range(1000):
        assert await strategy.should_retry(OSError())
        strategy.record_success()


async def test_max_attempts_holds_where_the_attempt_is_told() -> None:
    """The attempt with the last number is not retried."""
    strategy = make(max_attempts=3, budget_initial=10)
    assert await strategy.should_retry(OSError(), attempt=1)
    assert await strategy.should_retry(OSError(), attempt=2)
    assert not await strategy.should_retry(OSError(), attempt=3)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()])
async def test_leaving_is_no_evidence(error: BaseException) -> None:
    """A cancelled attempt is neither recorded nor retried."""
    strategy = make()
    assert not await strategy.should_retry(error)
    assert len(strategy.recent_attempts) == 0


def test_should_retry_never_suspends() -> None:
    """It runs to its end in one step, so that calls of one loop can't interleave in it."""
    strategy = make()
    coroutine = strategy.should_retry(OSError())
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    assert ended.value.value is True


async def test_neither_exception_nor_traceback_is_held() -> None:
    """The exception is collectable at once, with all that its traceback refers to."""

    class Payload:
        pass

    strategy = make(record_error_messages=True)

    async def fail() -> weakref.ref[Payload]:
        payload = Payload()
        try:
            raise OSError("down")
        except OSError as error:
            error.payload = payload  # type: ignore[attr-defined]
            await strategy.should_retry(error)
        return weakref.ref(payload)

    held = await fail()
    gc.collect()
    assert held() is None
    assert strategy.recent_attempts[-1].error_message == "down"


async def test_texts_are_kept_only_if_asked_for_cut_and_few() -> None:
    """At most the newest hundred, at most `max_error_message_length` characters."""
    strategy = make(record_error_messages=True, max_error_message_length=10)
    for number in range(500):
        await strategy.should_retry(OSError(f"{number:03} is longer than that"))
    texts = [record.error_message for record in strategy.recent_attempts]
    assert texts[:400] == [None] * 400
    assert texts[400:] == [f"{number:03} is lo" + "n" for number in range(400, 500)]


async def test_texts_expire_with_their_attempts() -> None:
    """A sweep lets go of texts whose attempts are gone, and of their memory."""
    clock = Clock()
    strategy = make(
        clock,
        record_error_messages=True,
        max_error_message_length=100_000,
        window_duration=timedelta(seconds=10),
        cleanup_frequency=2,
    )
    with traced() as taken:
        for _ in range(50):
            await strategy.should_retry(OSError("x" * 100_000))
        assert taken() > 5_000_000
        clock.now += 20
        strategy.record_success()
        strategy.record_success()
        assert [record.error_message for record in strategy.recent_attempts] == [None, None]
        assert taken() < 100_000


async def test_types_are_cut() -> None:
    """A name is at most `max_error_type_length` characters long."""
    strategy = make(max_error_type_length=12)
    await strategy.should_retry(type("A" * 5000, (Exception,), {})())
    assert strategy.recent_attempts[0].error_type == "A" * 12


async def test_waits_grow_and_are_jittered() -> None:
    """The spans are those of the configuration; where in them is chance."""
    strategy = make(backoff_base=1.0, backoff_cap=5.0)
    assert [strategy.delay(retry) for retry in (1, 2, 3, 9)] == [0.5, 1.5, 2.5, 2.5]
    assert strategy.delay(0) == strategy.delay(1) == strategy.delay()


async def test_alone_it_sweeps_by_itself() -> None:
    """Every `cleanup_frequency` operations, or after `cleanup_interval`, arrays are given back."""
    clock = Clock()
    strategy = make(
        clock,
        window_size=10_000,
        window_duration=timedelta(seconds=10),
        cleanup_frequency=5000,
        cleanup_interval=timedelta(seconds=60),
    )
    with traced() as taken:
        for _ in range(4000):
            strategy.record_success()
        full = taken()
        assert full > 4000 * 9
        clock.now += 9
        for _ in range(20):
            strategy.record_success()
        clock.now += 5
        strategy.record_success()
        assert taken() > 0.95 * full
        clock.now += 1000
        strategy.record_success()
        assert taken() < full / 10


async def test_a_sweep_comes_after_so_many_attempts_and_not_before() -> None:
    """An expired text is held until `cleanup_frequency` attempts have been recorded."""
    clock = Clock()
    strategy = make(
        clock,
        record_error_messages=True,
        max_error_message_length=100_000,
        window_duration=timedelta(seconds=10),
        cleanup_frequency=100,
    )
    with traced() as taken:
        await strategy.should_retry(OSError("x" * 100_000))
        clock.now += 20
        for _ in range(90):
            strategy.record_success()
        assert taken() > 90_000
        for _ in range(20):
            strategy.record_success()
        assert taken() < 50_000


async def test_alone_it_answers_memory_pressure_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the threshold it keeps the newest attempts and no texts; after that it grows again."""
    clock, resident = Clock(), [200.0]

    def memory_info(process: psutil.Process) -> SimpleNamespace:
        return SimpleNamespace(rss=int(resident[0] * 1024 * 1024))

    monkeypatch.setattr(psutil.Process, "memory_info", memory_info)
    strategy = make(clock, window_size=1000, pressure_window_size=50, record_error_messages=True)
    for _ in range(1000):
        await strategy.should_retry(OSError("x"))
    resident[0] = 301
    clock.now += 1
    strategy.record_success()
    assert len(strategy.recent_attempts) == 50
    assert not any(record.error_message for record in strategy.recent_attempts)
    for _ in range(200):
        strategy.record_success()
    assert len(strategy.recent_attempts) == 50
    resident[0] = 200
    clock.now += 1
    for _ in range(2000):
        strategy.record_success()
    assert len(strategy.recent_attempts) == 1000


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf, -1e300, "late", None])
async def test_a_clock_that_breaks_breaks_nothing(broken: Any) -> None:
    """Whatever the clock gives, or raises, attempts go on being counted."""
    readings: list[Any] = [1000.0, 1001.0]

    def clock() -> float:
        value = readings.pop(0) if readings else broken
        if value is None:
            raise RuntimeError("no clock")
        return value  # type: ignore[no-any-return]

    strategy = AdaptiveStrategy(clock=clock)
    for _ in range(50):
        await strategy.should_retry(OSError())
        strategy.record_success()
    assert 0.0 <= strategy.success_rate <= 1.0
    assert all(record.timestamp.tzinfo for record in strategy.recent_attempts)


def test_repr_says_what_it_holds() -> None:
    """The repr is short and has the window and the budget in it."""
    strategy = make(window_size=10)
    strategy.record_success()
    assert repr(strategy) == "<AdaptiveStrategy attempts=1/10 budget=1.1/20>"


def test_its_config_is_the_effective_one() -> None:
    """Overrides are in the config that it shows."""
    strategy = make(window_size=10)
    assert dataclasses.replace(strategy.config, window_size=1000) == make().config


# Tasks of their own, on the surface that never suspends.


async def test_tasks_do_not_learn_from_each_others_outcomes() -> None:
    """Successes in other tasks mend no retry: hopeless calls are soon refused."""
    strategy = make()

    async def hopeless() -> bool:
        granted = await strategy.should_retry(ValueError())
        await asyncio.sleep(0)
        if granted:
            await strategy.should_retry(ValueError())
        return granted

    async def healthy() -> None:
        strategy.record_success(latency=0.05)

    granted = 0
    for _ in range(200):
        doomed = asyncio.create_task(hopeless())
        await asyncio.gather(doomed, asyncio.create_task(healthy()))
        granted += doomed.result()
    assert granted <= 10


# Calls with an identity.


def tokens(strategy: AdaptiveStrategy) -> float:
    """What the budget holds now."""
    origin = strategy._origin
    return origin.policy.tokens_at(strategy._now(), origin.untold)


def fates(strategy: AdaptiveStrategy) -> dict[str, int]:
    """What the calls that are over came to."""
    counters = strategy._origin.counters
    names = ("first_success", "retry_success", "failed_without_retry", "failed_after_retry")
    counts = {name: getattr(counters, name) for name in (*names, "refused", "ignored")}
    return {name: count for name, count in counts.items() if count}


async def run(call: StrategyCall, *errors: Exception) -> int:
    """Make attempts that fail so in turn, and then one that succeeds; how many were made."""
    for number, error in enumerate(errors, 1):
        if not await call.should_retry(error):
            return number
    call.succeeded()
    return len(errors) + 1


async def test_a_call_waits_by_the_injected_sleep_and_is_mended() -> None:
    """Two failures, two growing waits, one success: all in the window, and the tokens are back."""
    clock = Clock()
    strategy = make(clock, budget_initial=4)
    async with strategy.call() as call:
        assert await run(call, ValueError(), ValueError()) == 3
    assert clock.waits == pytest.approx([0.1, 0.3])
    assert [r.error_type for r in strategy.recent_attempts] == ["ValueError", "ValueError", None]
    assert fates(strategy) == {"retry_success": 1}
    # The first retry cost a token, the second one's came back, and the success earned a tenth.
    assert tokens(strategy) == pytest.approx(4 - 1 + 0.1)


async def test_max_attempts_hold_for_a_call() -> None:
    """Nobody has to number the attempts."""
    strategy = make(max_attempts=3, budget_initial=20)
    async with strategy.call() as call:
        assert await run(call, *(ValueError() for _ in range(9))) == 3
    assert len(strategy.recent_attempts) == 3
    assert strategy._origin.counters.suppressed == {"max_attempts": 1}
    assert fates(strategy) == {"failed_after_retry": 1}


async def test_latency_is_measured_from_the_newest_attempt() -> None:
    """Slow successes tell congestion, in which time-outs are not retried."""
    clock = Clock()
    strategy = make(clock)
    for latency in [0.05] * 100 + [0.5] * 40:
        async with strategy.call() as call:
            clock.now += latency
            call.succeeded()
    async with strategy.call() as call:
        assert not await call.should_retry(TimeoutError())
    assert strategy._origin.counters.suppressed == {"congested": 1}


async def test_a_latency_that_is_told_counts() -> None:
    """It stands in place of the time since the attempt was sent."""
    clock = Clock()
    strategy = make(clock)
    for latency in [0.05] * 100 + [0.5] * 40:
        clock.now += 1
        async with strategy.call() as call:
            call.succeeded(latency)
    async with strategy.call() as call:
        assert not await call.should_retry(TimeoutError())


class Gate:
    """A sleep that is over when the test says so."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.waiting: list[asyncio.Future[None]] = []

    async def sleep(self, seconds: float) -> None:
        self.waiting.append(future := asyncio.get_running_loop().create_future())
        await future
        self.clock.now += seconds

    async def open(self) -> None:
        """Let all that wait go on until they wait again."""
        for future in self.waiting:
            if not future.done():
                future.set_result(None)
        self.waiting.clear()
        for _ in range(5):
            await asyncio.sleep(0)


def gated(**fields: Any) -> tuple[AdaptiveStrategy, Gate]:
    """A strategy whose waits end when the gate is opened."""
    gate = Gate(Clock())
    strategy = AdaptiveStrategy(
        clock=gate.clock, sleep=gate.sleep, random=lambda: 0.5, budget_floor=0, **fields
    )
    return strategy, gate


async def told_down(strategy: AdaptiveStrategy, gate: Gate) -> None:
    """Let the origin be well and often called, and then let calls fail until it counts as down."""
    for _ in range(30):
        gate.clock.now += 0.01
        async with strategy.call() as call:
            call.succeeded(0.05)
    while strategy._origin.policy.state(strategy._now()) != "down":
        gate.clock.now += 0.01
        with contextlib.suppress(ConnectionRefusedError):
            async with strategy.call():
                raise ConnectionRefusedError


async def test_a_parked_call_is_let_go_when_another_succeeds() -> None:
    """It costs no token while it waits, and one when it goes, which comes back."""
    strategy, gate = gated()
    await told_down(strategy, gate)
    held = tokens(strategy)
    done: list[int] = []

    async def parked() -> None:
        async with strategy.call() as call:
            done.append(await run(call, ConnectionRefusedError()))

    task = asyncio.create_task(parked())
    await until(lambda: bool(gate.waiting))
    # A call without a deadline is parked for half a second.
    for _ in range(3):
        await gate.open()
        assert strategy._origin.policy.parked_calls == 1
        assert (done, tokens(strategy)) == ([], held)
    async with strategy.call() as call:
        call.succeeded(0.05)
    for _ in range(3):
        await gate.open()
    await task
    assert done == [2]
    assert strategy._origin.policy.parked_calls == 0
    assert tokens(strategy) == pytest.approx(held + 2 * 0.1)


async def test_with_admission_a_first_attempt_waits_for_the_origin_to_be_back() -> None:
    """One call probes, the others are parked, and go when the probe has succeeded."""
    strategy, gate = gated(admission=True)
    await told_down(strategy, gate)
    begun: list[int] = []
    is_up = asyncio.Event()

    async def make_call(number: int) -> None:
        async with strategy.call() as call:
            begun.append(number)
            await is_up.wait()
            call.succeeded(0.05)

    tasks = [asyncio.create_task(make_call(number)) for number in range(5)]
    await until(lambda: bool(gate.waiting))
    assert begun == [0]
    assert strategy._origin.policy.parked_calls == 4
    is_up.set()
    for _ in range(100):
        await gate.open()
    await asyncio.gather(*tasks)
    assert sorted(begun) == [0, 1, 2, 3, 4]
    assert strategy._origin.policy.parked_calls == 0


async def test_with_admission_a_call_that_would_not_be_served_is_refused() -> None:
    """`OriginUnavailable` on entering; nothing is sent, recorded or left behind."""
    strategy, gate = gated(admission=True, hold_cap=0)
    await told_down(strategy, gate)
    # It probes.
    async with strategy.call():
        pass
    recorded = len(strategy.recent_attempts)
    before = fates(strategy)
    with pytest.raises(OriginUnavailable) as refused:
        await strategy.call().__aenter__()
    assert refused.value.reason == "origin_down"
    assert len(strategy.recent_attempts) == recorded
    assert fates(strategy) == before | {"refused": 1}
    assert strategy._origin.in_flight == 0
    assert gate.waiting == []


async def test_leaving_by_an_exception_that_was_not_told_is_a_failure_without_retry() -> None:
    """It is recorded, and the exception leaves as it is."""
    strategy = make()
    error = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with strategy.call():
            raise error
    assert caught.value is error
    assert [record.error_type for record in strategy.recent_attempts] == ["KeyError"]
    assert fates(strategy) == {"failed_without_retry": 1}
    assert strategy._origin.counters.suppressed == {"not_retryable": 1}


async def test_leaving_by_the_exception_that_was_told_records_it_once() -> None:
    """Given up or granted: it has been recorded already."""
    for granted, fate in ((True, "ignored"), (False, "failed_without_retry")):
        strategy = make(max_attempts=4 if granted else 1)
        held = tokens(strategy)
        error = ValueError("told")
        with contextlib.suppress(ValueError):
            async with strategy.call() as call:
                assert await call.should_retry(error) is granted
                raise error
        assert len(strategy.recent_attempts) == 1
        assert fates(strategy) == {fate: 1}
        assert tokens(strategy) == held


async def test_a_later_exception_that_was_not_told_is_a_failure_too() -> None:
    """Also where it lies in memory where the one lay that was told."""
    strategy = make()
    with contextlib.suppress(ValueError):
        async with strategy.call() as call:
            assert await call.should_retry(ValueError("first"))
            raise ValueError("second")
    assert len(strategy.recent_attempts) == 2
    assert fates(strategy) == {"failed_after_retry": 1}


async def test_leaving_without_a_word_is_a_cancellation() -> None:
    """Nothing is recorded, and a token that was reserved comes back."""
    strategy = make(budget_floor=0)
    held = tokens(strategy)
    async with strategy.call():
        pass
    assert len(strategy.recent_attempts) == 0
    async with strategy.call() as call:
        assert await call.should_retry(ValueError())
        assert tokens(strategy) == held - 1
    assert tokens(strategy) == held
    assert len(strategy.recent_attempts) == 1
    assert fates(strategy) == {"ignored": 2}
    assert strategy._origin.in_flight == 0


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit()])
async def test_an_error_that_is_no_failure_ends_a_call(error: BaseException) -> None:
    """Told or not, it is neither recorded nor retried."""
    strategy = make()
    async with strategy.call() as call:
        assert not await call.should_retry(error)
        assert not await call.should_retry(ValueError())
    with pytest.raises(type(error)):
        async with strategy.call():
            raise error
    assert len(strategy.recent_attempts) == 0
    assert fates(strategy) == {"ignored": 2}


@pytest.mark.parametrize("error", [ValueError, ConnectionRefusedError])
async def test_a_call_that_is_cancelled_while_it_waits_gives_all_back(
    error: type[Exception],
) -> None:
    """Before a retry and while parked: the token and the place come back."""
    strategy, gate = gated()
    await told_down(strategy, gate)
    async with strategy.call() as call:
        call.succeeded(0.05)
    if error is ConnectionRefusedError:
        await told_down(strategy, gate)
    held = tokens(strategy)

    async def waits() -> None:
        async with strategy.call() as call:
            await call.should_retry(error())
            raise AssertionError("the wait was to be cancelled")

    task = asyncio.create_task(waits())
    await until(lambda: bool(gate.waiting))
    parked = strategy._origin.policy.parked_calls
    assert (parked, tokens(strategy)) == ((0, held - 1) if error is ValueError else (1, held))
    before = fates(strategy)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert strategy._origin.policy.parked_calls == 0
    assert tokens(strategy) == held
    assert fates(strategy) == before | {"ignored": 1}
    assert strategy._origin.in_flight == 0


async def test_a_call_that_is_cancelled_before_its_first_attempt_gives_its_place_back() -> None:
    """It never began to send, so that nothing is recorded."""
    strategy, gate = gated(admission=True)
    await told_down(strategy, gate)
    recorded, before = len(strategy.recent_attempts), fates(strategy)

    async def waits() -> None:
        # The second one is parked, if the first one probes.
        async with strategy.call(), strategy.call():
            raise AssertionError("the wait was to be cancelled")

    task = asyncio.create_task(waits())
    await until(lambda: bool(gate.waiting))
    assert strategy._origin.policy.parked_calls == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert strategy._origin.policy.parked_calls == 0
    assert strategy._origin.in_flight == 0
    assert len(strategy.recent_attempts) == recorded
    assert set(fates(strategy)) == {*before, "ignored"}


async def test_what_comes_after_the_end_changes_nothing() -> None:
    """A call that succeeded is over."""
    strategy = make()
    async with strategy.call() as call:
        call.succeeded()
        call.succeeded()
        assert not await call.should_retry(ValueError())
    assert len(strategy.recent_attempts) == 1
    assert fates(strategy) == {"first_success": 1}


async def test_a_hopeless_kind_beside_a_healthy_one_is_soon_left_alone() -> None:
    """Of 200 hopeless calls few are retried, though a healthy one succeeds during each."""
    strategy = make()
    granted = 0
    for _ in range(200):
        async with strategy.call() as hopeless, strategy.call() as healthy:
            again = await hopeless.should_retry(ValueError())
            granted += again
            healthy.succeeded(0.05)
            if again:
                await hopeless.should_retry(ValueError())
    assert 1 <= granted <= 10
    # The successes earned tokens, which were not spent on what is hopeless.
    assert tokens(strategy) > 15


# Calls of several kinds in several tasks.

#: What the attempts of a call raise, in turn; after them, attempts succeed.
ENDLESS = 1000
PLANS: dict[str, tuple[type[Exception], int]] = {
    "hopeless": (ValueError, ENDLESS),
    "flaky": (KeyError, 1),
    "slow": (TimeoutError, 2),
    "refused": (ConnectionRefusedError, 1),
    "healthy": (Exception, 0),
}
FIELDS: dict[str, Any] = {"budget_initial": 4.0, "max_attempts": 3}


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(sorted(PLANS)), min_size=2, max_size=8),
    turns=st.lists(st.integers(0, 7), max_size=120),
    admission=st.booleans(),
)
def test_interleaved_calls_are_what_each_call_is_by_itself(
    kinds: list[str], turns: list[int], admission: bool
) -> None:
    """Tasks take turns in any order; a driver that is told of each call by name is told the same.

    Which retries are granted, what the window holds, the tokens, and how every call ends are equal.
    """
    fields = FIELDS | {"admission": admission}
    asyncio.run(_compare_with_driver(kinds, turns, fields))


async def _compare_with_driver(kinds: list[str], turns: list[int], fields: dict[str, Any]) -> None:
    clock = Clock()
    turn = [asyncio.Event() for _ in kinds]
    idle = asyncio.Event()

    async def my_turn(number: int) -> None:
        idle.set()
        await turn[number].wait()
        turn[number].clear()

    owner: dict[asyncio.Task[Any] | None, int] = {}

    async def sleep(seconds: float) -> None:
        await my_turn(owner[asyncio.current_task()])
        clock.now += seconds

    strategy = AdaptiveStrategy(clock=clock, sleep=sleep, random=lambda: 0.5, **fields)
    granted: list[tuple[int, bool]] = []

    async def worker(number: int) -> None:
        owner[asyncio.current_task()] = number
        error, failures = PLANS[kinds[number]]
        while True:
            await my_turn(number)
            with contextlib.suppress(OriginUnavailable):
                async with strategy.call() as call:
                    left = failures
                    while True:
                        await my_turn(number)
                        clock.now += 0.05
                        if not left:
                            call.succeeded()
                            break
                        left -= 1
                        again = await call.should_retry(error())
                        granted.append((number, again))
                        if not again:
                            break

    # The same with one `Call` for each call, in the order in which they take turns.
    driving = Driving(adaptive, chance=0.5, **fields)
    expected: list[tuple[int, bool]] = []

    def model(number: int) -> Iterator[None]:
        error, failures = PLANS[kinds[number]]
        timed_out = error is TimeoutError
        while True:
            yield
            call, action = driving.begin()
            left = failures
            while not isinstance(action, GiveUp):
                yield
                if isinstance(action, Wait):
                    driving.clock.now += action.seconds
                    action = driving.wake(call)
                    if left < failures and not isinstance(action, Wait):
                        expected.append((number, not isinstance(action, GiveUp)))
                    continue
                driving.clock.now += 0.05
                latency = driving.clock.now - call.sent_at
                if not left:
                    driving.outcome(call, AttemptOutcome(True, latency=latency))
                    break
                left -= 1
                outcome = AttemptOutcome(
                    False,
                    error.__name__,
                    latency,
                    no_response=timed_out or error is ConnectionRefusedError,
                    overload=timed_out,
                )
                action = driving.outcome(call, outcome)
                if not isinstance(action, Wait):
                    expected.append((number, not isinstance(action, GiveUp)))

    tasks = [asyncio.create_task(worker(number)) for number in range(len(kinds))]
    models = [model(number) for number in range(len(kinds))]
    for each in models:
        next(each)
    for _ in range(3):
        await asyncio.sleep(0)
    for number in turns:
        if number < len(kinds):
            idle.clear()
            turn[number].set()
            await idle.wait()
            next(models[number])
            assert granted == expected
            assert clock.now == driving.clock.now
    held = driving.origin.policy.tokens_at(driving.clock.now, 0)
    assert tokens(strategy) == held
    assert strategy._origin.policy.parked_calls == driving.origin.policy.parked_calls
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    names = Counter(record.error_type for record in strategy.recent_attempts)
    failures = {name: count for name, count in names.items() if name is not None}
    assert failures == driving.counters.failures
    assert len(strategy.recent_attempts) == driving.origin.window.end


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["hopeless", "flaky"]), min_size=1, max_size=30),
    tasks=st.integers(2, 6),
    seed=st.randoms(use_true_random=False),
)
def test_calls_side_by_side_learn_what_they_learn_one_at_a_time(
    kinds: list[str], tasks: int, seed: Any
) -> None:
    """A healthy call succeeds beside each failed attempt, so that no outage is seen.

    Flaky calls are mended, at no cost, in any order. Hopeless ones are given up, and no more of
    them are retried than one at a time, but for those that were under way when it was learnt.
    """
    one_by_one = asyncio.run(_learn(kinds, 1, seed))
    side_by_side = asyncio.run(_learn(kinds, tasks, seed))
    assert side_by_side.mended == one_by_one.mended == kinds.count("flaky")
    assert 0 <= side_by_side.wasted - one_by_one.wasted <= tasks - 1
    for learnt in (one_by_one, side_by_side):
        earned = 0.5 * (learnt.successes + learnt.mended)
        assert learnt.tokens == pytest.approx(learnt.initial + earned - learnt.wasted)
    if kinds.count("hopeless") > 4 + tasks:
        assert not one_by_one.hopeless_again
        assert not side_by_side.hopeless_again
    assert one_by_one.flaky_again
    assert side_by_side.flaky_again


@dataclasses.dataclass
class Learnt:
    """What calls came to, and what was learnt from them."""

    mended: int
    wasted: int
    successes: int
    initial: float
    tokens: float
    hopeless_again: bool
    flaky_again: bool


async def _learn(kinds: list[str], workers: int, chance: Any) -> Learnt:
    clock = Clock()

    async def pause() -> None:
        # No time passes, and others take their turns.
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(0)

    async def sleep(seconds: float) -> None:
        await healthy()
        await pause()

    strategy = AdaptiveStrategy(
        clock=clock,
        sleep=sleep,
        random=lambda: 0.5,
        max_attempts=2,
        budget_capacity=1e6,
        budget_initial=1000,
        # The most that a success may earn, so that it does not rise with what is mended.
        budget_deposit=0.5,
        budget_floor=0,
    )
    mended = wasted = successes = 0
    initial = tokens(strategy)
    queue = list(kinds)

    async def healthy() -> None:
        nonlocal successes
        async with strategy.call() as call:
            call.succeeded(0.05)
            successes += 1

    async def one(kind: str) -> None:
        nonlocal mended, wasted
        error, failures = PLANS[kind]
        async with strategy.call() as call:
            await pause()
            again = await call.should_retry(error())
            await healthy()
            if again:
                await pause()
                if failures == 1:
                    mended += 1
                    call.succeeded(0.05)
                else:
                    wasted += 1
                    await call.should_retry(error())
                    await healthy()

    async def worker() -> None:
        while queue:
            await one(queue.pop(0))

    for _ in range(20):
        await healthy()
    await asyncio.gather(*(asyncio.create_task(worker()) for _ in range(workers)))
    left, earned = tokens(strategy), successes
    again = []
    for kind in ("hopeless", "flaky"):
        async with strategy.call() as call:
            again.append(await call.should_retry(PLANS[kind][0]()))
    return Learnt(mended, wasted, earned, initial, left, *again)


async def test_the_error_of_a_call_that_is_given_up_says_why() -> None:
    """It carries a note and a report, as one of the middleware does; another's error has none."""
    clock = Clock()
    strategy = AdaptiveStrategy(max_attempts=2, clock=clock, sleep=clock.sleep, random=lambda: 0.5)
    errors = [ConnectionResetError("one"), ConnectionResetError("two")]
    async with strategy.call() as call:
        answers = [await call.should_retry(error) for error in errors]
    assert answers == [True, False]
    assert report(errors[0]) is None
    found = report(errors[1])
    assert found is not None
    assert (found.attempts, found.reason) == (2, "max_attempts")
    assert found.error_types == ("ConnectionResetError",) * 2
    assert found.waited == pytest.approx(sum(clock.waits)) != 0.0
    assert errors[1].__notes__ == [str(found)]
    untold = ValueError("untold")
    with pytest.raises(ValueError, match="untold"):
        async with strategy.call():
            raise untold
    assert untold.__notes__ == [
        "aiohttp_adaptive_retry: 1 attempt in 0.0 s; no further retry: not_retryable"
    ]


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_no_retry_is_granted_where_the_mode_says_so(mode: Any) -> None:
    """By neither way of asking; calls that admission would refuse begin, and all is recorded."""
    clock = Clock()
    strategy = AdaptiveStrategy(mode=mode, admission=True, clock=clock, sleep=clock.sleep)
    for _ in range(40):
        clock.now += 1.0
        async with strategy.call() as call:
            assert not await call.should_retry(ConnectionRefusedError())
    assert not await strategy.should_retry(ConnectionRefusedError())
    assert clock.waits == []
    assert len(strategy.recent_attempts) == 41
