"""The alternatives, each used as its documentation shows, as a middleware.

They are given the benefit of the doubt: they look at exceptions only, and none keeps a history,
a budget or metrics. What they cost is what it takes not to retry.
"""

from __future__ import annotations

import time
from array import array

import aiohttp
import backoff
import hyx.retry
import stamina
import tenacity
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.client_middlewares import ClientMiddlewareType
from opentelemetry.metrics import MeterProvider

__all__ = ("InLine", "ManualRetry", "SdkPerAttempt", "rivals")


async def no_op(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """The least that a middleware can cost."""
    return await handler(request)


class InLine:
    """The bare necessities, written in line: the floor under any middleware with a history.

    One origin look-up, two clock readings, one ring write, a few integers. No expiry, no bound on
    origins, no sweeps, no guard against faults, no retry worth the name.
    """

    def __init__(self, size: int = 1000) -> None:
        self._size = size
        self._origins: dict[tuple[str, str | None], list[int]] = {}
        self._times = array("d", bytes(8 * size))
        self._codes = bytearray(size)
        self._end = 0
        self.slowest = 0.0

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        url = request.url
        key = (url.scheme, url.host_port_subcomponent)
        counts = self._origins.get(key)
        if counts is None:
            counts = self._origins[key] = [0, 0]
        began = time.monotonic()
        counts[0] += 1
        try:
            response = await handler(request)
        except aiohttp.ClientError:
            return await handler(request)
        now = time.monotonic()
        slot = self._end
        self._times[slot] = now
        self._codes[slot] = 0
        slot += 1
        self._end = slot if slot < self._size else 0
        counts[1] += 1
        if now - began > self.slowest:
            self.slowest = now - began
        return response


class ManualRetry:
    """A loop over the handler, of the kind that aiohttp's documentation recommends."""

    def __init__(self, attempts: int = 3) -> None:
        self._attempts = attempts

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        for _ in range(self._attempts):
            response = await handler(request)
            if response.status < 500:
                return response
        return response


class SdkPerAttempt:
    """Calls OpenTelemetry's instruments for every attempt, as one writes it first."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("benchmark")
        self._attempts = meter.create_counter("attempts")
        self._duration = meter.create_histogram("duration", unit="s")

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        url = request.url
        attributes: dict[str, str | int] = {
            "server.address": url.host or "",
            "server.port": url.port or 0,
        }
        began = time.monotonic()
        response = await handler(request)
        self._attempts.add(1, attributes)
        self._duration.record(time.monotonic() - began, attributes)
        return response


def rivals() -> dict[str, ClientMiddlewareType]:
    """The alternatives by name."""

    @hyx.retry.retry(on=aiohttp.ClientError, attempts=3, backoff=0.5)
    async def with_hyx(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await handler(request)

    @backoff.on_exception(backoff.expo, aiohttp.ClientError, max_tries=3)
    async def with_backoff(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await handler(request)

    @stamina.retry(on=aiohttp.ClientError, attempts=3)
    async def with_stamina(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await handler(request)

    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(aiohttp.ClientError),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(max=5),
    )
    async def with_tenacity(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return await handler(request)

    async def tenacity_loop(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(aiohttp.ClientError),
            stop=tenacity.stop_after_attempt(3),
            wait=tenacity.wait_random_exponential(max=5),
        ):
            with attempt:
                return await handler(request)
        raise AssertionError("the loop returns or raises")

    return {
        "no-op middleware": no_op,
        "aiohttp's documented loop": ManualRetry(),
        "necessities in line": InLine(),
        "hyx": with_hyx,
        "backoff": with_backoff,
        "stamina": with_stamina,
        "tenacity, decorator": with_tenacity,
        "tenacity, loop": tenacity_loop,
    }
