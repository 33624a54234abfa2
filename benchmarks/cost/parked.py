"""Section 5, held calls: processor time, bytes, and the loop's lag when they are let go.

Real clock and loop. An origin succeeds for a moment and then refuses every connection, until a
whole crowd of calls is held for it. Nothing else runs, so all that the process does is theirs.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import random
from statistics import median
from time import monotonic, process_time
from typing import cast

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientTimeout
from aiohttp.client_middlewares import build_client_middlewares
from opentelemetry.metrics import NoOpMeterProvider

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from .children import in_child
from .effort import Effort
from .figures import Spread
from .result import Goal, Section, Table
from .stand_ins import Answer, refused, requests_to

__all__ = ("parked",)

_MOST_SHARE = 3.0
_TOTAL = 60.0
# Held for as long as a call may be. A call that looks for itself may do so more than four times.
_CONFIG = AdaptiveConfig(hold_cap=_TOTAL, hold_share=1.0, max_attempts=50)
# Successes before the trouble, and seconds between them: callers at a rate that is known.
_WARM, _APART = 20, 0.01
# How long it may take until all are held.
_GATHERED = 20.0
_TICK = 0.001
#: Seconds that a call takes at the origin once it is back.
_ANSWER_TIMES = (0.0, 0.02)


@dataclass
class Site:
    """An origin that is there or not."""

    up: bool = True
    #: Seconds until an answer.
    answer_time: float = 0.0
    attempts: int = 0
    answers: int = 0
    #: Waits that the middleware began.
    waits: int = 0

    async def handle(self, request: ClientRequest) -> ClientResponse:
        """The end of the chain of middlewares."""
        self.attempts += 1
        if not self.up:
            raise refused(request)
        if self.answer_time:
            await asyncio.sleep(self.answer_time)
        self.answers += 1
        return cast(ClientResponse, Answer(200))

    def wait(self, seconds: float) -> Awaitable[object]:
        """The middleware's sleep: a real one, counted."""
        self.waits += 1
        return asyncio.sleep(seconds)


