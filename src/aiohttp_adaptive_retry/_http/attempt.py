"""One attempt that is more than a call of the handler: with a limit of time, or with a span."""

from __future__ import annotations

import asyncio

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from opentelemetry.trace import TracerProvider

from .._origin.counters import Faults
from .._telemetry.spans import AttemptSpans
from ..config import AdaptiveConfig


class Attempts:
    """Sends requests until their response heads, as the configuration wants it."""

    def __init__(
        self, config: AdaptiveConfig, tracer_provider: TracerProvider | None, faults: Faults
    ) -> None:
        self._timeout = config.attempt_timeout
        self._spans = AttemptSpans(config, tracer_provider, faults)

    async def send(
        self, request: ClientRequest, handler: ClientHandlerType, resends: int
    ) -> ClientResponse:
        """Send once; `resends` requests were sent for the same call before."""
        timeout = self._timeout
        scope = asyncio.timeout(timeout)
        with self._spans.attempt(request, resends) as span:
            try:
                async with scope:
                    response = await handler(request)
                span.answered(response)
                return response
            except TimeoutError:
                if not scope.expired():
                    raise
            # Of the kind that is safe to retry, and told apart from the call's own deadline.
            raise aiohttp.ServerTimeoutError(
                f"No response within attempt_timeout={timeout} seconds"
            )
