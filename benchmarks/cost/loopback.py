"""Section 2: whole requests over loopback, the server in its own process."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from time import process_time

import aiohttp
import tenacity
from aiohttp_retry import ExponentialRetry, RetryClient
from opentelemetry.instrumentation.aiohttp_client import create_trace_config
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

from .effort import Effort
from .figures import Samples, Spread, interleaved, median_of_ratios, minus, ratio_of_medians
from .result import Section, Table, compared
from .rivals import InLine, SdkPerAttempt, no_op
from .upstream import upstream

__all__ = ("loopback",)

Fetch = Callable[[], Awaitable[None]]

BARE, NO_OP, NECESSITIES = "bare session", "no-op middleware", "necessities in line"
OURS, AIOHTTP_RETRY = "ours, metrics on", "aiohttp_retry"
_CONCURRENT = (1, 32)


def loopback(effort: Effort) -> Section:
    """Measure, and judge."""
    with upstream() as url:
        samples = asyncio.run(_measured(url, effort))
    section = Section(
        title="On loopback: processor time per request",
        text=(
            "GET of a small body, read to its end, over kept-alive connections; the server is "
            "aiohttp.web in a process of its own. Microseconds of the client process, user and "
            f"system time. {effort.loopback_rounds} interleaved rounds, {effort.requests} requests "
            "in a turn, in rotating order. Our meter provider has an SDK reader, and so have the "
            "other two that use OpenTelemetry; spans are recorded and dropped."
        ),
    )
    for concurrent in _CONCURRENT:
        section.tables.append(_table(samples[concurrent], concurrent))
    at_32 = samples[32]
    section.goals += [
        compared(
            "ours of aiohttp_retry, 32 concurrent",
            at_32[OURS],
            at_32[AIOHTTP_RETRY],
            1.0,
            why="a tie within the noise of runs; the quartiles of both overlap.",
        ),
        compared(
            "ours of bare, 32 concurrent",
            at_32[OURS],
            at_32[BARE],
            1.07,
            why=(
                "a middleware that does nothing is at "
                f"{median_of_ratios(at_32[NO_OP], at_32[BARE]):.3f} here, and the bare necessities "
                "written in line, the floor under any that keeps a history, are at "
                f"{median_of_ratios(at_32[NECESSITIES], at_32[BARE]):.3f}."
            ),
        ),
    ]
    return section


async def _measured(url: str, effort: Effort) -> dict[int, Samples]:
    async with AsyncExitStack() as stack:
        fetchers = await _fetchers(url, stack)
        gc.collect()
        gc.freeze()
        try:
            return {
                concurrent: await interleaved(
                    {
                        name: _turn(fetch, effort.requests, concurrent)
                        for name, fetch in fetchers.items()
                    },
                    effort.loopback_rounds,
                )
                for concurrent in _CONCURRENT
            }
        finally:
            gc.unfreeze()


async def _fetchers(url: str, stack: AsyncExitStack) -> dict[str, Fetch]:
    """A way to fetch the URL for each variant, each over a session of its own."""

    def provider() -> MeterProvider:
        return MeterProvider(metric_readers=[InMemoryMetricReader()])

    async def session(
        *middlewares: aiohttp.ClientMiddlewareType, traces: list[aiohttp.TraceConfig] | None = None
    ) -> aiohttp.ClientSession:
        return await stack.enter_async_context(
            aiohttp.ClientSession(middlewares=middlewares, trace_configs=traces)
        )

    def plain(client: aiohttp.ClientSession | RetryClient) -> Fetch:
        async def fetch() -> None:
            async with client.get(url) as response:
                await response.read()

        return fetch

    traced = create_trace_config(tracer_provider=TracerProvider(), meter_provider=provider())
    with_tenacity = tenacity.retry(
        retry=tenacity.retry_if_exception_type(aiohttp.ClientError),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(max=5),
    )
    return {
        BARE: plain(await session()),
        NO_OP: plain(await session(no_op)),
        NECESSITIES: plain(await session(InLine())),
        OURS: plain(await session(AdaptiveRetryMiddleware(meter_provider=provider()))),
        AIOHTTP_RETRY: plain(
            RetryClient(await session(), retry_options=ExponentialRetry(attempts=3))
        ),
        "tenacity": with_tenacity(plain(await session())),
        "SDK instruments per attempt": plain(await session(SdkPerAttempt(provider()))),
        "OpenTelemetry's instrumentation": plain(await session(traces=[traced])),
    }


def _turn(fetch: Fetch, requests: int, concurrent: int) -> Callable[[], Awaitable[float]]:
    async def worker(count: int) -> None:
        for _ in range(count):
            await fetch()

    async def turn() -> float:
        each = requests // concurrent
        began = process_time()
        if concurrent == 1:
            await worker(each)
        else:
            await asyncio.gather(*(worker(each) for _ in range(concurrent)))
        return (process_time() - began) * 1e6 / (each * concurrent)

    return turn


def _table(samples: Samples, concurrent: int) -> Table:
    base = samples[BARE]
    rows = []
    for name, figures in samples.items():
        spread = Spread.of(figures)
        rows.append(
            (
                name,
                f"{spread.median:.1f}",
                f"{spread.low:.1f} to {spread.high:.1f}",
                f"{Spread.of(minus(figures, base)).median:+.1f}",
                f"{ratio_of_medians(figures, base):.3f}",
                f"{median_of_ratios(figures, base):.3f}",
            )
        )
    return Table(
        f"CPU per request, microseconds, {concurrent} concurrent",
        (
            "variant",
            "median",
            "interquartile range",
            "over bare",
            "x bare, of medians",
            "x bare, median of rounds",
        ),
        rows,
    )