@dataclass
class Crowd:
    """Calls that fail, and are held, each a task of its own; requests are made before."""

    site: Site
    middleware: AdaptiveRetryMiddleware
    #: One request for each origin, and one for each call.
    origins: Sequence[ClientRequest]
    requests: Sequence[ClientRequest]
    tasks: list[asyncio.Task[ClientResponse]] = field(default_factory=list)

    async def call(self, request: ClientRequest) -> ClientResponse:
        """One call, as a session makes it."""
        handler: ClientHandlerType = self.site.handle
        return await build_client_middlewares(handler, (self.middleware,))(request)

    async def warm(self) -> None:
        """Successes, so that the origins are known."""
        for _ in range(_WARM):
            for request in self.origins:
                await self.call(request)
            await asyncio.sleep(_APART)

    async def gather(self) -> None:
        """Make the calls fail, and wait until all are held.

        Raises:
            RuntimeError: they are not.
        """
        self.site.up = False
        self.tasks = [asyncio.create_task(self.call(request)) for request in self.requests]
        until = monotonic() + _GATHERED
        while self.held < len(self.requests):
            if monotonic() > until:
                raise RuntimeError(f"{self.held} of {len(self.requests)} calls are held")
            await asyncio.sleep(0.05)

    @property
    def held(self) -> int:
        """Calls that are held now."""
        return sum(origin.held for origin in self.middleware.snapshot().origins)

    async def let_go(self) -> float:
        """Make the origins succeed again; seconds from then until all held calls are over.

        Each origin gets a new call, and one more a second, as held calls are let go at the pace of
        fast successes, and a busy machine may make the first ones slow.
        """
        self.site.up = True
        began, pending = monotonic(), set(self.tasks)
        while pending:
            for request in self.origins:
                await self.call(request)
            _, pending = await asyncio.wait(pending, timeout=1.0)
        return monotonic() - began

    async def leave(self) -> None:
        """Cancel what is under way."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@asynccontextmanager
async def crowd_of(count: int, origins: int, answer_time: float = 0.0) -> AsyncIterator[Crowd]:
    """A warm crowd of so many calls, spread over so many origins; afterwards nothing is left.

    Raises:
        RuntimeError: counts don't add up, or the middleware's own bookkeeping failed.
    """
    urls = [f"https://host-{number}.example.com/v1/items" for number in range(origins)]
    async with aiohttp.ClientSession(timeout=ClientTimeout(total=_TOTAL)) as session:
        site = Site(answer_time=answer_time)
        crowd = Crowd(
            site,
            AdaptiveRetryMiddleware(_CONFIG, meter_provider=NoOpMeterProvider(), sleep=site.wait),
            await requests_to(session, urls),
            await requests_to(session, [urls[number % origins] for number in range(count)]),
        )
        await crowd.warm()
        gc.collect()
        gc.freeze()
        try:
            yield crowd
        finally:
            await crowd.leave()
            gc.unfreeze()
    seen = crowd.middleware.snapshot()
    sent, successes = seen.attempts, seen.requests.first_success + seen.requests.retry_success
    if seen.faults or crowd.held or sum(sent.values()) != crowd.site.attempts:
        raise RuntimeError(f"{seen}, {crowd.site}")
    if successes != crowd.site.answers:
        raise RuntimeError(f"{seen.requests}, {crowd.site}")


# What is measured.


async def shares(windows: int, window: float) -> list[float]:
    """Percent of a processor that this process takes, in windows of so many seconds."""
    found = []
    for _ in range(windows):
        began, used = monotonic(), process_time()
        await asyncio.sleep(window)
        found.append(100.0 * (process_time() - used) / (monotonic() - began))
    return found


@dataclass(frozen=True)
class Holding:
    """What held calls take while they are held."""

    #: Percent of a processor, window by window, without the idle share.
    shares: list[float]
    #: How often a second one of them wakes to ask again.
    wakes: float
    #: Percent of a processor for as many tasks that wake as often and do nothing.
    floor: float


async def holding(count: int, origins: int, windows: int, window: float) -> Holding:
    """Hold calls for so many windows of so many seconds.

    Raises:
        RuntimeError: some are held no more.
    """
    async with crowd_of(count, origins) as crowd:
        idle = median(await shares(2, window))
        await crowd.gather()
        waits, began = crowd.site.waits, monotonic()
        taken = await shares(windows, window)
        wakes = (crowd.site.waits - waits) / (monotonic() - began)
        if crowd.held != count:
            raise RuntimeError(f"{crowd.held} of {count} calls are still held")
    floor = await _share_of_sleepers(count, wakes, window)
    return Holding([share - idle for share in taken], wakes, floor - idle)


async def _share_of_sleepers(count: int, wakes: float, window: float) -> float:
    """Percent of a processor that so many tasks take which sleep, and wake so often a second."""
    pause = count / max(1.0, wakes)

    async def sleeper() -> None:
        while True:  # noqa: ASYNC110 - it waits for nothing
            await asyncio.sleep(pause * (0.5 + random()))

    sleepers = [asyncio.create_task(sleeper()) for _ in range(count)]
    # Until they are spread.
    await asyncio.sleep(2.0 * pause)
    share = median(await shares(2, window))
    for task in sleepers:
        task.cancel()
    await asyncio.gather(*sleepers, return_exceptions=True)
    return share


async def held_bytes(count: int, origins: int) -> tuple[float, float]:
    """Bytes for each held call, and for each that only waits, the task counted in both."""
    async with crowd_of(count, origins) as crowd:
        tracemalloc.start()
        try:
            waiting = [asyncio.create_task(_answered_late(one)) for one in crowd.requests]
            await asyncio.sleep(0.01)
            plain, _ = tracemalloc.get_traced_memory()
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            waiting.clear()
            # The loop drops timers that were cancelled in its next rounds.
            await asyncio.sleep(0.01)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            await crowd.gather()
            gc.collect()
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        return (held - before) / count, plain / count


async def _answered_late(request: ClientRequest) -> None:
    """A call that waits for its answer, with nothing in between."""
    await asyncio.sleep(_TOTAL)


@dataclass(frozen=True)
class LettingGo:
    """One moment in which calls were let go. Lags are the worst ones, in milliseconds."""

    idle_lag: float
    held_lag: float
    lag: float
    #: Seconds until the last call was over.
    seconds: float


async def letting_go(count: int, answer_time: float, watched: float) -> LettingGo:
    """Hold calls for one origin for so many seconds, and let them go.

    Raises:
        RuntimeError: a call did not succeed.
    """
    async with crowd_of(count, 1, answer_time) as crowd:
        idle = await _worst_lag_during(asyncio.sleep(watched))
        await crowd.gather()
        held = await _worst_lag_during(asyncio.sleep(watched))
        ends = asyncio.create_task(crowd.let_go())
        lag = await _worst_lag_during(ends)
        failed = sum(not _succeeded(task) for task in crowd.tasks)
        if failed or crowd.held:
            raise RuntimeError(f"{failed} of {count} calls failed, {crowd.held} are held")
        return LettingGo(idle, held, lag, await ends)


async def _worst_lag_during(work: Awaitable[object]) -> float:
    """How late the loop's latest tick came, in milliseconds, until some work is done."""
    loop, task, worst = asyncio.get_running_loop(), asyncio.ensure_future(work), 0.0
    while not task.done():
        due = loop.time() + _TICK
        await asyncio.sleep(_TICK)
        worst = max(worst, loop.time() - due)
    await task
    return worst * 1e3


