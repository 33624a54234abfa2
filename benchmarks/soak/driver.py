"""Calls without end in one process, and what it takes meanwhile."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import psutil
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, otlp

from .origins import Receiver, origins, session
from .trend import Trend, trend

__all__ = ("SERIES", "Soak", "soak")

#: What is sampled, and the growth of each over the measured part of a run that matters. Objects are
#: not counted: `gc.get_objects` in one thread breaks tuples that another is just making.
SERIES: Final[dict[str, float]] = {
    "rss_bytes": 3_000_000.0,
    "allocated_blocks": 4_000.0,
    "file_descriptors": 6.0,
    "tasks": 6.0,
    "threads": 2.0,
}
# Small bounds, so that all of them are reached while the run warms up.
_CONFIG = AdaptiveConfig(
    window_size=100, max_origins=64, max_labelled_origins=20, cleanup_frequency=50, hold_cap=2.0
)
_NAMES = 2000
_WORKERS = 24
# Seconds from call to call of a worker. A machine that is busy manages that too: connections that
# are kept follow the pace, and are not to grow when the machine has more time.
_PACE = 0.4
#: Share of a run that is not judged.
_WARM_UP = 0.4


@dataclass(slots=True)
class Soak:
    """What a run brought: samples by series (`seconds` too), calls by what became of them."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    exports: int = 0

    @property
    def measured(self) -> int:
        """Where the judged part of the samples begins."""
        return int(len(self.samples["seconds"]) * _WARM_UP)

    def trends(self) -> dict[str, Trend]:
        """The trend of every series after its warm-up."""
        return {
            name: trend(self.samples[name][self.measured :], least)
            for name, least in SERIES.items()
        }


class Leaking:
    """A middleware that keeps every exception: what the soak has to notice."""

    def __init__(self) -> None:
        self._kept: list[BaseException] = []

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        try:
            return await handler(request)
        except Exception as error:
            self._kept.append(error)
            raise


def soak(seconds: float, *, leak: bool = False, interval: float | None = None) -> Soak:
    """Run for so long; a sample every `interval` seconds, or about 150 in all."""
    receiver = Receiver()
    with exporting(receiver) as export:
        middlewares = [
            AdaptiveRetryMiddleware(_CONFIG, meter_provider=export.meter_provider),
            AdaptiveRetryMiddleware(
                AdaptiveConfig(
                    window_size=100, max_origins=64, max_labelled_origins=20, admission=True
                ),
                meter_provider=export.meter_provider,
            ),
        ]
        result = asyncio.run(
            _run(seconds, interval or max(0.2, seconds / 150), middlewares, receiver, leak)
        )
    receiver.stop()
    result.exports = receiver.received
    return result


@contextmanager
def exporting(receiver: Receiver) -> Iterator[otlp.OtlpExport]:
    """An exporter to the receiver, whatever the environment says of another."""
    import os

    kept = dict(os.environ)
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{receiver.port}"
    os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf"
    try:
        export = otlp.configure("soak", export_interval=0.5, export_timeout=0.4, close_timeout=1.0)
    finally:
        os.environ.clear()
        os.environ.update(kept)
    with export:
        yield export


async def _run(
    seconds: float,
    interval: float,
    middlewares: list[AdaptiveRetryMiddleware],
    receiver: Receiver,
    leak: bool,
) -> Soak:
    result = Soak({name: [] for name in ("seconds", *SERIES)})
    end = time.monotonic() + seconds
    extra = (Leaking(),) if leak else ()
    async with origins() as port:
        sessions = [session(port, middleware, *extra) for middleware in middlewares]
        workers = [
            asyncio.create_task(_worker(sessions[n % 2], port, end, result))
            for n in range(_WORKERS)
        ]
        try:
            await _sample(result, interval, end, receiver)
            await asyncio.gather(*workers)
        finally:
            for one in sessions:
                await one.close()
    return result


async def _worker(client: aiohttp.ClientSession, port: int, end: float, result: Soak) -> None:
    rng = random.Random()
    due = time.monotonic() + _PACE * rng.random()
    while (now := time.monotonic()) < end:
        await asyncio.sleep(max(0.0, due - now))
        due = max(due + _PACE, now)
        # Some names often, most of them hardly ever.
        name = f"h{int(_NAMES * rng.random() ** 3)}.test"
        call = asyncio.create_task(_call(client, f"http://{name}:{port}/p?q=1", rng))
        if rng.random() < 0.05:
            await asyncio.sleep(rng.random() * 0.1)
            call.cancel()
        try:
            await call
            result.succeeded += 1
        except asyncio.CancelledError:
            result.cancelled += 1
        except (aiohttp.ClientError, TimeoutError):
            result.failed += 1


async def _call(client: aiohttp.ClientSession, url: str, rng: random.Random) -> None:
    body = rng.choice((None, None, b"z" * 5000))
    async with client.request("GET" if body is None else "PUT", url, data=body) as response:
        await response.read()
        response.raise_for_status()


async def _sample(result: Soak, interval: float, end: float, receiver: Receiver) -> None:
    process = psutil.Process()
    begun = time.monotonic()
    read: dict[str, Callable[[], float]] = {
        "seconds": lambda: time.monotonic() - begun,
        "rss_bytes": lambda: process.memory_info().rss,
        "allocated_blocks": sys.getallocatedblocks,
        "file_descriptors": process.num_fds,
        "tasks": lambda: len(asyncio.all_tasks()),
        "threads": threading.active_count,
    }
    for number in itertools.count():
        # The collector is there for five samples, and away for five.
        if number % 10 == 0:
            receiver.start()
        elif number % 10 == 5:
            await asyncio.to_thread(receiver.stop)
        with suppress(psutil.Error):
            gc.collect()
            for name, function in read.items():
                result.samples[name].append(float(function()))
        if time.monotonic() + interval >= end:
            return
        await asyncio.sleep(interval)
