"""What one attempt came to, told to the call's driver: the step from aiohttp to plain values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from aiohttp import ClientResponse, hdrs

from .._call import CallDriver
from .._errors import error_text
from .._origin.counters import Faults
from .._policy.protocol import Action, AttemptOutcome, GiveUp
from .call import _HttpCall
from .classify import Classifier
from .layers import ID, KEY, OF_AWS, OF_STAINLESS, Layers
from .pool import ended_in_queue
from .replay import REDIRECTS, Runs
from .setups import Setups
from .time_left import limit_time
from .verdict import Verdict

#: A call is over, and its end is counted.
OVER: Final = GiveUp("over")


class Judge:
    """Tells the driver of one middleware what attempts came to. One loop."""

    __slots__ = (
        "_driver",
        "_faults",
        "_layers",
        "_now",
        "_runs",
        "_setups",
    )

    def __init__(
        self,
        setups: Setups,
        driver: CallDriver,
        runs: Runs,
        layers: Layers,
        faults: Faults,
        now: Callable[[], float],
    ) -> None:
        self._setups, self._driver = setups, driver
        self._runs, self._layers, self._faults, self._now = runs, layers, faults, now

    def __call__(
        self,
        call: _HttpCall,
        result: ClientResponse | BaseException,
        verdict: Verdict | None = None,
        answered_at: float | None = None,
    ) -> Action:
        """Tell what an attempt came to, and what the request allows; the driver's answer.

        `verdict` is what the user says of an answer, who may have read it since `answered_at`.
        """
        driver, request, text, unsent = self._driver, call.request, None, False
        try:
            now = self._now()
            classifier = call.classifier or self.classifier(call)
            latency = math.nan
            if call.queue is not None:
                known_at = now if answered_at is None else answered_at
                latency = known_at - call.sent_at - call.queue.seconds
            if isinstance(result, BaseException):
                outcome = classifier.error(result, latency, request)
                if outcome is None:
                    driver.cancel(now, call)
                    if call.error_types and isinstance(result, Exception):
                        # A bare TimeoutError is the call's deadline.
                        late = isinstance(result, TimeoutError)
                        call.reason = "deadline" if late else "not_retryable"
                        call.report_on(result, now)
                    return OVER
                if outcome.ok:
                    return driver.outcome(now, call, outcome)
                if call.origin.config.record_error_messages:
                    text = error_text(result, call.origin.config.max_error_message_length)
                call.lost += outcome.reused_connection
                unsent = outcome.overload and ended_in_queue(result)
            else:
                if (connection := getattr(result, "_protocol", None)) is not None:
                    connection._adaptive_retry_used = True
                if verdict is not None:
                    outcome = classifier.verdict(verdict, result, latency)
                elif classifier.is_failure(result):
                    outcome = classifier.response(result, latency)
                else:
                    outcome = AttemptOutcome(True, latency=latency)
                if outcome is None or outcome.ok:
                    action: Action = OVER
                    if outcome is None:
                        driver.cancel(now, call)
                    else:
                        action = driver.outcome(now, call, outcome)
                    location = result.headers.get(hdrs.LOCATION)
                    if location and result.status in REDIRECTS:
                        handler, started, sent = call.handler, call.started, call.resends + 1
                        key = call.idempotency_key
                        self._runs.redirected(request, handler, location, started, sent, now, key)
                    if call.error_types:
                        call.report_on(result, now)
                    return action
            if call.attempts == 1:
                limit_time(call, now)
                given = request.headers
                if OF_AWS in given or OF_STAINLESS in given or ID in given or KEY in given:
                    self._layers.failed(call, now)
            obstacle = classifier.obstacle(
                request, call.body, result, outcome, call.handler, call.idempotent
            )
            outcome = call.measured(outcome, result)
            action = driver.outcome(now, call, outcome, obstacle, text, unsent)
            if call.ended:
                call.report_on(result, now)
                if isinstance(result, BaseException) and not call.observed:
                    self._runs.failed(request, call.handler, result, now)
        except Exception as fault:
            # Our own bookkeeping failed: the call ends as it would without us.
            self._faults(fault)
            driver.cancel(self._now(), call)
            call.ended = True
            return OVER
        return action

    def classifier(self, call: _HttpCall) -> Classifier:
        """What judges the attempts of a call, which goes by what was in force when it began."""
        if call.own is None:
            origin = call.origin
            former = origin.former if call.sent_at < origin.changed_at else None
            call.own = former or origin.config
        call.classifier = self._setups.classifier(call.own)
        return call.classifier

    def report(self, call: _HttpCall, result: ClientResponse | BaseException) -> None:
        """Put a report on what a call ends with after a wait, or before its first attempt."""
        call.report_on(result, self._now())
