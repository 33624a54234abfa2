"""The books of all calls: what an attempt came to, what is asked of the strategy, what is counted.

Nothing here awaits, and nothing here may make a call fail: each method catches what goes wrong in
it, and then lets the call end as it would without us.
"""

from __future__ import annotations

from collections.abc import Callable

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, hdrs

from .attempt import (
    REDIRECTS,
    Runs,
    UploadWatch,
    classify,
    may_be_sent_again,
    total_timeout,
    unwatched_body,
)
from .backoff import parse_retry_after
from .config import AdaptiveConfig
from .errors import error_name
from .faults import Faults, SafeClock
from .ledger import Outcome
from .origins import Origin, Origins
from .strategy import Reason

__all__ = ("Books", "Call")


class Call:
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
    ) -> tuple[BaseException | None, float | None]:
        """If aiohttp ran the chain for this call before: the error it met, or when it began."""
        try:
            run = self.runs.earlier(request, handler)
            return (None, None) if run is None else (run.error(), run.started)
        except Exception as error:
            self._fault(error)
            return None, None

    def failed(
        self, call: Call, request: ClientRequest, handler: ClientHandlerType, error: BaseException
    ) -> bool:
        """After an attempt that raised: True to retry after `call.delay`, False to let it raise."""
        try:
            kind = classify(error, self.retry_statuses)
            if kind == "ignored" or not isinstance(error, Exception):
                self.end(call, "ignored")
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
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        error: Exception | None = None,
    ) -> bool:
        """Record a failed attempt, ask the strategy, and end the call if it says no."""
        now = self._now()
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
        self.end(call, "failed_after_retry" if call.retries else "failed_without_retry")
        return False

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
            call.origin.strategy.succeeded(now)
            if response.status in REDIRECTS:
                self.runs.redirected(request, handler, call.started, now)
        except Exception as error:
            self._fault(error)
        self.end(call, "retry_success")

    def end(self, call: Call, outcome: Outcome) -> None:
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
            now = self._now()
            origins = self.origins
            origins.operations -= 1
            if origins.operations <= 0 or not now < origins.due:
                self.tick(now)
        except Exception as error:
            self._fault(error)

    def tick(self, now: float) -> None:
        """What is due with time: memory samples, sweeps, and runs that never came."""
        self.origins.tick(now)
        self.runs.forget(now)


def _error_type(error: BaseException) -> str:
    """OpenTelemetry's `error.type`: a status where the server (or a proxy) gave one."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return str(error.status)
    return error_name(error)
