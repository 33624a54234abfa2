"""Section 4: what is held per attempt, and what grows.

Each figure comes from a process of its own. Bytes per attempt are counted by tracemalloc, which is
exact; growth is resident memory, which is what a service pays.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from statistics import mean

import aiohttp
import psutil
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from .children import in_child
from .effort import Effort
from .holding import HOLDERS, error_for
from .result import Goal, Section, Table
from .stand_ins import LightRequest, as_request, bare

__all__ = ("memory",)

_MB = 1_000_000
_OURS = "ours"
_DEQUE = "deque of dicts"
_WINDOW = 1_000
# A way that is too slow, or that would fill the machine, gets this share of the attempts.
_SHARE_HELD = {"list rebuilt by age": 0.25}
_SHARE_GROWN = {
    "list of dicts": 0.02,
    "deque of dicts": 0.1,
    "deque of tuples": 0.1,
    "list rebuilt by age": 0.01,
}
# So many hosts, and the table has long been full.
_WARM_HOSTS = 3_000


def memory(effort: Effort) -> Section:
    """Measure, and judge."""
    text_length = mean(len(str(error_for(number))) for number in range(1_000))
    section = Section(
        title="Memory",
        text=(
            "Each figure from a fresh process. The usual ways keep a time, a type's name and "
            "the error's text, cut to 200 characters (but for the rebuilt list, which keeps none); "
            f"the texts are what aiohttp writes when a connection is refused, {text_length:.0f} "
            "characters on average. Ours keeps a time and a code, and no text unless it is asked "
            "to. Bytes per attempt are counted by tracemalloc in full windows, growth is of "
            "resident memory."
        ),
    )
    held = _held(effort, section)
    grown = _grown(effort, section)
    hosts, hosts_later = _hosts(effort, section)
    section.goals += [
        Goal("bytes per attempt, ours", held[_OURS], 10.0, "B"),
        Goal(
            "bytes per attempt, a deque of dicts over ours",
            held[_DEQUE] / held[_OURS],
            48.0,
            "x",
            at_least=True,
        ),
        # Pages that the allocator keeps back make a resident size uneven by a few hundred kB.
        Goal(f"growth over {effort.attempts:,} attempts, ours", grown, 0.5, "MB"),
        Goal(f"growth over {effort.hosts:,} hosts, ours", hosts, 2.0, "MB"),
        Goal(f"of it after the first {_WARM_HOSTS:,} hosts", hosts_later, 0.5, "MB"),
    ]
    return section


# Bytes per attempt.


def _held(effort: Effort, section: Section) -> dict[str, float]:
    rows, held = [], {}
    for name in HOLDERS:
        count = int(effort.held * _SHARE_HELD.get(name, 1.0))
        held[name] = in_child(_bytes_held, name, count)
        rows.append((name, count, held[name]))
    section.tables.append(
        Table(
            "Bytes per attempt in a full window",
            ("way to remember", "attempts held", "bytes per attempt", "x ours"),
            [
                (name, f"{count:,}", f"{size:.2f}", f"{size / held[_OURS]:.1f}")
                for name, count, size in rows
            ],
        )
    )
    return held


def _bytes_held(name: str, count: int) -> float:
    gc.collect()
    tracemalloc.start()
    hold = HOLDERS[name](count)
    for number in range(count):
        hold(number, error_for(number))
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / count


# Growth over attempts.


def _grown(effort: Effort, section: Section) -> float:
    ours = in_child(_growth_of_ours, effort.attempts)
    rows = [_growth_row("ours, whole middleware, one failure in 50", effort.attempts, ours)]
    for name in HOLDERS:
        if name != _OURS:
            count = int(effort.attempts * _SHARE_GROWN[name])
            rows.append(_growth_row(name, count, in_child(_growth_of, name, count)))
    section.tables.append(
        Table(
            f"Growth after warm-up with a window of {_WINDOW:,} attempts, where one is obeyed",
            ("way to remember", "attempts", "growth, MB", "bytes per attempt"),
            rows,
        )
    )
    return ours


def _growth_row(name: str, count: int, growth: float) -> tuple[str, ...]:
    return (name, f"{count:,}", f"{growth:.2f}", f"{growth * _MB / count:.2f}")


def _resident() -> int:
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def _growth_of(name: str, count: int) -> float:
    """Megabytes, for a way to remember on its own."""
    hold = HOLDERS[name](_WINDOW)
    for number in range(3 * _WINDOW):
        hold(number, error_for(number))
    before = _resident()
    for number in range(count):
        hold(number, error_for(number))
    return (_resident() - before) / _MB


def _growth_of_ours(count: int) -> float:
    return asyncio.run(_ours_growing(count))


async def _ours_growing(count: int) -> float:
    """Megabytes, for requests through the middleware with metrics on."""
    middleware = _middleware(AdaptiveConfig(window_size=_WINDOW))
    async with aiohttp.ClientSession() as session:
        # Not retried, so that nothing waits; recorded as any failure is.
        request = as_request(LightRequest(URL("https://api.example.com/v1"), session, "POST"))
        await _send(middleware, request, 20 * _WINDOW)
        before = _resident()
        await _send(middleware, request, count)
        return (_resident() - before) / _MB


async def _send(middleware: AdaptiveRetryMiddleware, request: ClientRequest, count: int) -> None:
    failing = _failing()
    for number in range(count):
        if number % 50:
            await middleware(request, bare)
            continue
        try:
            await middleware(request, failing)
        except aiohttp.ClientError:
            continue


def _failing() -> ClientHandlerType:
    async def handler(request: ClientRequest) -> ClientResponse:
        raise aiohttp.ServerDisconnectedError

    return handler


def _middleware(config: AdaptiveConfig) -> AdaptiveRetryMiddleware:
    provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
    return AdaptiveRetryMiddleware(config, meter_provider=provider)


# Growth over hosts.


def _hosts(effort: Effort, section: Section) -> tuple[float, float]:
    first, later = in_child(_growth_over_hosts, effort.hosts)
    section.tables.append(
        Table(
            "Growth over distinct hosts, one request each",
            ("hosts", "growth, MB"),
            [
                (f"the first {_WARM_HOSTS:,}", f"{first:.2f}"),
                (f"up to {effort.hosts:,}", f"{first + later:.2f}"),
            ],
        )
    )
    return first + later, later


def _growth_over_hosts(count: int) -> tuple[float, float]:
    return asyncio.run(_ours_over_hosts(count))


async def _ours_over_hosts(count: int) -> tuple[float, float]:
    middleware = _middleware(AdaptiveConfig())
    async with aiohttp.ClientSession() as session:

        async def visit(first: int, last: int) -> None:
            for number in range(first, last):
                url = URL(f"https://host-{number}.example.com/v1")
                await middleware(as_request(LightRequest(url, session)), bare)

        # One host warms what is there once for all of them.
        await visit(0, 1)
        before = _resident()
        await visit(1, _WARM_HOSTS)
        warm = _resident()
        await visit(_WARM_HOSTS, count)
        return (warm - before) / _MB, (_resident() - warm) / _MB
