"""The middleware: send, classify, ask the strategy, wait, send again.

Policy decides elsewhere; this file only awaits and keeps books. What belongs to one call (how
often it was sent, when it must end) lives in that call's `_Call`, and what belongs to an origin in
its strategy.
"""

from __future__ import annotations

import asyncio
import logging
import random as _random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, hdrs
from opentelemetry import trace
from opentelemetry.metrics import MeterProvider

from .attempt import (
    Runs,
    UploadWatch,
    classify,
    discard,
    is_redirect,
    may_be_sent_again,
    rearm,
    total_timeout,
    watch_upload,
)
from .backoff import parse_retry_after
from .config import AdaptiveConfig
from .errors import error_name
from .faults import Faults, SafeClock
from .ledger import Outcome
from .origins import Origin, Origins
from .readings import take_snapshot
from .snapshot import Snapshot
from .strategy import Reason, checked_callable
from .telemetry import Telemetry

__all__ = ("AdaptiveRetryMiddleware",)

_log: Final = logging.getLogger("aiohttp_adaptive_retry")


class _Call:
    """One call that has failed at least once. Lives as long as the call."""

    __slots__ = ("deadline", "delay", "ended", "origin", "reserved", "retries", "started", "upload")

    def __init__(self, origin: Origin, started: float, upload: UploadWatch | None) -> None:
        self.origin = origin
        self.started = started
        self.upload = upload
        #: When the call must have ended, by our clock; None for never. Known from `_judged` on.
        self.deadline: float | None = None
        #: Retries sent.
        self.retries = 0
        #: Seconds to wait before the next.
        self.delay = 0.0
        #: Whether a token of the budget is held for a retry that has not been judged yet.
        self.reserved = False
        self.ended = False