def _succeeded(task: asyncio.Task[ClientResponse]) -> bool:
    return task.exception() is None and task.result().status == 200


# In processes of their own.


def _held_by_itself(
    count: int, origins: int, windows: int, window: float
) -> tuple[Holding, float, float]:
    # Counting bytes makes a process slow, so it comes last.
    found = asyncio.run(holding(count, origins, windows, window))
    return found, *asyncio.run(held_bytes(count, origins))


def _let_go_by_itself(count: int, watched: float, rounds: int) -> list[list[LettingGo]]:
    return [
        [asyncio.run(letting_go(count, answer_time, watched)) for answer_time in _ANSWER_TIMES]
        for _ in range(rounds)
    ]


def parked(effort: Effort, section: Section) -> None:
    """Measure, and judge."""
    _held(effort, section)
    _let_go(effort, section)


def _held(effort: Effort, section: Section) -> None:
    rows = []
    for origins in (1, 10):
        count = origins * effort.parked
        found, size, plain = in_child(
            _held_by_itself, count, origins, effort.parked_windows, effort.parked_window
        )
        share = Spread.of(found.shares)
        rows.append(
            (
                f"{count:,} for {origins} origin{'s' if origins > 1 else ''}",
                f"{share.median:.2f}",
                f"{share.low:.2f} to {share.high:.2f}",
                f"{found.wakes:,.0f}",
                f"{found.floor:.2f}",
                f"{size:,.0f}",
                f"{plain:,.0f}",
            )
        )
        if origins == 1:
            section.goals.append(
                Goal(
                    f"{count:,} held calls, of a processor",
                    share.median,
                    _MOST_SHARE,
                    "%",
                    quartiles=(share.low, share.high),
                    why=(
                        f"they wake {found.wakes:,.0f} times a second to ask again; bare tasks "
                        f"that wake as often and do nothing take {found.floor:.2f} %."
                    ),
                )
            )
    section.tables.append(
        Table(
            "Held calls",
            (
                "calls",
                "% of a processor",
                "interquartile range",
                "wakes a second",
                "% for bare wakes",
                "bytes each",
                "of a bare task",
            ),
            rows,
        )
    )


def _let_go(effort: Effort, section: Section) -> None:
    rows = []
    rounds = in_child(_let_go_by_itself, effort.parked, effort.parked_window, effort.let_go_rounds)
    for answer_time, *found in zip(_ANSWER_TIMES, *rounds, strict=True):
        lag = Spread.of([one.lag for one in found])
        seconds = Spread.of([one.seconds for one in found])
        when = f"after {1e3 * answer_time:.0f} ms" if answer_time else "at once"
        rows.append(
            (
                f"{effort.parked:,}, answered {when}",
                f"{lag.median:.2f}",
                f"{lag.low:.2f} to {lag.high:.2f}",
                f"{median(one.held_lag for one in found):.2f}",
                f"{median(one.idle_lag for one in found):.2f}",
                f"{seconds.median:.2f}",
                f"{seconds.low:.2f} to {seconds.high:.2f}",
            )
        )
    section.tables.append(
        Table(
            "Letting go of held calls",
            (
                "calls",
                "worst lag, ms",
                "interquartile range",
                "while held, ms",
                "while idle, ms",
                "seconds until all are over",
                "interquartile range",
            ),
            rows,
        )
    )
