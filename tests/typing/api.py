"""Calls as users write them. Never run: type checkers read it (test_typing.py).

What is wrong on purpose has an ignore; a checker that sees nothing wrong there calls the ignore
unnecessary, and the test fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Literal, assert_type

import aiohttp
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from aiohttp_adaptive_retry import (
    AdaptiveConfig,
    AdaptiveRetryMiddleware,
    AdaptiveStrategy,
    AttemptRecord,
    CallReport,
    OriginUnavailable,
    RetryEvent,
    Snapshot,
    Verdict,
    attach,
    call_options,
    detach,
    instrument,
    report,
    uninstrument,
)
from aiohttp_adaptive_retry.otlp import OtlpExport, configure


async def listed(meters: MeterProvider, tracers: TracerProvider) -> None:
    """The middleware, as it is attached."""
    retry = AdaptiveRetryMiddleware()
    middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = (retry,)
    async with aiohttp.ClientSession(middlewares=middlewares) as session:
        async with session.get("https://example.com/") as response:
            assert_type(response.status, int)
        try:
            await session.get("https://example.com/", middlewares=(retry,))
        except OriginUnavailable as error:
            assert_type(error.reason, str)
            assert_type(error.origin, str)
            assert_type(error.retry_after, float | None)
            raise aiohttp.ClientError from error
    assert_type(retry.config, AdaptiveConfig)
    assert_type(retry.snapshot(), Snapshot)
    AdaptiveRetryMiddleware(
        AdaptiveConfig(max_attempts=3, attempt_spans=True),
        meter_provider=meters,
        tracer_provider=tracers,
        clock=lambda: 0.0,
        sleep=asyncio.sleep,
        random=lambda: 0.5,
    )


def by_origin() -> None:
    """Settings by origin, the switch, and other settings."""
    retry = AdaptiveRetryMiddleware(origins={"https://example.com": AdaptiveConfig.batch()})
    assert_type(retry.mode, Literal["on", "observe", "off"])
    retry.mode = "observe"
    retry.reconfigure(AdaptiveConfig(mode="off"))
    retry.mode = "of"  # type: ignore[assignment]
    retry.reconfigure({"max_attempts": 3})  # type: ignore[arg-type]
    AdaptiveRetryMiddleware(origins={"example.com": {"max_attempts": 3}})  # type: ignore[dict-item]


def attached(session: aiohttp.ClientSession) -> None:
    """Sessions that others make."""
    retry = AdaptiveRetryMiddleware()
    attach(session, retry)
    detach(session)
    detach(session, retry)
    instrument(retry)
    uninstrument()
    attach(session, AdaptiveRetryMiddleware)  # type: ignore[arg-type]
    instrument()  # type: ignore[call-arg]


async def vouched(session: aiohttp.ClientSession) -> None:
    """Options for the calls of a block."""
    with call_options(idempotent=True, max_attempts=3, attempt_timeout=1, retry_for=timedelta(1)):
        async with session.post("https://example.com/") as response:
            assert_type(response.status, int)
    with call_options(deadline=timedelta(seconds=2), hold_cap=0, enabled=False):
        await session.get("https://example.com/")


async def judged(response: aiohttp.ClientResponse) -> Verdict | None:
    """An async `classify`."""
    return Verdict.retry(after=timedelta(seconds=2), name="busy") if response.ok else None


def judged_at_once(response: aiohttp.ClientResponse) -> Verdict | None:
    """A plain one."""
    return Verdict.retry(after=2) if response.ok else Verdict.fail(name="quota")


def told(event: RetryEvent) -> None:
    """What is told of calls."""
    assert_type(event.delay, float)
    assert_type(event.reason, str | None)


async def seen() -> None:
    """The user's word on answers, and what is seen of one call."""
    AdaptiveRetryMiddleware(classify=judged)
    retry = AdaptiveRetryMiddleware(classify=judged_at_once, on_event=told)
    AdaptiveRetryMiddleware(on_event=lambda event: print(event.kind))
    async with aiohttp.ClientSession(middlewares=[retry]) as session:
        try:
            response = await session.get("https://example.com/")
        except aiohttp.ClientError as error:
            assert_type(report(error), CallReport | None)
        else:
            known = report(response)
            if known is not None:
                assert_type(known.error_types, tuple[str, ...])