class AdaptiveRetryMiddleware:
    """Retries what a retry can mend, within a budget per origin; for `ClientSession(middlewares=)`.

    Args:
        config: what can be set; None for the defaults.
        meter_provider: where metrics go; None for OpenTelemetry's global provider, also one that
            is set later.
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
        self._config = config
        self._clock = checked_callable("clock", clock)
        self._sleep = checked_callable("sleep", sleep)
        checked_callable("random", random)
        self._attempt_timeout = config.attempt_timeout
        self._max_retries = config.max_attempts - 1
        self._retry_methods = frozenset(config.retry_methods)
        self._retry_statuses = frozenset(config.retry_statuses)
        self._fault = Faults()
        self._safe_clock = SafeClock(clock, self._fault)
        self._origins = Origins(config, self._safe_clock, random, self._fault)
        self._ledger = self._origins.ledger
        self._runs = Runs()
        self._noted = self._runs.noted
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
        began: float | None = None
        if self._noted:
            error, began = self._earlier_run(request, handler)
            if error is not None:
                try:
                    raise error
                finally:
                    # Its traceback holds this frame; a frame that lets go of it closes no cycle.
                    del error
        try:
            origins = self._origins
            origin = origins.find(request.url)
            upload = watch_upload(request) if request.body else None
            try:
                started = self._clock()
            except Exception:
                started = self._safe_clock()
            origin.in_flight += 1
        except Exception as error:
            self._fault(error)
            return await handler(request)
        try:
            if self._attempt_timeout is None:
                response = await handler(request)
            else:
                response = await self._bounded(request, handler)
        except BaseException as error:
            call = _Call(origin, started if began is None else began, upload)
            if not self._failed(call, request, handler, error):
                raise
        else:
            if response.status not in self._retry_statuses:
                try:
                    origin.in_flight -= 1
                    origin.tally.first_success += 1
                    try:
                        now = self._clock()
                    except Exception:
                        now = self._safe_clock()
                    origin.strategy.succeeded(now)
                    if is_redirect(response.status):
                        self._runs.redirected(
                            request, handler, started if began is None else began, now
                        )
                    origins.operations -= 1
                    if origins.operations <= 0 or not origins.since <= now < origins.due:
                        self._tick(now)
                except Exception as error:
                    self._fault(error)
                return response
            call = _Call(origin, started if began is None else began, upload)
            if not self._answered(call, request, handler, response):
                return response
            await self._let_go(call, response)
            del response
        return await self._again(call, request, handler)

    # The slow path: something failed, and a retry was granted.

    async def _again(
        self, call: _Call, request: ClientRequest, handler: ClientHandlerType
    ) -> ClientResponse:
        """Wait and send, until an attempt succeeds or no more is granted."""
        while True:
            await self._wait(call, request)
            try:
                if self._attempt_timeout is None:
                    response = await handler(request)
                else:
                    response = await self._bounded(request, handler)
            except BaseException as error:
                if not self._failed(call, request, handler, error):
                    raise
                continue
            if response.status not in self._retry_statuses:
                self._mended(call, request, handler, response)
                return response
            if not self._answered(call, request, handler, response):
                return response
            await self._let_go(call, response)
            del response

    async def _wait(self, call: _Call, request: ClientRequest) -> None:
        """Pause before a retry. The call holds no connection, response or exception meanwhile."""
        try:
            try:
                self._telemetry.retry_delay(call.origin.label, call.delay)
            except Exception as error:
                self._fault(error)
            try:
                await self._sleep(call.delay)
            except Exception as error:
                self._fault(error)
                await asyncio.sleep(call.delay)
            try:
                # A cancelled upload has to be out of the body before the next one starts.
                await request.close()
            except Exception:
                # How the last upload ended is part of an attempt that has been judged already.
                _log.debug("upload of a failed attempt ended with an error")
            if request.session.closed:
                # Closed while we waited; aiohttp says the same of a request made now.
                raise RuntimeError("Session is closed")
        except BaseException:
            self._end(call, "ignored")
            raise
        call.retries += 1
        try:
            rearm(request)
            call.origin.tally.retries += 1
            span = trace.get_current_span()
            if span.is_recording():
                span.set_attribute("http.request.resend_count", call.retries)
        except Exception as error:
            self._fault(error)

    async def _let_go(self, call: _Call, response: ClientResponse) -> None:
        try:
            await discard(response)
        except BaseException:
            self._end(call, "ignored")
            raise

    async def _bounded(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """One attempt, until its response head, within `attempt_timeout`."""
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

    # Books. Nothing here awaits, and nothing here may make a call fail.

    def _earlier_run(
        self, request: ClientRequest, handler: ClientHandlerType
    ) -> tuple[BaseException | None, float | None]:
        """If aiohttp ran the chain for this call before: the error it met, or when it began."""
        try:
            run = self._runs.earlier(request, handler)
            return (None, None) if run is None else (run.error(), run.started)
        except Exception as error:
            self._fault(error)
            return None, None

    def _failed(
        self, call: _Call, request: ClientRequest, handler: ClientHandlerType, error: BaseException
    ) -> bool:
        """After an attempt that raised: True to retry after `call.delay`, False to let it raise."""
        try:
            kind = classify(error, self._retry_statuses)
            if kind == "ignored" or not isinstance(error, Exception):
                self._end(call, "ignored")
                return False
            if self._judged(
                call,
                request,
                handler,
                _error_type(error),
                permanent=kind == "permanent",
                error=error,
            ):
                return True
            self._runs.failed(request, handler, error, self._safe_clock())
        except Exception as fault:
            self._fault(fault)
        return False

    def _answered(
        self,
        call: _Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        response: ClientResponse,
    ) -> bool:
        """After an answer that counts as a failure: True to retry, False to hand it back."""
        try:
            headers = response.headers
            return self._judged(
                call,
                request,
                handler,
                str(response.status),
                retry_after=parse_retry_after(
                    headers.get(hdrs.RETRY_AFTER), headers.get(hdrs.DATE)
                ),
            )
        except Exception as fault:
            self._fault(fault)
            return False

    def _judged(
        self,
        call: _Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        error_type: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        error: Exception | None = None,
    ) -> bool:
        """Record a failed attempt, ask the strategy, and end the call if it says no."""
        now = self._safe_clock()
        origin = call.origin
        if not call.retries:
            total = total_timeout(request, handler)
            call.deadline = None if total is None else call.started + total
        # The retry that just failed has cost its token.
        call.reserved = False
        code = self._ledger.catalogue.code(error_type)
        self._ledger.count_failure(origin.tally, code)
        decision = origin.strategy.failed(
            now,
            code,
            retry=call.retries + 1,
            obstacle=self._obstacle(call, request, permanent),
            retry_after=retry_after,
            remaining=None if call.deadline is None else call.deadline - now,
            error=error,
        )
        if decision.reason is None:
            call.delay = decision.delay
            call.reserved = True
            return True
        suppressed = origin.tally.suppressed
        suppressed[decision.reason] = suppressed.get(decision.reason, 0) + 1
        self._end(call, "failed_after_retry" if call.retries else "failed_without_retry")
        return False

    def _obstacle(self, call: _Call, request: ClientRequest, permanent: bool) -> Reason | None:
        if not may_be_sent_again(request, self._retry_methods):
            return "not_idempotent"
        if call.retries >= self._max_retries:
            return "max_attempts"
        if permanent:
            return "not_retryable"
        if call.upload is not None and not call.upload.replayable():
            return "body_not_replayable"
        return None

    def _mended(
        self,
        call: _Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        response: ClientResponse,
    ) -> None:
        """After a retry that succeeded."""
        try:
            now = self._safe_clock()
            call.origin.strategy.succeeded(now)
            if is_redirect(response.status):
                self._runs.redirected(request, handler, call.started, now)
        except Exception as error:
            self._fault(error)
        self._end(call, "retry_success")

    def _end(self, call: _Call, outcome: Outcome) -> None:
        """Close a call's books, once: hand back what it reserved, count what it came to."""
        if call.ended:
            return
        call.ended = True
        try:
            origin = call.origin
            origin.in_flight -= 1
            origin.tally.count(outcome)
            if call.reserved:
                origin.strategy.refund()
            now = self._safe_clock()
            origins = self._origins
            origins.operations -= 1
            if origins.operations <= 0 or not origins.since <= now < origins.due:
                self._tick(now)
        except Exception as error:
            self._fault(error)

    def _tick(self, now: float) -> None:
        self._origins.tick(now)
        self._runs.forget(now)


def _error_type(error: BaseException) -> str:
    """OpenTelemetry's `error.type`: a status where the server (or a proxy) gave one."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return str(error.status)
    return error_name(error)
