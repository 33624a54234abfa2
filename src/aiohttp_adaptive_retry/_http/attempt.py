"""One attempt that is more than a call of the handler: a limit of time, a span, a pool's queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from opentelemetry.trace import TracerProvider

from .._origin.counters import Faults
from .._telemetry.spans import AttemptSpans
from ..config import AdaptiveConfig
from .pool import NO_QUEUE, Queue, WatchedQueue, is_direct, may_queue


class Attempts:
    """Sends requests until their response heads, as the configuration wants it."""

    def __init__(
        self,
        config: AdaptiveConfig,
        tracer_provider: TracerProvider | None,
        faults: Faults,
        clock: Callable[[], float],
    ) -> None:
        self._faults, self._clock = faults, clock
        self._timeout = config.attempt_timeout
        self._spans = AttemptSpans(config, tracer_provider, faults)
        #: Whether every attempt is more than a call of the handler.
        self.always = config.attempt_timeout is not None or config.attempt_spans

    def queue(self, request: ClientRequest, handler: ClientHandlerType) -> Queue:
        """The queue that an attempt may meet which begins now."""
        try:
            # Middlewares after ours may take their time, and the pool may be full by then.
            late = self._timeout is not None and not is_direct(handler)
            if late or may_queue(request):
                return WatchedQueue(request, self._clock)
        except Exception as fault:
            self._faults(fault)
        return NO_QUEUE

    async def send(
        self, request: ClientRequest, handler: ClientHandlerType, queue: Queue, resends: int
    ) -> ClientResponse:
        """Send once; `resends` requests were sent for the same call before.

        The limit of time stands still while the attempt waits in the pool's queue.
        """
        timeout = self._timeout
        scope = asyncio.timeout(timeout)
        if isinstance(queue, WatchedQueue):
            queue.limit = scope
        with queue, self._spans.attempt(request, resends) as span:
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
