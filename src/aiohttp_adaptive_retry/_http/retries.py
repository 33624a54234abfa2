"""One call after its first attempt: waits, retries, and the end.

What an attempt came to is said in classify.py, and told to the call's driver in judge.py. What is
next is said by that driver (`CallDriver`), which asks the origin's policy.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Container, Mapping
from typing import Final

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, hdrs
from aiohttp.payload import Payload
from opentelemetry.trace import TracerProvider

from .._call import CallDriver, SafeClock
from .._checks import checked_callable, checked_sleep, wrong_type
from .._errors import OriginUnavailable
from .._options import Options, read_options
from .._origin.counters import Faults
from .._origin.origin import Origin
from .._origin.registry import Registry
from .._origin.sweeper import Sweeper
from .._policy.protocol import Action, GiveUp, Policy, Wait
from .._telemetry.narrator import Narrator
from ..config import AdaptiveConfig, Mode
from ..events import RetryEvent
from ..policy import make_adaptive_policy
from .attempt import Attempts, late
from .body import rearm
from .call import _HttpCall
from .classify import Classifier
from .closing import Closings
from .judge import OVER, Judge
from .layers import Layers
from .pool import NO_QUEUE, distrust_idle
from .release import arrive, discard
from .replay import REDIRECTS, Runs
from .retry_after import says_something
from .setups import Setups
from .switch import Switch, strictest
from .time_left import limit_time
from .verdict import Verdict, Verdicts
from .way import way_of

_log: Final = logging.getLogger("aiohttp_adaptive_retry")


class Retries:
    """The slow path of the middleware, with the parts that both paths use.

    It is a base and no part, so that the fast path reads its own attributes.
    """

    def __init__(
        self,
        config: AdaptiveConfig,
        origins: Mapping[str, AdaptiveConfig] | None,
        policy: Callable[[str], Policy] | None,
        tracer_provider: TracerProvider | None,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
        random: Callable[[], float],
        on_event: Callable[[RetryEvent], object] | None,
    ) -> None:
        self._setups = setups = Setups(config, origins)
        self._clock = checked_callable("clock", clock)
        self._sleep = checked_sleep(sleep)
        checked_callable("random", random)
        checked_callable("policy", policy or make_adaptive_policy)
        self._faults = faults = Faults()
        # The default clock can't fail.
        self._now = now = clock if clock is time.monotonic else SafeClock(clock, faults)
        make = policy or (
            lambda origin: make_adaptive_policy(setups.of(origin), clock=now, random=random)
        )
        self._registry = registry = Registry(config, now, faults, make, config_of=setups.of)
        self._runs = Runs()
        guard, waiting = registry.guard, registry.waiting
        self._sweeper = sweeper = Sweeper(config, guard, registry, self._runs.forget)
        narrator, catalogue = Narrator(on_event, faults), registry.catalogue
        self._driver = CallDriver(config, catalogue, guard, sweeper, faults, waiting, narrator)
        self._layers = layers = Layers()
        self._judge = Judge(setups, self._driver, self._runs, layers, faults, now)
        self._tracer_provider = tracer_provider
        self._switch = Switch()
        self._has_own_policy = policy is not None
        self._may_have_options = False
        self._closings = Closings()
        # Answers tell of their connections. Those of stand-ins don't, and asking each costs time.
        self._marks = False
        #: The user's word on answers, if there is one.
        self._verdicts: Verdicts | None = None
        self._configure()
        read_options(self)

    def _configure(self) -> None:
        """Read what the paths of all calls need from the configurations."""
        config, setups = self._setups.config, self._setups.all
        self._attempts = Attempts(config, self._tracer_provider, self._faults, self._now)
        # Whether an attempt is always more than a call of the handler.
        self._always = config.attempt_spans or any(
            setup.attempt_timeout is not None for setup in setups
        )
        statuses = self._setups.retry_statuses
        widest = Classifier(dataclasses.replace(config, retry_statuses=statuses))
        self._is_wanted_again = widest.is_wanted_again
        # The statuses that are more than a success. A status below all of them is faster to tell.
        self._special: Container[int] = statuses | REDIRECTS
        self._plain = min(statuses | REDIRECTS)
        if self._verdicts is not None:
            # Every answer is asked about, so none takes the fast path.
            self._plain, self._special = 0, range(1000)
        # With admission and a user's own policy first attempts are asked about.
        self._asks_policy = self._has_own_policy or any(setup.admission for setup in setups)
        self._refresh()

    def reconfigure(self, config: AdaptiveConfig) -> None:
        """Go by another configuration; in force for calls that begin afterwards.

        Windows, counts and what was learnt of origins stay, and so do the configurations of
        `origins=`. Growth of memory is counted from where it was. Calls that are under way go on by
        the configuration that they began with. O(origins); the loop's thread.

        Raises:
            TypeError: `config` is no `AdaptiveConfig`.
        """
        if not isinstance(config, AdaptiveConfig):
            raise wrong_type("config", "an AdaptiveConfig", config)
        self._setups.use(config)
        self._registry.reconfigure(config)
        self._sweeper.reconfigure(config)
        self._configure()
        if self._driver.is_off:
            self._switch.end_waits()

    async def _again(
        self, call: _HttpCall, action: Action, last: BaseException | ClientResponse | None
    ) -> ClientResponse:
        """Wait and send, until an attempt succeeds or the call is given up.

        `last` is what the call ends with if a wait leads to no retry; None if nothing was kept.
        """
        try:
            while True:
                if isinstance(action, Wait):
                    action = await self._pause(call, action)
                elif call.request.session.closed:
                    self._driver.cancel(self._now(), call)
                if last is None and call.ended:
                    raise aiohttp.ClientConnectionError("Session is closed")
                if isinstance(last, BaseException):
                    if call.ended:
                        self._judge.report(call, last)
                        self._runs.failed(call.request, call.handler, last, self._now())
                        raise last
                elif last is not None:
                    if call.ended:
                        self._judge.report(call, last)
                        return last
                    last.release()
                last = None
                await self._prepare(call)
                try:
                    request, handler, queue = call.request, call.handler, call.queue
                    if queue is None or (queue is NO_QUEUE and not self._always):
                        response = await handler(request)
                    else:
                        limits = call.limits(self._now())
                        response = await self._attempts.send(
                            request, handler, queue, call.resends, *limits
                        )
                except BaseException as error:
                    action = self._judge(call, error)
                    if call.ended:
                        raise
                    last = call.rest(error)
                    continue
                action = await self._answered(call, response)
                if call.ended:
                    return response
                last = call.rest(response)
                del response
        finally:
            last = None

    async def _answered(self, call: _HttpCall, response: ClientResponse) -> Action:
        """Ask about an answer; let go of a failed one, unless the call may end with it."""
        try:
            result: ClientResponse | Exception = response
            verdict: Verdict | None = None
            answered_at: float | None = None
            failed = (call.classifier or self._judge.classifier(call)).is_failure(response)
            if self._verdicts is not None:
                answered_at = self._now()
                found = await self._verdicts.ask(response)
                if isinstance(found, Exception):
                    # The body broke off while it was read. Who gets the answer meets that too.
                    result = found
                elif found is not None:
                    verdict, failed = found, found.kind == "retry"
            if (
                failed
                and not call.observed
                and not response.content.is_eof()
                and (call.origin.policy.is_troubled or says_something(response.headers))
            ):
                # The call may be parked, and can be if the answer is all here.
                await arrive(response)
            action = self._judge(call, result, verdict, answered_at)
            origin = call.origin
            if call.ended and not (failed or origin.settled or isinstance(result, Exception)):
                url, by_name = call.request.url, not call.requests_before
                way = way_of(call.request) if origin.is_shared else ""
                self._registry.settle(origin, url, way, response.status, by_name)
            self._marks = self._marks or getattr(response, "_protocol", None) is not None
            if call.must_send and not call.ended:
                if not response.content.is_eof():
                    await discard(response)
                elif call.rest(response) is None:
                    response.release()
        except BaseException:
            response.release()
            self._driver.cancel(self._now(), call)
            raise
        return action

    async def _pause(self, call: _HttpCall, action: Action) -> Action:
        """Wait as often as the driver says; what is to be done then."""
        waits, closings, session = self._switch.waits, self._closings, call.request.session
        try:
            while isinstance(action, Wait):
                # What has something to end with ends at once when the middleware is switched off.
                wait = asyncio.timeout(None)
                try:
                    async with wait:
                        if not call.must_send:
                            waits[wait] = asyncio.get_running_loop()
                        closings.begin(session, wait)
                        try:
                            await self._sleep(action.seconds)
                        except Exception as error:
                            self._faults(error)
                            await asyncio.sleep(action.seconds)
                except TimeoutError:
                    pass
                finally:
                    waits.pop(wait, None)
                    closings.end(session, wait)
                if session.closed:
                    self._driver.cancel(self._now(), call)
                    return OVER
                action = self._driver.wake(self._now(), call)
        except BaseException:
            self._driver.cancel(self._now(), call)
            raise
        return action

    async def _admitted(self, call: _HttpCall) -> None:
        """Hold a first attempt back until it may be sent, or raise `OriginUnavailable`."""
        try:
            if self._puts_keys and call.origin.config.idempotency_key and not call.observed:
                call.put_key()
            limit_time(call, self._now())
            self._layers.arrived(call, self._now())
        except Exception as fault:
            self._faults(fault)
        if call.until is not None and call.is_late(self._now()) and not call.observed:
            self._driver.refuse(self._now(), call, "deadline")
            passed = late()
            self._judge.report(call, passed)
            raise passed
        if call.observed:
            self._driver.observe(self._now(), call)
            call.queue = self._attempts.queue(call.request, call.handler, None)
            self._driver.sent(self._now(), call)
            return
        action = self._driver.arrive(self._now(), call)
        if isinstance(action, Wait):
            action = await self._pause(call, action)
        if action is OVER:
            raise aiohttp.ClientConnectionError("Session is closed")
        if isinstance(action, GiveUp):
            origin = call.origin
            wait = origin.retry_in(self._now())
            refusal = OriginUnavailable(action.reason, origin.name, wait)
            self._judge.report(call, refusal)
            raise refusal
        timeout = (call.own or call.origin.config).attempt_timeout
        limited = call.until is not None
        call.queue = self._attempts.queue(call.request, call.handler, timeout, limited)
        self._driver.sent(self._now(), call)

    def options_in_use(self) -> None:
        """From now on calls may have options."""
        self._may_have_options = True
        self._refresh()

    def _mode_of(self, config: AdaptiveConfig) -> Mode:
        """The mode that is in force for calls to an origin with this configuration."""
        return strictest(self._switch.mode, self._setups.config.mode, config.mode)

    def _refresh(self) -> None:
        """What calls are asked before their first attempts, after something was set."""
        mode = self._mode_of(self._setups.config)
        self._driver.is_off = mode == "off"
        #: Whether every call is more than a plain first attempt.
        self._asks_first = (
            self._asks_policy
            or mode != "on"
            or any(setup.mode != "on" for setup in self._setups.all)
        )
        #: Whether a call has to be looked at before its first attempt.
        self._puts_keys = any(setup.idempotency_key for setup in self._setups.all)
        self._looks = self._asks_first or self._may_have_options or self._puts_keys

    def _looked(
        self,
        origin: Origin,
        started: float,
        request: ClientRequest,
        handler: ClientHandlerType,
        body: Payload | bytes | None,
        options: Options | None,
    ) -> _HttpCall | None:
        """A call that is more than a plain one; None if it is to be left alone."""
        mode = self._mode_of(origin.config)
        if mode == "off" or (options is not None and options.enabled is False):
            return None
        call = _HttpCall(origin, started, started, request=request, handler=handler, body=body)
        call.observed = mode == "observe"
        try:
            if options is not None:
                call.idempotent, call.own = options.idempotent, options.applied(origin.config)
                if options.deadline is not None:
                    call.until = options.deadline.ends(self)
        except Exception as fault:
            self._faults(fault)
        return call

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
            config = call.own or call.origin.config
            if hdrs.EXPECT in request.headers:
                rearm(request)
            if call.lost:
                distrust_idle(request, call.lost, config.max_attempts - call.attempts)
            timeout, limited = config.attempt_timeout, call.until is not None
            call.queue = NO_QUEUE
            if timeout is not None or limited or getattr(pool, "_acquired", None):
                call.queue = self._attempts.queue(request, call.handler, timeout, limited)
        except Exception as fault:
            self._faults(fault)
        self._driver.sent(self._now(), call)
