"""The middleware: send, classify, ask the strategy, wait, send again.

Policy decides elsewhere (strategy.py), books are kept elsewhere (books.py); this file only awaits.
What belongs to one call, how often it was sent and when it must end, lives in that call's `Call`;
what belongs to an origin lives in its strategy.
"""

from __future__ import annotations

import asyncio
import logging
import random as _random
import time
from collections.abc import Awaitable, Callable
from typing import Final, cast

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from opentelemetry import trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .attempt import arrive, discard, rearm, watch_upload
from .books import Books, Call
from .config import AdaptiveConfig
from .errors import OriginUnavailable
from .faults import Faults, SafeClock
from .readings import take_snapshot
from .runs import REDIRECTS, Run
from .snapshot import Snapshot
from .strategy import checked_callable
from .telemetry import Telemetry
from .tracing import AttemptSpans

__all__ = ("AdaptiveRetryMiddleware",)

_log: Final = logging.getLogger("aiohttp_adaptive_retry")


class AdaptiveRetryMiddleware:
    """Retries what a retry can mend, within a budget per origin; for `ClientSession(middlewares=)`.

    Args:
        config: what can be set; None for the defaults.
        meter_provider: where metrics go; None for OpenTelemetry's global provider, also one that
            is set later.
        tracer_provider: where the spans of `attempt_spans` go; None for the global one.
        clock: monotonic seconds. sleep: an awaitable pause of so many seconds. random: a number
            from 0 to 1, for jitter. For tests and simulations.

    Raises:
        TypeError: an argument is of a wrong type.

    One object serves any number of sessions on one loop at a time; there is nothing to close. A
    success costs one origin look-up, two clock readings, one ring write and a few integers. When
    retries end, the caller gets the last response, unread, or the last exception.

    A middleware listed after this one runs for every attempt, one listed before it once per call.
    """

    def __init__(
        self,
        config: AdaptiveConfig | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        if config is None:
            config = AdaptiveConfig()
        elif not isinstance(config, AdaptiveConfig):
            raise TypeError(f"config must be an AdaptiveConfig or None, got {config!r}")
        if meter_provider is not None and not isinstance(meter_provider, MeterProvider):
            raise TypeError(
                f"meter_provider must be a MeterProvider or None, got {meter_provider!r}"
            )
        if tracer_provider is not None and not isinstance(tracer_provider, TracerProvider):
            raise TypeError(
                f"tracer_provider must be a TracerProvider or None, got {tracer_provider!r}"
            )
        self._config = config
        self._clock = checked_callable("clock", clock)
        self._sleep = checked_callable("sleep", sleep)
        checked_callable("random", random)
        self._attempt_timeout = config.attempt_timeout
        # Whether an attempt is no more than a call of the handler.
        self._bare = config.attempt_timeout is None and not config.attempt_spans
        self._admission = config.admission
        self._fault = Faults()
        self._safe_clock = SafeClock(clock, self._fault)
        self._books = books = Books(config, self._safe_clock, random, self._fault)
        # At hand for the hot path.
        self._retry_statuses = books.retry_statuses
        # All that is more than a success; and what is below all of it, which is faster to tell.
        self._special = books.retry_statuses | REDIRECTS
        self._plain = min(self._special)
        self._origins = books.origins
        self._noted = books.runs.noted
        self._spans = AttemptSpans(config, tracer_provider, self._fault)
        self._telemetry = Telemetry(self, self._origins, meter_provider)

    @property
    def config(self) -> AdaptiveConfig:
        """The configuration in force."""
        return self._config

    def snapshot(self) -> Snapshot:
        """Totals and per-origin state at this moment. O(origins); the loop's thread."""
        return take_snapshot(self._origins)

    def __repr__(self) -> str:
        return f"<AdaptiveRetryMiddleware origins={len(self._origins)}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request, and again where that is worth it. aiohttp calls this."""
        earlier: Run | None = None
        if self._noted:
            error, earlier = self._books.earlier_run(request, handler)
            if error is not None:
                try:
                    raise error
                finally:
                    # Its traceback holds this frame; a frame that lets go of it closes no cycle.
                    del error
        try:
            origins = self._origins
            url = request.url
            # `find` in line, as this is where nearly all calls come by.
            origin = origins.table.get(url.host_port_subcomponent)
            if origin is None or origin.scheme != url.scheme:
                origin = origins.find(url)
            elif origin is not origins.newest:
                origins.touch(origin)
            upload = None
            # Looking for a body costs more than knowing that there hardly ever is one; a GET that
            # has one all the same goes unwatched, and counts as not to be sent again.
            if request.method != "GET" and request.body:
                upload = watch_upload(request)
            try:
                started = self._clock()
            except Exception:
                started = self._safe_clock()
            origin.unended += 1
        except Exception as error:
            self._fault(error)
            return await handler(request)
        call: Call | None = None
        if self._admission:
            call = Call(origin, started, upload, earlier)
            await self._admitted(call, request, handler)
            started = call.sent
        last: BaseException | ClientResponse | None = None
        try:
            if self._bare:
                response = await handler(request)
            else:
                response = await self._attempt(
                    request, handler, 0 if earlier is None else earlier.sent
                )
        except BaseException as error:
            if call is None:
                call = Call(origin, started, upload, earlier)
            if not self._books.failed(call, request, handler, error):
                raise
            if call.hold:
                last = error
        else:
            status = response.status
            if status < self._plain or status not in self._special:
                try:
                    now = self._clock()
                    # Window.succeed in line: a call would cost as much as its work.
                    window = origin.window
                    end = window.end
                    if end < window.upto and window.newest <= now < window.until:
                        window.times[end % window.capacity] = window.newest = now
                        window.end = end + 1
                        return response
                except Exception:
                    # A clock that breaks, or gives no number.
                    now = self._safe_clock()
                self._books.succeeded(call, origin, started, now)
                return response
            if call is None:
                call = Call(origin, started, upload, earlier)
            if status not in self._retry_statuses:
                self._books.redirected_at_once(call, request, handler)
                return response
            if not await self._granted(call, request, handler, response):
                return response
            if call.hold:
                last = response
            del response
        try:
            return await self._again(call, request, handler, last)
        finally:
            # Its traceback holds this frame; a frame that lets go of it closes no cycle.
            last = None

    # The slow path: something failed, and a retry, or a hold, was granted.

    async def _again(
        self,
        call: Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        last: BaseException | ClientResponse | None,
    ) -> ClientResponse:
        """Wait and send, until an attempt succeeds or no more is granted.

        `last` is what a held call ends with if no retry comes of the hold.
        """
        try:
            while True:
                if not await self._wait(call, request, handler, last):
                    if isinstance(last, BaseException):
                        raise last
                    return cast(ClientResponse, last)
                if last is not None and not isinstance(last, BaseException):
                    last.release()
                last = None
                self._sending(call, request)
                try:
                    response = await self._attempt(request, handler, call.resends)
                except BaseException as error:
                    if not self._books.failed(call, request, handler, error):
                        raise
                    if call.hold:
                        last = error
                    continue
                if response.status not in self._retry_statuses:
                    self._books.mended(call, request, handler, response)
                    return response
                if not await self._granted(call, request, handler, response):
                    return response
                if call.hold:
                    last = response
                del response
        finally:
            last = None

    async def _granted(
        self,
        call: Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        response: ClientResponse,
    ) -> bool:
        """Ask about an answer that counts as a failure; let go of it, unless it must be kept."""
        try:
            if self._books.worth_keeping(call, response):
                await arrive(response)
            if not self._books.answered(call, request, handler, response):
                return False
            if not call.hold:
                await discard(response)
        except BaseException:
            response.release()
            self._books.end(call, "ignored")
            raise
        return True

    async def _wait(
        self,
        call: Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        last: BaseException | ClientResponse | None,
    ) -> bool:
        """Pause before a retry, as often as it takes; False if the call ends without one.

        The call holds no connection meanwhile, and what it failed with only during a hold.
        """
        while True:
            await self._pause(call, request)
            if not call.hold:
                break
            if last is None or not self._books.woken(call, request, handler, last):
                return False
            if call.ready:
                break
        try:
            # A cancelled upload has to be out of the body before the next one starts.
            await request.close()
        except Exception:
            # How the last upload ended is part of an attempt that has been judged already.
            _log.debug("upload of a failed attempt ended with an error")
        except BaseException:
            self._books.end(call, "ignored")
            raise
        return True

    async def _pause(self, call: Call, request: ClientRequest) -> None:
        try:
            try:
                await self._sleep(call.delay)
            except Exception as error:
                self._fault(error)
                await asyncio.sleep(call.delay)
            if request.session.closed:
                # Closed while we waited; aiohttp says the same of a request made now.
                raise RuntimeError("Session is closed")
        except BaseException:
            self._books.end(call, "ignored")
            raise
        call.waited += call.delay

    async def _admitted(
        self, call: Call, request: ClientRequest, handler: ClientHandlerType
    ) -> None:
        """Hold a first attempt back until it may be sent, or raise `OriginUnavailable`."""
        while not self._books.admit(call, request, handler):
            if call.refusal is not None:
                raise OriginUnavailable(call.refusal)
            try:
                await self._pause(call, request)
            except BaseException:
                call.origin.tally.unsent += 1
                raise
            call.sent = self._safe_clock()

    def _sending(self, call: Call, request: ClientRequest) -> None:
        """Count a retry that is sent now."""
        call.retries += 1
        try:
            call.sent = self._safe_clock()
            rearm(request)
            call.origin.tally.retries += 1
            # Here and not before the wait, so that there is one delay for each retry sent.
            self._telemetry.retry_delay(call.origin.label, call.waited)
            span = trace.get_current_span()
            if span.is_recording():
                span.set_attribute("http.request.resend_count", call.resends)
        except Exception as error:
            self._fault(error)

    async def _attempt(
        self, request: ClientRequest, handler: ClientHandlerType, resends: int
    ) -> ClientResponse:
        """One attempt, until its response head; a span of its own around it if that is wanted."""
        with self._spans.attempt(request, resends) as span:
            response = await self._bounded(request, handler)
            span.answered(response)
        return response

    async def _bounded(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send, within `attempt_timeout` if there is one."""
        scope = asyncio.timeout(self._attempt_timeout)
        try:
            async with scope:
                return await handler(request)
        except TimeoutError:
            if not scope.expired():
                raise
        # Of the kind that is safe to retry, and told apart from the call's own deadline.
        raise aiohttp.ServerTimeoutError(
            f"No response within attempt_timeout={self._attempt_timeout} seconds"
        )
