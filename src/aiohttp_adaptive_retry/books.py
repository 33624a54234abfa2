"""The books of all calls: what an attempt came to, what is asked of the strategy, what is counted.

Nothing here awaits, and nothing here may make a call fail: each method catches what goes wrong in
it, and then lets the call end as it would without us.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, hdrs

from .attempt import (
    UploadWatch,
    classify,
    is_absence,
    is_timeout,
    is_whole,
    may_be_sent_again,
    unwatched_body,
)
from .backoff import parse_retry_after
from .config import AdaptiveConfig
from .errors import error_type
from .faults import Faults, SafeClock
from .ledger import Outcome
from .origins import Origin, Origins
from .runs import REDIRECTS, Run, Runs, total_timeout
from .trial import Evidence, Reason, Trial

__all__ = ("Books", "Call")

_LIMITED = 429
# What a flooded server answers, and the gateway before one.
_OVERLOADED = frozenset({503, 504})


class Call(Trial):
    """One call that has failed or been held at least once. Lives as long as the call."""

    __slots__ = (
        "before",
        "deadline",
        "delay",
        "ended",
        "hold",
        "origin",
        "refusal",
        "retries",
        "sent",
        "started",
        "upload",
        "waited",
    )

    def __init__(
        self, origin: Origin, sent: float, upload: UploadWatch | None, earlier: Run | None
    ) -> None:
        super().__init__()
        self.origin = origin
        #: When the call began, and when its newest attempt was sent, by our clock.
        self.started = sent if earlier is None else earlier.started
        self.sent = sent
        #: Requests sent for it before a redirect led here.
        self.before = 0 if earlier is None else earlier.sent
        self.upload = upload
        #: When the call must have ended, by our clock; None for never. Known from `_judged` on.
        self.deadline: float | None = None
        #: Retries sent.
        self.retries = 0
        #: Seconds to wait before the next, or, with `hold`, before asking again.
        self.delay = 0.0
        self.hold = False
        #: Seconds waited since the newest attempt failed.
        self.waited = 0.0
        #: Why the first attempt was not sent, if it was refused.
        self.refusal: Reason | None = None
        self.ended = False

    @property
    def resends(self) -> int:
        """Requests sent before the newest one, for whatever reason."""
        return self.before + self.retries

    @property
    def ready(self) -> bool:
        """Whether the next attempt may be sent at once."""
        return not self.hold and not self.delay

    def remaining(self, now: float) -> float | None:
        """Seconds until the deadline, None without one."""
        return None if self.deadline is None else self.deadline - now


class Books:
    """Keeps the books of one middleware. One loop."""

    __slots__ = (
        "_fault",
        "_ledger",
        "_max_retries",
        "_now",
        "_retry_methods",
        "origins",
        "retry_statuses",
        "runs",
    )

    def __init__(
        self,
        config: AdaptiveConfig,
        clock: SafeClock,
        random: Callable[[], float],
        faults: Faults,
    ) -> None:
        self._now = clock
        self._fault = faults
        self._max_retries = config.max_attempts - 1
        self._retry_methods = frozenset(config.retry_methods)
        self.retry_statuses = frozenset(config.retry_statuses)
        self.origins = Origins(config, clock, random, faults)
        self._ledger = self.origins.ledger
        self.runs = Runs()

    def earlier_run(
        self, request: ClientRequest, handler: ClientHandlerType
    ) -> tuple[BaseException | None, Run | None]:
        """If aiohttp ran the chain for this call before: the error it met, and that run."""
        try:
            run = self.runs.earlier(request, handler)
            return (None, None) if run is None else (run.error(), run)
        except Exception as error:
            self._fault(error)
            return None, None

    def admit(self, call: Call, request: ClientRequest, handler: ClientHandlerType) -> bool:
        """Before the first attempt, with admission: True to send it; else wait `call.delay` and
        ask again, or, if `call.refusal` says so, don't send it at all."""
        try:
            now = self._now()
            strategy = call.origin.strategy
            if not call.holding:
                self._set_deadline(call, request, handler)
                decision = strategy.admit(now, call, call.remaining(now))
            else:
                decision = strategy.woken(now, call, call.remaining(now))
            if decision.reason is not None:
                call.refusal = decision.reason
                self._suppress(call, decision.reason)
                self.end(call, "refused")
                return False
            call.delay, call.hold = decision.delay, decision.hold
            return not decision.hold
        except Exception as fault:
            self._fault(fault)
            return True

    def failed(
        self, call: Call, request: ClientRequest, handler: ClientHandlerType, error: BaseException
    ) -> bool:
        """After an attempt that raised: True to wait `call.delay`, False to let it raise."""
        try:
            kind = classify(error, self.retry_statuses)
            if kind == "ignored" or not isinstance(error, Exception):
                self.end(call, "ignored")
                return False
            if self._judged(
                call,
                request,
                handler,
                error_type(error),
                Evidence(absent=is_absence(error), overload=is_timeout(error)),
                patient=True,
                permanent=kind == "permanent",
                error=error,
            ):
                return True
            self.runs.failed(request, handler, error, self._now())
        except Exception as fault:
            self._faulty(call, fault)
        return False

    def answered(
        self,
        call: Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        response: ClientResponse,
    ) -> bool:
        """After an answer that counts as a failure: True to wait, False to hand it back.

        With `call.hold` the answer must be kept: it may be handed back after the wait.
        """
        try:
            headers = response.headers
            retry_after = parse_retry_after(headers.get(hdrs.RETRY_AFTER), headers.get(hdrs.DATE))
            return self._judged(
                call,
                request,
                handler,
                str(response.status),
                Evidence(
                    overload=response.status in _OVERLOADED,
                    limited=response.status == _LIMITED or retry_after is not None,
                    retry_after=retry_after,
                ),
                patient=is_whole(response),
            )
        except Exception as fault:
            self._faulty(call, fault)
            return False

    def worth_keeping(self, call: Call, response: ClientResponse) -> bool:
        """Whether a failed answer may have to be kept through a hold, and is not all here yet."""
        health = call.origin.strategy.health
        troubled = health.streak or health.congested or hdrs.RETRY_AFTER in response.headers
        return bool(troubled) and not is_whole(response)

    def woken(
        self,
        call: Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        last: BaseException | ClientResponse,
    ) -> bool:
        """After a wait with `call.hold`: True to go on as `call` says, False to end with `last`."""
        try:
            now = self._now()
            decision = call.origin.strategy.woken(now, call, call.remaining(now))
            if decision.reason is None:
                call.delay, call.hold = decision.delay, decision.hold
                return True
            self._give_up(call, decision.reason)
            if isinstance(last, BaseException):
                self.runs.failed(request, handler, last, now)
        except Exception as fault:
            self._faulty(call, fault)
        return False

    def _faulty(self, call: Call, fault: Exception) -> None:
        """Deciding failed: the call ends as it would without us, and is counted all the same."""
        self._fault(fault)
        self.end(call, "failed_after_retry" if call.retries else "failed_without_retry")

    def _judged(
        self,
        call: Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        error_type: str,
        evidence: Evidence,
        *,
        patient: bool,
        permanent: bool = False,
        error: Exception | None = None,
    ) -> bool:
        """Record a failed attempt, ask the strategy, and end the call if it says no."""
        now = self._now()
        origin = call.origin
        if not call.retries:
            self._set_deadline(call, request, handler)
        code = self._ledger.catalogue.code(error_type)
        self._ledger.count_failure(origin.tally, code)
        decision = origin.strategy.failed(
            now,
            code,
            call,
            evidence,
            obstacle=self._obstacle(call, request, permanent),
            remaining=call.remaining(now),
            patient=patient,
            error=error,
        )
        if decision.reason is None:
            call.delay, call.hold = decision.delay, decision.hold
            call.waited = 0.0
            return True
        self._give_up(call, decision.reason)
        return False

    def _give_up(self, call: Call, reason: Reason) -> None:
        self._suppress(call, reason)
        self.end(call, "failed_after_retry" if call.retries else "failed_without_retry")

    @staticmethod
    def _suppress(call: Call, reason: Reason) -> None:
        suppressed = call.origin.tally.suppressed
        suppressed[reason] = suppressed.get(reason, 0) + 1

    @staticmethod
    def _set_deadline(call: Call, request: ClientRequest, handler: ClientHandlerType) -> None:
        total = total_timeout(request, handler)
        call.deadline = None if total is None else call.started + total

    def _obstacle(self, call: Call, request: ClientRequest, permanent: bool) -> Reason | None:
        if not may_be_sent_again(request, self._retry_methods):
            return "not_idempotent"
        if call.retries >= self._max_retries:
            return "max_attempts"
        if permanent:
            return "not_retryable"
        replayable = (
            not unwatched_body(request) if call.upload is None else call.upload.replayable()
        )
        if not replayable:
            return "body_not_replayable"
        return None

    def succeeded(self, call: Call | None, origin: Origin, started: float, now: float) -> None:
        """After a first attempt that succeeded, where more is due than to write that down."""
        origin.unended -= 1
        origin.tally.first_success += 1
        try:
            origin.strategy.succeeded(now, now - started, call)
            self._count(origin, now)
        except Exception as error:
            self._fault(error)

    def mended(
        self,
        call: Call,
        request: ClientRequest,
        handler: ClientHandlerType,
        response: ClientResponse,
    ) -> None:
        """After a retry that succeeded."""
        try:
            now = self._now()
            call.origin.strategy.succeeded(now, now - call.sent, call)
            if response.status in REDIRECTS:
                self.redirected(call, request, handler, now)
        except Exception as error:
            self._fault(error)
        self.end(call, "retry_success")

    def redirected_at_once(
        self, call: Call, request: ClientRequest, handler: ClientHandlerType
    ) -> None:
        """After a first attempt that succeeded with an answer that leads elsewhere."""
        now = self._now()
        self.succeeded(call, call.origin, call.sent, now)
        try:
            self.redirected(call, request, handler, now)
        except Exception as error:
            self._fault(error)

    def redirected(
        self, call: Call, request: ClientRequest, handler: ClientHandlerType, now: float
    ) -> None:
        """After an answer that aiohttp follows with a request of its own."""
        self.runs.redirected(request, handler, call.started, call.resends + 1, now)

    def end(self, call: Call, outcome: Outcome) -> None:
        """Close a call's books, once: hand back what it reserved, count what it came to."""
        if call.ended:
            return
        call.ended = True
        try:
            origin = call.origin
            origin.unended -= 1
            origin.tally.count(outcome)
            origin.strategy.abandoned(call)
            self._count(origin, self._now())
        except Exception as error:
            self._fault(error)

    def _count(self, origin: Origin, now: float) -> None:
        """What is due with time: memory samples, sweeps, and runs that never came."""
        if self.origins.count(origin, now):
            self.runs.forget(now)
