"""The middleware: a call's first attempt, and the fast path of those that succeed at once.

What comes after a failed first attempt is in retries.py.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import random as _random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, Never, Unpack

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .._checks import checked_callable, checked_instance
from .._options import current_options
from .._origin.origin import Origin
from .._policy.protocol import AttemptOutcome, Policy
from .._telemetry.hub import Telemetry
from .._telemetry.snapshot import Snapshot, take_snapshot
from ..config import AdaptiveConfig, ConfigOverrides, Mode, configured
from ..events import RetryEvent
from .body import watch_upload
from .call import KEYED_METHODS, _HttpCall
from .misuse import MisuseError, of_server, refuse_arguments, refuse_server, warn_of_two
from .pool import NO_QUEUE, Queue, mark_used
from .replay import Run
from .retries import Retries
from .verdict import Classify, Verdicts
from .way import way_of

#: What the middleware takes by name beside the fields of its configuration.
_BESIDE: Final = (
    "origins",
    "classify",
    "policy",
    "meter_provider",
    "tracer_provider",
    "clock",
    "sleep",
    "random",
)


class AdaptiveRetryMiddleware(Retries):
    """Retries what a retry can mend, within a budget per origin; for `ClientSession(middlewares=)`.

    Args:
        config: what can be set; None for the defaults. See also `AdaptiveConfig.interactive`,
            `batch`, `from_mapping` and `from_env`.
        origins: other settings for some origins ("https://api.example.com") or hosts
            ("batch.example.com", "localhost:8080"); an origin's key wins over a host's. Memory
            bounds, clean-up, spans and what is recorded are the middleware's for all.
        classify: says of every response head what it is: a `Verdict`, or None for the built-in
            rules. A plain function, or a coroutine function that may read the body; the caller can
            still read it in every way. If it raises, or returns anything else, the built-in rules
            hold. With it no call takes the fast path.
        on_event: a plain function that is told of retries, holds, ends and changes of state, on the
            loop, in their order; it must not block. What it raises is logged once and counted. A
            call that succeeds at once tells nothing, and costs no more.
        policy: makes the policy of each origin, from its name "scheme://host:port"; None for the
            adaptive one that ships. See `aiohttp_adaptive_retry.policy`.
        meter_provider: where metrics go; None for OpenTelemetry's global provider, also one that
            is set later.
        tracer_provider: where the spans of `attempt_spans` go; None for the global one.
        clock: monotonic seconds. sleep: an awaitable pause of so many seconds. random: a number
            from 0 to 1, for jitter. For tests and simulations.
        **overrides: fields of `AdaptiveConfig`, on top of `config`: `max_attempts=3`.

    Raises:
        TypeError, ValueError: a field or an argument is wrong; the text names it and its value.

    One object serves any number of sessions on one loop at a time; there is nothing to close. A
    success costs one origin look-up, two clock readings, one ring write and a few integers. When
    retries end, the caller gets the last response, unread, or the last exception.

    A middleware listed after this one runs for every attempt, one listed before it once per call.
    """

    def __init__(
        self,
        config: AdaptiveConfig | None = None,
        *beside: Never,
        origins: Mapping[str, AdaptiveConfig] | None = None,
        classify: Classify | None = None,
        on_event: Callable[[RetryEvent], object] | None = None,
        policy: Callable[[str], Policy] | None = None,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
        **overrides: Unpack[ConfigOverrides],
    ) -> None:
        name = type(self).__name__
        refuse_arguments(name, config, beside)
        config = configured(name, config, overrides, _BESIDE)
        checked_instance("meter_provider", meter_provider, MeterProvider)
        checked_instance("tracer_provider", tracer_provider, TracerProvider)
        if inspect.iscoroutinefunction(on_event):
            raise TypeError(f"on_event must be a plain function, got {on_event!r} (a coroutine's)")
        if on_event is not None:
            checked_callable("on_event", on_event)
        super().__init__(config, origins, policy, tracer_provider, clock, sleep, random, on_event)
        self._noted = self._runs.noted
        if classify is not None:
            self._verdicts = Verdicts(checked_callable("classify", classify), self._faults)
            self._configure()
        # It was told that another of ours is in the same chain.
        self._told = False
        Telemetry(self, self._registry, meter_provider)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            # A web application asks its middlewares so when it starts. Nothing else has this name.
            if name == "__middleware_version__":
                raise MisuseError(of_server(type(self).__name__))
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def config(self) -> AdaptiveConfig:
        """The configuration in force."""
        return self._setups.config

    @property
    def mode(self) -> Mode:
        """ "on", "observe" or "off": the strictest of what was set here and in the configuration.

        It can be set at any time, from any thread, and is in force for calls that begin afterwards.
        "observe" decides and counts what it would do (`retries.suppressed` with the reason
        `observed`), and sends each call once. "off" leaves calls alone and counts none. Calls that
        wait when it is set to "off" end at once with what they have got; a call whose answer is let
        go of already sends its next attempt, which is its last.
        """
        return self._mode_of(self._setups.config)

    @mode.setter
    def mode(self, mode: Mode) -> None:
        self._switch.set(mode)
        self._refresh()
        if mode == "off":
            self._switch.end_waits()

    def snapshot(self) -> Snapshot:
        """Totals and per-origin state at this moment. O(origins); the loop's thread."""
        return take_snapshot(self._registry)

    def __repr__(self) -> str:
        return f"<AdaptiveRetryMiddleware origins={len(self._registry)}>"

    def _bypassed(self) -> None:
        """Count a request whose own `middlewares=` left us out."""
        self._registry.counters.bypassed += 1

    def _met(
        self, request: ClientRequest, handler: ClientHandlerType, earlier: Run | None
    ) -> Origin:
        """An origin that is new, or spelt in another way; a time to look how we are attached."""
        registry = self._registry
        if registry.direct is registry.table:
            refuse_server(type(self).__name__, request)
            self._told = self._told or warn_of_two(AdaptiveRetryMiddleware, handler)
        return registry.find(request.url, way_of(request), brought=earlier is not None)

    def _by_way(self, origin: Origin, request: ClientRequest) -> Origin:
        """The origin of a call, found by its place alone; another one if a way leads there."""
        registry = self._registry
        if registry.direct is not registry.table or origin.is_shared:
            return origin
        way = way_of(request)
        return registry.find(request.url, way) if way else origin

    def _moved(self, origin: Origin, request: ClientRequest) -> Origin:
        """The same for a call that has begun, which goes on at the other origin."""
        try:
            other = self._by_way(origin, request)
            origin.begun -= 1
            other.begun += 1
            return other
        except Exception as error:
            self._faults(error)
            return origin

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
            origin = registry.direct.get(url.host_port_subcomponent)
            if origin is None or origin.scheme != url.scheme:
                origin = self._met(request, handler, earlier)
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
                    origin = self._by_way(origin, request)
                    window = origin.window
                    # The success will be told, so it matters how much of it was a queue.
                    pool = getattr(request.session, "connector", None)
                    busy = self._always or getattr(pool, "_acquired", None)
                    timeout = origin.config.attempt_timeout
                    queue = self._attempts.queue(request, handler, timeout) if busy else NO_QUEUE
            except Exception:
                started = self._now()
                queue = self._attempts.queue(request, handler, origin.config.attempt_timeout)
            origin.begun += 1
        except MisuseError:
            raise
        except Exception as error:
            refuse_server(type(self).__name__, request)
            self._faults(error)
            origin = None
        if origin is None:
            # Not above, where an exception of the handler's would get ours as its context.
            return await handler(request)
        call: _HttpCall | None = None
        if self._looks:
            options = current_options()
            if (
                options is not None
                or self._asks_first
                or (self._puts_keys and request.method in KEYED_METHODS)
            ):
                origin = self._moved(origin, request)
                call = self._looked(origin, started, request, handler, body, options)
                if call is None:
                    origin.begun -= 1
                    return await handler(request)
                if earlier is not None:
                    call.follow(earlier)
                await self._admitted(call)
                started, queue = call.sent_at, call.queue
        try:
            if queue is None or (queue is NO_QUEUE and not self._always):
                response = await handler(request)
            else:
                resends = 0 if earlier is None else earlier.sent
                limits = (
                    (origin.config.attempt_timeout, None) if call is None else call.limits(started)
                )
                response = await self._attempts.send(request, handler, queue, resends, *limits)
        except BaseException as error:
            if call is None:
                origin = self._moved(origin, request)
                call = _HttpCall(
                    origin, started, started, 1, request=request, handler=handler, body=body
                )
                call.queue = queue
                if earlier is not None:
                    call.follow(earlier)
            action = self._judge(call, error)
            if call.ended:
                raise
            last: BaseException | ClientResponse | None = call.rest(error)
        else:
            status = response.status
            if status < self._plain or (
                status not in self._special
                and (status < 400 or not self._is_wanted_again(response))
            ):
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
                if not origin.settled:
                    way = way_of(request) if origin.is_shared else ""
                    registry.settle(origin, url, way, status, by_name=earlier is None)
                if call is None:
                    self._driver.first_success(now, origin, latency)
                else:
                    self._driver.outcome(now, call, AttemptOutcome(True, latency=latency))
                return response
            if call is None:
                origin = self._moved(origin, request)
                call = _HttpCall(
                    origin, started, started, 1, request=request, handler=handler, body=body
                )
                call.queue = queue
                if earlier is not None:
                    call.follow(earlier)
            action = await self._answered(call, response)
            if call.ended:
                return response
            last = call.rest(response)
            del response
        try:
            return await self._again(call, action, last)
        finally:
            # Its traceback holds this frame; a frame that lets go of it closes no cycle.
            last = None