async def decide() -> None:
    """The strategy without HTTP."""
    strategy = AdaptiveStrategy(window_size=100, window_duration=timedelta(minutes=5))
    assert_type(await strategy.should_retry(OSError(), attempt=1), bool)
    strategy.record_success()
    strategy.record_success(latency=0.1)
    assert_type(strategy.delay(retry=2), float)
    assert_type(strategy.success_rate, float)
    assert_type(strategy.window_size, int)
    assert_type(strategy.recent_attempts, Sequence[AttemptRecord])
    newest = strategy.recent_attempts[-1]
    assert_type(newest.error_type, str | None)
    assert_type(strategy.recent_attempts[:2], Sequence[AttemptRecord])


def configured() -> None:
    """Sets, lists and tuples are collections; ints are numbers."""
    AdaptiveConfig(retry_methods={"GET"}, retry_statuses=[503], memory_threshold_mb=50)
    AdaptiveConfig(retry_methods=("GET", "POST"), attempt_timeout=2, cleanup_interval=timedelta(1))
    AdaptiveConfig(window_duration=1800, hold_cap=timedelta(minutes=1), retry_for=timedelta(1))
    AdaptiveRetryMiddleware(max_attempts=3, attempt_timeout=timedelta(seconds=2), retry_for=30)
    assert_type(AdaptiveConfig(window_duration=1800).window_duration, timedelta)
    assert_type(AdaptiveConfig(hold_cap=timedelta(minutes=1)).hold_cap, float)
    assert_type(AdaptiveConfig.from_mapping({"max_attempts": 3}), AdaptiveConfig)
    assert_type(AdaptiveConfig.from_env(environ={"ADAPTIVE_RETRY_HOLD_CAP": "0"}), AdaptiveConfig)
    assert_type(AdaptiveConfig.interactive(), AdaptiveConfig)
    assert_type(AdaptiveConfig.batch(max_attempts=20, hold_share=0.5), AdaptiveConfig)
    with configure("shop", traces=True) as export:
        assert_type(export, OtlpExport)


def wrong() -> None:
    """What a checker must refuse."""
    AdaptiveConfig(object())  # type: ignore[arg-type, call-arg]
    AdaptiveConfig(window_size="100")  # type: ignore[arg-type]
    AdaptiveConfig(window_siz=100)  # type: ignore[call-arg]
    AdaptiveConfig(window_duration="30")  # type: ignore[arg-type]
    AdaptiveConfig().window_size = 5  # type: ignore[misc]
    AdaptiveConfig.interactive(max_atempts=5)  # type: ignore[call-arg]
    AdaptiveConfig.batch(hold_cap="60")  # type: ignore[arg-type]
    AdaptiveStrategy(max_attempt=5)  # type: ignore[call-arg]
    AdaptiveStrategy(max_attempts=None)  # type: ignore[arg-type]
    AdaptiveRetryMiddleware(max_attempt=5)  # type: ignore[call-arg]
    AdaptiveRetryMiddleware(max_attempts="5")  # type: ignore[arg-type]
    call_options(max_attempt=5)  # type: ignore[arg-type]
    call_options(idempotent="yes")  # type: ignore[arg-type]
    AdaptiveRetryMiddleware(None, 5)  # type: ignore[arg-type]
    AdaptiveRetryMiddleware(clock=1.0)  # type: ignore[arg-type]
    AdaptiveRetryMiddleware(classify=lambda response: True)  # type: ignore[arg-type, return-value]
    AdaptiveRetryMiddleware(on_event="print")  # type: ignore[arg-type]
    Verdict.success(name="x")  # type: ignore[call-arg]
    AdaptiveRetryMiddleware().config = AdaptiveConfig()  # type: ignore[misc]
    AdaptiveStrategy().recent_attempts.append(None)  # type: ignore[attr-defined]
