"""Ship the middleware's metrics, and spans if wanted, over OTLP, by OpenTelemetry's variables.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 python examples/otlp.py https://example.org/
    OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 \\
        python examples/otlp.py --traces

Without a URL it sends its requests to a small flaky server of its own. All the set-up there is, is
`otlp.configure` before the loop runs and `close` after it; with `--traces` every attempt is a span.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import aiohttp
from aiohttp import web

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, otlp


async def fetch(urls: list[str], export: otlp.OtlpExport) -> bool:
    """A few requests for each URL; True if at least one brought a response."""
    retry = AdaptiveRetryMiddleware(
        AdaptiveConfig(attempt_spans=export.tracer_provider is not None),
        meter_provider=export.meter_provider,
        tracer_provider=export.tracer_provider,
    )
    answered = False
    async with aiohttp.ClientSession(
        middlewares=[retry], timeout=aiohttp.ClientTimeout(total=10)
    ) as session:
        for url in urls:
            for _ in range(3):
                try:
                    async with session.get(url) as response:
                        print(f"{response.status}  {url}")
                        answered = True
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    print(f"{type(error).__name__}  {url}")
    attempts = retry.snapshot().attempts
    print(f"attempts: {attempts['original']} original, {attempts['retry']} retries")
    return answered


@asynccontextmanager
async def flaky_server() -> AsyncIterator[str]:
    """A server on loopback whose every third answer is 503."""
    numbers = count(1)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=503 if next(numbers) % 3 == 0 else 200)

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()


async def run(urls: list[str], export: otlp.OtlpExport) -> bool:
    """Requests to the URLs, or to a server of our own if there are none."""
    if urls:
        return await fetch(urls, export)
    async with flaky_server() as url:
        return await fetch([url] * 3, export)


def main() -> int:
    """Set up, send, close; the exit code is 1 if nothing answered."""
    parser = argparse.ArgumentParser(description="Ship adaptive_retry.* metrics over OTLP.")
    parser.add_argument("urls", metavar="URL", nargs="*", help="what to fetch")
    parser.add_argument("--traces", action="store_true", help="ship a span for every attempt, too")
    arguments = parser.parse_args()
    # The exporter reports what it could not deliver through logging.
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        protocol, endpoint, _ = otlp.destination()
        export = otlp.configure("adaptive-retry-example", traces=arguments.traces)
    except ValueError as error:
        parser.error(str(error))
    print(f"metrics: {protocol} to {endpoint}")
    try:
        answered = asyncio.run(run(arguments.urls, export))
    finally:
        started = time.monotonic()
        export.close()
    print(f"last export and shutdown: {time.monotonic() - started:.1f} s")
    return 0 if answered else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
