"""A service as users have it: calls at a steady pace, metrics over OTLP, an end in bounded time.

Run as a process of its own. Prints what it saw as one line of JSON when it ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import time
from dataclasses import asdict, dataclass, field

import aiohttp
import psutil

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, otlp


@dataclass
class Seen:
    """What the callers saw. Times in seconds, memory in bytes."""

    calls: int = 0
    failed: int = 0
    slowest: float = 0.0
    memory: list[int] = field(default_factory=list)
    ended_in: float = 0.0
    forked: int = 0
    suppressed: dict[str, int] = field(default_factory=dict)


async def calls(options: argparse.Namespace, export: otlp.OtlpExport, seen: Seen) -> None:
    """Call each URL at the asked pace until SIGTERM or the end of the time."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    retry = AdaptiveRetryMiddleware(
        AdaptiveConfig(window_size=options.window), meter_provider=export.meter_provider
    )
    timeout = aiohttp.ClientTimeout(total=10, sock_read=2)
    rng = random.Random(1)
    process = psutil.Process()
    async with aiohttp.ClientSession(middlewares=[retry], timeout=timeout) as session:

        async def one(url: str) -> None:
            began = time.monotonic()
            try:
                async with session.get(url) as response:
                    await response.read()
                    seen.failed += response.status >= 400
            except (aiohttp.ClientError, TimeoutError):
                seen.failed += 1
            seen.slowest = max(seen.slowest, time.monotonic() - began)

        async with asyncio.TaskGroup() as tasks:
            end = time.monotonic() + options.seconds
            sampled = 0.0
            while time.monotonic() < end and not stop.is_set():
                tasks.create_task(one(options.url[seen.calls % len(options.url)]))
                seen.calls += 1
                if time.monotonic() - sampled >= 1.0:
                    sampled = time.monotonic()
                    seen.memory.append(process.memory_info().rss)
                await asyncio.sleep(rng.expovariate(options.rate))
    seen.suppressed = dict(retry.snapshot().suppressed)


def main() -> None:
    """Set up, call, end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url", nargs="+")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--rate", type=float, default=40.0)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--interval", type=float, default=1.0)
    parser.add_argument("--fork", action="store_true", help="fork after the set-up; both call")
    options = parser.parse_args()
    export = otlp.configure("shop", export_interval=options.interval)
    seen = Seen()
    child = os.fork() if options.fork else None
    asyncio.run(calls(options, export, seen))
    began = time.monotonic()
    export.close()
    seen.ended_in = time.monotonic() - began
    if child == 0:
        os._exit(0)
    if child is not None:
        seen.forked = os.waitpid(child, 0)[1] + 1
    print(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main()
