"""The middleware: send, and send again where that is worth it. It sends and waits; nothing else.

What an attempt came to is said in classify.py, and told to the call's driver in judge.py. What is
next is said by that driver (`CallDriver`), which asks the origin's policy.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random as _random
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, hdrs
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .._call import CallDriver, SafeClock, checked_callable, checked_instance
from .._errors import OriginUnavailable
from .._origin.counters import Faults
from .._origin.registry import Registry
from .._origin.sweeper import Sweeper
from .._policy.protocol import Action, AttemptOutcome, GiveUp, Policy, Wait
from .._telemetry.hub import Telemetry
from .._telemetry.snapshot import Snapshot, take_snapshot
from ..config import AdaptiveConfig
from ..policy import make_adaptive_policy
from .attempt import Attempts
from .body import rearm, watch_upload
from .call import _HttpCall
from .classify import Classifier
from .judge import Judge
from .layers import Layers
from .pool import NO_QUEUE, Queue, distrust_idle, mark_used
from .release import arrive, discard
from .replay import REDIRECTS, Run, Runs, total_timeout

_log: Final = logging.getLogger("aiohttp_adaptive_retry")


class AdaptiveRetryMiddleware:
    """Retries what a retry can mend, within a budget per origin; for `ClientSession(middlewares=)`.

    Args:
        config: what can be set; None for the defaults.
        policy: makes the policy of each origin, from its name "scheme://host:port"; None for the
            adaptive one that ships. See `aiohttp_adaptive_retry.policy`.
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
        policy: Callable[[str], Policy] | None = None,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
    ) -> None:
        config = checked_instance("config", config, AdaptiveConfig) or AdaptiveConfig()
        checked_instance("meter_provider", meter_provider, MeterProvider)
        checked_instance("tracer_provider", tracer_provider, TracerProvider)
        self._config = config
        self._clock = checked_callable("clock", clock)
        self._sleep = checked_callable("sleep", sleep)
        checked_callable("random", random)
        checked_callable("policy", policy or make_adaptive_policy)
        self._faults = faults = Faults()
        # The default clock can't fail.
        self._now = now = clock if clock is time.monotonic else SafeClock(clock, faults)
        make = policy or (lambda origin: make_adaptive_policy(config, clock=now, random=random))
        self._registry = registry = Registry(config, now, faults, make)
        self._runs = Runs()
        self._noted = self._runs.noted
        sweeper = Sweeper(config, registry.guard, registry, self._runs.forget)
        self._driver = CallDriver(config, registry.catalogue, registry.guard, sweeper, faults)
        self._layers = layers = Layers()
        classifier = Classifier(config)
        self._judge = Judge(config, classifier, self._driver, self._runs, layers, faults, now)
        # The statuses that are more than a success. A status below all of them is faster to tell.
        self._retry_statuses = classifier.retry_statuses
        self._special = self._retry_statuses | REDIRECTS
        self._plain = min(self._special)
        self._asks_first = config.admission or policy is not None
        self._attempts = Attempts(config, tracer_provider, faults, now)
        self._always = self._attempts.always
        # Answers tell of their connections. Those of stand-ins don't, and asking each costs time.
        self._marks = False
        Telemetry(self, registry, meter_provider)

    @property
    def config(self) -> AdaptiveConfig:
        """The configuration in force."""
        return self._config

    def snapshot(self) -> Snapshot:
        """Totals and per-origin state at this moment. O(origins); the loop's thread."""
        return take_snapshot(self._registry)

    def __repr__(self) -> str:
        return f"<AdaptiveRetryMiddleware origins={len(self._registry)}>"

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        """Send a request, and again where that is worth it. aiohttp calls this."""
        earlier: Run | None = None
        if self._noted:
            error, earlier = self._runs.met(request, handler, self._now, self._faults)
            if error is not None:
                try:
                    raise error
                finally:
                    # Its traceback holds this frame; a frame that lets go of it closes no cycle.
                    del error
        try:
            registry = self._registry
            url = request.url
            # `find` in line, as this is where nearly all calls come by.
            origin = registry.table.get(url.host_port_subcomponent)
            if origin is None or origin.scheme != url.scheme:
                origin = registry.find(url)
            elif origin is not registry.newest:
                registry.touch(origin)
            body = None
            # Looking for a body costs more than knowing that there hardly ever is one; a GET that
            # has one all the same goes unwatched, and is not sent again unless it is in memory.
            if request.method != "GET":
                body = request.body
                if body:
                    watch_upload(body)
            queue: Queue | None = None
            window = origin.window
            try:
                started = self._clock()
                if self._always or started >= window.lease_until:
                    # The success will be told, so it matters how much of it was a queue.
                    pool = getattr(request.session, "connector", None)
                    busy = self._always or getattr(pool, "_acquired", None)
                    queue = self._attempts.queue(request, handler) if busy else NO_QUEUE
            except Exception:
                started, queue = self._now(), self._attempts.queue(request, handler)
            origin.begun += 1
        except Exception as error:
            self._faults(error)
            origin = None
        if origin is None:
            # Not above, where an exception of the handler's would get ours as its context.
            return await handler(request)
        call: _HttpCall | None = None
        if self._asks_first:
            call = _HttpCall(origin, started, started, request=request, handler=handler, body=body)
            if earlier is not None:
                call.follow(earlier)
            await self._admitted(call)
            started, queue = call.sent_at, call.queue
        try:
            if queue is None or (queue is NO_QUEUE and not self._always):
                response = await handler(request)
            else:
                resends = 0 if earlier is None else earlier.sent
                response = await self._attempts.send(request, handler, queue, resends)
        except BaseException as error:
            if call is None:
                call = _HttpCall(
                    origin, started, started, 1, request=request, handler=handler, body=body
                )
                call.queue = queue
                if earlier is not None:
                    call.follow(earlier)
            action = self._judge(call, error)
            if call.ended:
                raise
            last: BaseException | ClientResponse | None = None if call.must_send else error
        else:
            status = response.status
            if status < self._plain or status not in self._special:
                try:
                    now = self._clock()
                    if self._marks:
                        # See `was_used_before`.
                        response._protocol._adaptive_retry_used = True  # type: ignore[union-attr]
                    # Window.record_fast in line: a call would cost as much as its work.
                    end = window.end
                    if (
                        (queue is None or self._always)
                        and end < window.lease_end
                        and window.newest <= now < window.lease_until
                    ):
                        window.times[end % window.capacity] = window.newest = now
                        window.end = end + 1
                        return response
                except Exception:
                    # A clock that breaks or gives no number, or an answer that is not aiohttp's.
                    now = self._now()
                self._marks = self._marks or mark_used(response)
                latency = math.nan if queue is None else now - started - queue.seconds
                if call is None:
                    self._driver.first_success(now, origin, latency)
                else:
                    self._driver.outcome(now, call, AttemptOutcome(True, latency=latency))
                return response
            if call is None:
                call = _HttpCall(
                    origin, started, started, 1, request=request, handler=handler, body=body
                )
                call.queue = queue
                if earlier is not None:
                    call.follow(earlier)
            action = await self._answered(call, response)
            if call.ended:
                return response
            last = None if call.must_send else response
            del response
        try:
            return await self._again(call, action, last)
        finally:
            # Its traceback holds this frame; a frame that lets go of it closes no cycle.
            last = None

    async def _again(
        self, call: _HttpCall, action: Action, last: BaseException | ClientResponse | None
    ) -> ClientResponse:
        """Wait and send, until an attempt succeeds or the call is given up.

        `last` is what the call ends with if a wait leads to no retry; None if that can't happen.
        """
        try:
            while True:
                if isinstance(action, Wait):
                    action = await self._pause(call, action)
                if isinstance(last, BaseException):
                    if call.ended:
                        self._runs.failed(call.request, call.handler, last, self._now())
                        raise last
                elif last is not None:
                    if call.ended:
                        return last
                    last.release()
                last = None
                await self._prepare(call)
                try:
                    request, handler, queue = call.request, call.handler, call.queue
                    if queue is None or (queue is NO_QUEUE and not self._always):
                        response = await handler(request)
                    else:
                        response = await self._attempts.send(request, handler, queue, call.resends)
                except BaseException as error:
                    action = self._judge(call, error)
                    if call.ended:
                        raise
                    last = None if call.must_send else error
                    continue
                action = await self._answered(call, response)
                if call.ended:
                    return response
                last = None if call.must_send else response
                del response
        finally:
            last = None

    async def _answered(self, call: _HttpCall, response: ClientResponse) -> Action:
        """Ask about an answer; let go of a failed one, unless the call may end with it."""
        try:
            if (
                response.status in self._retry_statuses
                and not response.content.is_eof()
                and (call.origin.policy.is_troubled or hdrs.RETRY_AFTER in response.headers)
            ):
                # The call may be parked, and can be if the answer is all here.
                await arrive(response)
            action = self._judge(call, response)
            self._marks = self._marks or getattr(response, "_protocol", None) is not None
            if call.must_send and not call.ended:
                if response.content.is_eof():
                    response.release()
                else:
                    await discard(response)
        except BaseException:
            response.release()
            self._driver.cancel(self._now(), call)
            raise
        return action

    async def _pause(self, call: _HttpCall, action: Action) -> Action:
        """Wait as often as the driver says; what is to be done then."""
        try:
            while isinstance(action, Wait):
                try:
                    await self._sleep(action.seconds)
                except Exception as error:
                    self._faults(error)
                    await asyncio.sleep(action.seconds)
                if call.request.session.closed:
                    # Closed while we waited; aiohttp says the same of a request made now.
                    raise RuntimeError("Session is closed")
                action = self._driver.wake(self._now(), call)
        except BaseException:
            self._driver.cancel(self._now(), call)
            raise
        return action

    async def _admitted(self, call: _HttpCall) -> None:
        """Hold a first attempt back until it may be sent, or raise `OriginUnavailable`."""
        try:
            total = total_timeout(call.request, call.handler)
            call.deadline = None if total is None else call.started + total
            self._layers.arrived(call, self._now())
        except Exception as fault:
            self._faults(fault)
        action = self._driver.arrive(self._now(), call)
        if isinstance(action, Wait):
            action = await self._pause(call, action)
        if isinstance(action, GiveUp):
            raise OriginUnavailable(action.reason)
        call.queue = self._attempts.queue(call.request, call.handler)
        self._driver.sent(self._now(), call)

    async def _prepare(self, call: _HttpCall) -> None:
        """Make a request ready for a retry, and count the retry as sent."""
        try:
            # A cancelled upload has to be out of the body before the next one starts.
            await call.request.close()
        except Exception:
            # How the last upload ended is part of an attempt that has been judged already.
            _log.debug("upload of a failed attempt ended with an error")
        except BaseException:
            self._driver.cancel(self._now(), call)
            raise
        try:
            request, pool = call.request, getattr(call.request.session, "connector", None)
            request.response = None
            if hdrs.EXPECT in request.headers:
                rearm(request)
            if call.lost:
                distrust_idle(request, call.lost, self._config.max_attempts - call.attempts)
            busy = self._always or getattr(pool, "_acquired", None)
            call.queue = self._attempts.queue(request, call.handler) if busy else NO_QUEUE
        except Exception as fault:
            self._faults(fault)
        self._driver.sent(self._now(), call)
