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
from .pool import NO_QUEUE, UNQUEUED, Queue, WatchedQueue, is_direct, may_queue


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
        self._spans = AttemptSpans(config, tracer_provider, faults)

    def queue(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        timeout: float | None,
        limited: bool = False,
    ) -> Queue:
        """The queue that an attempt may meet which begins now.

        `limited` by something else than its `timeout`, it is more than a call of the handler too.
        """
        try:
            # Middlewares after ours may take their time, and the pool may be full by then.
            late = timeout is not None and not is_direct(handler)
            if late or may_queue(request):
                return WatchedQueue(request, self._clock)
        except Exception as fault:
            self._faults(fault)
        return UNQUEUED if limited or timeout is not None else NO_QUEUE

    async def send(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        queue: Queue,
        resends: int,
        timeout: float | None,
        left: float | None = None,
    ) -> ClientResponse:
        """Send once; `resends` requests were sent for the same call before.

        `timeout` stands still while the attempt waits in the pool's queue; `left`, the seconds
        until the call has to end, does not.
        """
        if left is not None:
            outer = asyncio.timeout(left)
            try:
                async with outer:
                    return await self.send(request, handler, queue, resends, timeout)
            except TimeoutError:
                if not outer.expired():
                    raise
            raise aiohttp.ServerTimeoutError("No response before the deadline of call_options")
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


def late() -> aiohttp.ServerTimeoutError:
    """What a call ends with that begins after the deadline of its `call_options`."""
    return aiohttp.ServerTimeoutError("Not sent: the deadline of call_options has passed")
