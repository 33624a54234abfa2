"""Section 1: what the middleware itself costs on the path of a success.

The chain is built for every request, as aiohttp does, around a handler that answers at once.
Garbage collection stays on, as in a service; what was there before is frozen, for all alike.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from time import process_time
from types import TracebackType

import aiohttp
from aiohttp import ClientRequest
from aiohttp.client_middlewares import ClientMiddlewareType, build_client_middlewares
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

from .effort import Effort
from .figures import Samples, Spread, interleaved, median_of_ratios, minus, ratio_of_medians
from .result import Goal, Section, Table, compared
from .rivals import rivals
from .stand_ins import bare, requests_to

__all__ = ("in_process", "per_call")

BARE = "bare handler"
NO_OP = "no-op middleware"
OURS_ON = "ours, metrics on"
OURS_OFF = "ours, metrics off"
COUNTER = "one SDK counter call"
COLLECTION = "one collection, one origin"
# Ours gets longer turns, since one of its turns holds a whole collection: even so it collects
# hundreds of times as often as the SDK's default of once a minute.
_LONGER = 4
_URL = "https://api.example.com:8443/v1/items?page=2"


class Collecting(AbstractContextManager[None]):
    """Collects once, on a thread of its own, while the body of the `with` runs."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader
        self._thread = threading.Thread()

    def __enter__(self) -> None:
        self._thread = threading.Thread(target=self._reader.get_metrics_data)
        self._thread.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.join()


async def per_call(
    middleware: ClientMiddlewareType | None,
    requests: list[ClientRequest],
    calls: int,
    beside: AbstractContextManager[None] | None = None,
) -> float:
    """Microseconds of the process's time for one call, the requests taken in turn."""
    rounds = max(1, calls // len(requests))
    middlewares = (middleware,) if middleware is not None else ()
    began = process_time()
    with beside or nullcontext():
        if middleware is None:
            for _ in range(rounds):
                for request in requests:
                    await bare(request)
        else:
            for _ in range(rounds):
                for request in requests:
                    await build_client_middlewares(bare, middlewares)(request)
    return (process_time() - began) * 1e6 / (rounds * len(requests))


async def _repeated(work: Callable[[], object], calls: int) -> float:
    began = process_time()
    for _ in range(calls):
        work()
    return (process_time() - began) * 1e6 / calls


def in_process(effort: Effort) -> Section:
    """Measure, and judge."""
    return asyncio.run(_in_process(effort))


async def _in_process(effort: Effort) -> Section:
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    counter_reader = InMemoryMetricReader()
    counter = (
        MeterProvider(metric_readers=[counter_reader]).get_meter("benchmark").create_counter("one")
    )
    attributes: dict[str, str | int] = {"server.address": "api.example.com", "server.port": 8443}
    middlewares: dict[str, ClientMiddlewareType | None] = {
        BARE: None,
        OURS_ON: AdaptiveRetryMiddleware(meter_provider=provider),
        OURS_OFF: AdaptiveRetryMiddleware(meter_provider=NoOpMeterProvider()),
        **rivals(),
    }
    async with aiohttp.ClientSession() as session:
        requests = await requests_to(session, [_URL])
        turns: dict[str, Callable[[], Awaitable[float]]] = {}
        most = 0
        for name, middleware in middlewares.items():
            # A trial says how many calls fill a turn.
            calls = int(effort.turn * 1e6 / await per_call(middleware, requests, 200))
            if name in (OURS_ON, OURS_OFF):
                calls = most = max(most, calls * _LONGER)
            turns[name] = _turn(
                middleware, requests, calls, Collecting(reader) if name == OURS_ON else None
            )
        turns[COLLECTION] = lambda: _repeated(reader.get_metrics_data, 1)
        turns[COUNTER] = lambda: _repeated(
            lambda: counter.add(1, attributes), int(effort.turn * 1e6 / 6)
        )
        gc.collect()
        gc.freeze()
        try:
            samples = await interleaved(turns, effort.in_process_rounds)
        finally:
            gc.unfreeze()
    return _judged(samples, most)


def _turn(
    middleware: ClientMiddlewareType | None,
    requests: list[ClientRequest],
    calls: int,
    beside: AbstractContextManager[None] | None,
) -> Callable[[], Awaitable[float]]:
    return lambda: per_call(middleware, requests, calls, beside)


def _judged(samples: Samples, calls: int) -> Section:
    base = samples[BARE]
    over = {name: minus(figures, base) for name, figures in samples.items()}
    no_op, on, off = over[NO_OP], over[OURS_ON], over[OURS_OFF]
    rows = []
    for name, figures in samples.items():
        spread, net = Spread.of(figures), Spread.of(over[name])
        rival = name not in (BARE, COUNTER, COLLECTION)
        rows.append(
            (
                name,
                f"{spread.median:.3f}",
                f"{spread.low:.3f} to {spread.high:.3f}",
                f"{net.median:.3f}" if rival else "",
                f"{ratio_of_medians(over[name], no_op):.2f}" if rival else "",
                f"{median_of_ratios(over[name], no_op):.2f}" if rival else "",
            )
        )
    section = Section(
        title="In process: processor time per call",
        text=(
            "A success through a chain that is built for every request, as aiohttp does it, with "
            "one real ClientRequest and a handler that answers at once. Microseconds of process "
            f"time, {len(base)} interleaved rounds in rotating order. With metrics on, an SDK "
            f"reader on a thread of its own collects once in every turn of {calls:,} calls, and "
            "its time counts. Garbage collection is on and what was there before is frozen, for "
            "all alike. The alternatives look at exceptions only and keep no history."
        ),
    )
    section.tables.append(
        Table(
            "CPU per call, microseconds",
            (
                "variant",
                "median",
                "interquartile range",
                "over bare",
                "x no-op, of medians",
                "x no-op, median of rounds",
            ),
            rows,
        )
    )
    section.goals += [
        Goal(
            "ours over bare (for a machine where a no-op costs 0.32)",
            Spread.of(on).median,
            1.5,
            "µs",
            why=(
                f"a no-op middleware costs {Spread.of(no_op).median:.3f} here; at the same ratio "
                f"ours would cost {0.32 * ratio_of_medians(on, no_op):.2f} where one costs 0.32. "
                "What is left is in the row of the necessities."
            ),
        ),
        compared("ours over bare, in no-op middlewares", on, no_op, 4.5),
        compared("ours over bare, of backoff over bare", on, over["backoff"], 0.65),
        compared("metrics on over metrics off", on, off, 1.05),
    ]
    return section
