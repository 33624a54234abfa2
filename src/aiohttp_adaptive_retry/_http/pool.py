"""aiohttp's pool of connections: its queue, and connections that were used before.

Neither says anything about the origin. An attempt may wait for a connection, and may then get one
that is dead by now. aiohttp tells neither by public names. The private names that are read stand
here, and in `AdaptiveRetryMiddleware.__call__`, which can't afford a call. Where a name is
missing, nothing breaks: no wait is seen, and every lost connection counts as a new one.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from types import FunctionType
from typing import Any, Final, cast

import aiohttp
import aiohttp.client
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession, TraceConfig
from aiohttp.tracing import Trace

# The mark that `AdaptiveRetryMiddleware` sets on a connection's protocol: an answer came over it.
_USED: Final = "_adaptive_retry_used"

# aiohttp's innermost handler.
_SENDING: Final = "_connect_and_send_request"
# Where aiohttp's coroutine waits for a free place in the pool.
_QUEUEING: Final = "_wait_for_available_connection"
# Traces nothing.
_SILENT: Final = TraceConfig()
_SILENT.freeze()


class Queue:
    """The pool's queue, as one attempt meets it, to be entered around the attempt: no queue."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        #: Seconds that the attempt has spent in the queue, by the middleware's clock.
        self.seconds = 0.0

    def __enter__(self) -> None:
        """The attempt begins."""

    def __exit__(self, *_: object) -> None:
        """The attempt is over."""


#: No queue, and the attempt is a call of the handler.
NO_QUEUE: Final = Queue()
#: No queue, and the attempt is more than that.
UNQUEUED: Final = Queue()


class WatchedQueue(Queue):
    """A queue that an attempt may wait in. A limit of time (`limit`) stands still in the queue.

    aiohttp reports the queue to tracers, and takes them from the session. This one is added to the
    request's own tracers for one attempt. That costs some microseconds, so a queue is watched only
    where there may be one (`may_queue`).
    """

    __slots__ = ("_clock", "_left", "_request", "_since", "_trace", "limit")

    def __init__(self, request: ClientRequest, clock: Callable[[], float]) -> None:
        super().__init__()
        self._request, self._clock = request, clock
        self._trace: _QueueTrace | None = None
        # When the wait that goes on began.
        self._since: float | None = None
        # What was left of `limit` at that moment; None while the limit's time runs.
        self._left: float | None = None
        #: The attempt's limit of time, if there is one.
        self.limit: asyncio.Timeout | None = None

    def __enter__(self) -> None:
        traces = getattr(self._request, "_traces", None)
        if isinstance(traces, list):
            self._trace = _QueueTrace(self._request.session, self)
            traces.append(self._trace)

    def __exit__(self, *_: object) -> None:
        if self._trace is not None:
            # Out of the list before anybody else looks: the caller's tracers see all events.
            with suppress(ValueError):
                cast(Any, self._request)._traces.remove(self._trace)
            self._trace = None
        # The limit is over by now, and it knows the task.
        self.limit = None
        if self._since is not None:
            # The attempt ended in the queue.
            self.end()

    def begin(self) -> None:
        """The attempt waits from now on."""
        self._since = self._clock()
        limit = self.limit
        if limit is not None and not limit.expired() and (until := limit.when()) is not None:
            self._left = until - asyncio.get_running_loop().time()
            limit.reschedule(None)

    def end(self) -> None:
        """The attempt has a place in the pool."""
        if self._since is not None:
            self.seconds += self._clock() - self._since
            self._since = None
        limit, left = self.limit, self._left
        if limit is not None and left is not None and not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time() + left)
        self._left = None


class _QueueTrace(Trace):
    """A tracer that hears of the queue alone."""

    def __init__(self, session: ClientSession, queue: WatchedQueue) -> None:
        super().__init__(session, _SILENT, _SILENT.trace_config_ctx())
        self._queue = queue

    async def send_connection_queued_start(self) -> None:
        """Note that the wait begins."""
        self._queue.begin()

    async def send_connection_queued_end(self) -> None:
        """Note that the wait ends."""
        self._queue.end()


def may_queue(request: ClientRequest) -> bool:
    """Whether an attempt that begins now may have to wait for a connection."""
    pool = getattr(request.session, "connector", None)
    if pool is None:
        return False
    most = min(pool.limit or math.inf, pool.limit_per_host or math.inf)
    return len(getattr(pool, "_acquired", ())) >= most


def is_direct(handler: ClientHandlerType) -> bool:
    """Whether a handler is aiohttp's own, with no middleware in between."""
    return isinstance(handler, FunctionType) and (
        handler.__globals__ is vars(aiohttp.client) and handler.__name__ == _SENDING
    )


def ended_in_queue(error: BaseException) -> bool:
    """Whether a time-out came while the attempt waited for a connection, so nothing was sent."""
    cause: BaseException | None = error
    # aiohttp's error, the TimeoutError below it, and the cancellation below that.
    for _ in range(4):
        if cause is None:
            break
        traceback = cause.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code.co_name == _QUEUEING:
                return True
            traceback = traceback.tb_next
        cause = cause.__cause__ or cause.__context__
    return False


def mark_used(response: ClientResponse) -> bool:
    """Note on an answer's connection that an answer came over it; False if none can be seen."""
    protocol = getattr(response, "_protocol", None)
    if protocol is not None:
        setattr(protocol, _USED, True)
    return protocol is not None


def was_used_before(request: ClientRequest) -> bool:
    """Whether the connection of the newest attempt had brought an answer before that attempt.

    The attempt itself must have brought none. The answer that aiohttp was waiting for knows the
    connection.
    """
    protocol = getattr(getattr(request, "response", None), "_protocol", None)
    return getattr(protocol, _USED, False) is True


def distrust_idle(request: ClientRequest, lost: int, left: int) -> None:
    """Close the idle connections that a request could get, once they are likely to be dead too.

    `lost` attempts of its call met a dead one, and `left` attempts are left. A single loss may be
    one connection that was idle for too long. After the second one the whole pool is suspect, and
    so it is before the last attempt. aiohttp drops closed connections from its pool by itself.
    """
    if lost > 1 or left <= 1:
        idle = getattr(request.session.connector, "_conns", {})
        for protocol, _ in idle.get(request.connection_key, ()):
            protocol.close()
