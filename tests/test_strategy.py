"""The strategy alone: recording, deciding, and cleaning up without any HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import math
import weakref
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from aiohttp_adaptive_retry import AdaptiveStrategy, AttemptRecord
from aiohttp_adaptive_retry import memory as memory_module
from aiohttp_adaptive_retry.trial import REASONS, Decision, Evidence, Trial

from .kit.clock import Clock

UNLIMITED = memory_module.ContainerMemory(root=Path("/nowhere"))


def make(clock: Clock | None = None, **fields: Any) -> AdaptiveStrategy:
    return AdaptiveStrategy(clock=clock or Clock(), random=lambda: 0.5, **fields)


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


async def test_a_fresh_strategy_affords_at_least_two_retries_and_then_refuses() -> None:
    """Without any success the budget runs dry; sixty failures get at most thirty retries."""
    strategy = make()
    granted = [await strategy.should_retry(OSError()) for _ in range(60)]
    assert granted[:2] == [True, True]
    assert sum(granted) <= 30
    assert not any(granted[-20:])


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
    """A sweep lets go of texts whose attempts are gone."""
    clock = Clock()
    strategy = make(
        clock,
        record_error_messages=True,
        window_duration=timedelta(seconds=10),
        cleanup_frequency=2,
    )
    await strategy.should_retry(OSError("old"))
    clock.now += 20
    strategy.record_success()
    strategy.record_success()
    assert [record.error_message for record in strategy.recent_attempts] == [None, None]
    assert not strategy._messages


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
    for _ in range(4000):
        strategy.record_success()
    full = strategy.window.memory
    clock.now += 9
    for _ in range(20):
        strategy.record_success()
    clock.now += 5
    strategy.record_success()
    assert strategy.window.memory == full
    clock.now += 1000
    strategy.record_success()
    assert strategy.window.memory < full / 10


async def test_alone_it_answers_memory_pressure_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the threshold it keeps the newest attempts and no texts; after that it grows again."""
    clock, resident = Clock(), [200.0]
    monkeypatch.setattr(memory_module, "resident_bytes", lambda: int(resident[0] * 1024 * 1024))
    monkeypatch.setattr(memory_module, "CONTAINER", UNLIMITED)
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


async def test_under_a_containers_pressure_nothing_is_retried() -> None:
    """A waiting call holds its request; near the limit that is what kills."""
    strategy = make()
    strategy._guard.container_pressure = True
    decision = strategy.failed(0.0, 1, Trial(), Evidence())
    assert decision.reason == "memory_pressure"
    assert strategy.budget.tokens == strategy.config.budget_initial


def test_decisions_about_time() -> None:
    """A wait that can't end before the deadline, or is longer than permitted, is not begun."""
    strategy = make(retry_after_cap=10.0)
    tokens = strategy.budget.tokens

    def failed(retry_after: float | None = None, remaining: float | None = None) -> Decision:
        evidence = Evidence(retry_after=retry_after)
        return strategy.failed(0.0, 1, Trial(), evidence, remaining=remaining)

    granted = failed(9.9, 20.0)
    assert granted.reason is None
    assert 9.9 <= granted.delay <= 10.0
    assert strategy.budget.tokens == tokens - 1
    assert failed(11.0).reason == "retry_after"
    # Both too long and too late: that it is too late is what the caller can do something about.
    assert failed(3600.0, 9.0).reason == "deadline"
    assert failed(5.0, 5.0).reason == "deadline"
    assert strategy.budget.tokens == tokens - 1
    fresh = make()
    assert fresh.failed(0.0, 1, Trial(), Evidence(), remaining=0.05).reason == "deadline"
    assert fresh.budget.tokens == tokens


def test_reasons_are_few_and_spelt_as_labels() -> None:
    """Reasons become labels: a closed list of snake case."""
    assert len(REASONS) == len(set(REASONS)) < 20
    assert all(reason == reason.lower() and " " not in reason for reason in REASONS)


def test_repr_says_what_it_holds() -> None:
    """The repr is short and has the window and the budget in it."""
    strategy = make(window_size=10)
    strategy.record_success()
    assert repr(strategy) == "<AdaptiveStrategy attempts=1/10 budget=4.1/20>"


def test_its_config_is_the_effective_one() -> None:
    """Overrides are in the config that it shows."""
    strategy = make(window_size=10)
    assert dataclasses.replace(strategy.config, window_size=1000) == make().config
