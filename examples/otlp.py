"""Ship the middleware's metrics over OTLP, set up by OpenTelemetry's standard variables.

    OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 python examples/otlp.py https://example.org/
    OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 \\
        python examples/otlp.py

Without a URL it sends its requests to a small flaky server of its own. `set_up_metrics` and
`shut_down` are what a service would copy; demo.py uses them too.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import NamedTuple

import aiohttp
from aiohttp import web
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
    OTLPMetricExporter as GrpcExporter,
)
from opentelemetry.exporter.otlp.proto.http.metric_exporter import (
    OTLPMetricExporter as HttpExporter,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

#: Seconds that an export may take, unless the environment says otherwise. Below the interval, so
#: that a slow collector costs one point of data and not a queue of them.
EXPORT_TIMEOUT = 5
#: Seconds that the last export may hold up the end of the process.
SHUTDOWN_TIMEOUT = 3.0


class Destination(NamedTuple):
    """Where metrics go: "grpc" or "http/protobuf", and the endpoint for people to read."""

    protocol: str
    endpoint: str


def destination() -> Destination:
    """What the environment chose; the variable for metrics wins over the one for all signals.

    Raises:
        ValueError: a protocol that this set-up has no exporter for.
    """
    # http/protobuf is what the specification makes the default.
    protocol = _setting("PROTOCOL") or "http/protobuf"
    if protocol not in ("grpc", "http/protobuf"):
        raise ValueError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL must be 'grpc' or 'http/protobuf', got {protocol!r}"
        )
    fallback = "http://localhost:4317" if protocol == "grpc" else "http://localhost:4318"
    return Destination(protocol, _setting("ENDPOINT") or fallback)


def endpoint_is_set() -> bool:
    """Whether the environment names a collector at all."""
    return _setting("ENDPOINT") is not None


def _setting(name: str) -> str | None:
    """A variable of OTLP's; an empty one counts as unset, as the specification says."""
    variables = (f"OTEL_EXPORTER_OTLP_METRICS_{name}", f"OTEL_EXPORTER_OTLP_{name}")
    values = (os.environ.get(variable, "").strip() for variable in variables)
    return next((value for value in values if value), None)


def resource(service_name: str) -> Resource:
    """Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win over our own words."""
    defaults = {
        "service.name": service_name,
        # Two processes that share all attributes would write the same series over each other.
        "service.instance.id": str(uuid.uuid4()),
    }
    # `Resource.create` lets its argument win over the environment; so the environment goes in last.
    return Resource.create({**defaults, **OTELResourceDetector().detect().attributes})


def set_up_metrics(service_name: str, *, interval: float = 10.0) -> MeterProvider:
    """A provider that exports every `interval` seconds, to where the environment says.

    Args:
        service_name: used unless the environment names the service.
        interval: seconds between two exports; `OTEL_METRIC_EXPORT_INTERVAL` (ms) wins over it.

    Endpoint, headers, certificates, compression and temporality are read from their standard
    variables by the exporter itself. Temporality is cumulative unless they say otherwise: a lost
    export then costs resolution and no counts, and it is what Prometheus stores.

    Give it to the middleware, and call `shut_down` at the end: without `shutdown_on_exit` the SDK
    does not, and with it a dead collector can hold up the process for 30 s.
    """
    reader = PeriodicExportingMetricReader(
        _exporter(),
        export_interval_millis=(
            None if os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") else interval * 1000
        ),
        export_timeout_millis=(
            None if os.environ.get("OTEL_METRIC_EXPORT_TIMEOUT") else EXPORT_TIMEOUT * 1000
        ),
    )
    return MeterProvider([reader], resource=resource(service_name), shutdown_on_exit=False)


def _exporter() -> MetricExporter:
    timeout = None if _setting("TIMEOUT") else EXPORT_TIMEOUT
    if destination().protocol == "grpc":
        return GrpcExporter(timeout=timeout)
    return HttpExporter(timeout=timeout)


def shut_down(provider: MeterProvider, seconds: float = SHUTDOWN_TIMEOUT) -> None:
    """Export once more and stop, within `seconds` whether the collector lives or not. Blocks.

    `force_flush` is not called: the SDK's ignores its time limit, and a shutdown exports anyway.
    """
    try:
        provider.shutdown(timeout_millis=seconds * 1000)
    except Exception as error:
        # The service's work is done by now; that its last numbers are lost is worth a line only.
        logging.getLogger(__name__).warning("metrics shutdown: %s", error)


# The rest is something to measure.


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


async def fetch(urls: list[str], provider: MeterProvider) -> bool:
    """A few requests for each URL; True if at least one brought a response."""
    retry = AdaptiveRetryMiddleware(meter_provider=provider)
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


async def run(urls: list[str], provider: MeterProvider) -> bool:
    """Requests to the URLs, or to a server of our own if there are none."""
    if urls:
        return await fetch(urls, provider)
    async with flaky_server() as url:
        return await fetch([url] * 3, provider)


def main() -> int:
    """Set up, send, shut down; the exit code is 1 if nothing answered."""
    parser = argparse.ArgumentParser(description="Ship adaptive_retry.* metrics over OTLP.")
    parser.add_argument("urls", metavar="URL", nargs="*", help="what to fetch")
    urls = parser.parse_args().urls
    # The exporter reports what it could not deliver through logging.
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    try:
        protocol, endpoint = destination()
        provider = set_up_metrics("adaptive-retry-example")
    except ValueError as error:
        parser.error(str(error))
    print(f"metrics: {protocol} to {endpoint}")
    try:
        answered = asyncio.run(run(urls, provider))
    finally:
        started = time.monotonic()
        shut_down(provider)
    print(f"last export and shutdown: {time.monotonic() - started:.1f} s")
    return 0 if answered else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
