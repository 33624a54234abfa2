"""One call, as policies and listeners see it, and who is told how it goes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ..config import AdaptiveConfig
from ..events import NOTE, REPORT, CallInfo, CallReport, EventKind, Label
from .origin import Origin

_log: Final = logging.getLogger("aiohttp_adaptive_retry")


class Watcher(Protocol):
    """Is told of calls as they go, where somebody wants to know. Never raises."""

    @property
    def is_listening(self) -> bool:
        """Somebody wants to know of everything; else only the log, if its level says so."""

    def tell(
        self, kind: EventKind, now: float, call: CallInfo, delay: float, reason: str | None
    ) -> None:
        """Something happened to a call."""

    def look(self, now: float, origin: Origin) -> None:
        """The origin's state may have changed."""


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One call, once it is more than a first success: the `CallView` of policies."""

    origin: Origin
    #: When it began, and when its newest attempt was sent.
    started: float
    sent_at: float
    #: Attempts sent so far, and requests sent before a redirect led here.
    attempts: int = 0
    requests_before: int = 0
    #: When the call must have ended; None for never.
    deadline: float | None = None
    state: Any = None
    #: Seconds of waiting that were asked for since the newest attempt failed.
    waited: float = 0.0
    #: When the wait that goes on began, and whether the call is held.
    waits_since: float = 0.0
    is_held: bool = False
    #: That another attempt follows the newest failure was told.
    is_announced: bool = False
    #: Seconds that the call has spent in waits, and those of them in which it was held.
    total_waited: float = 0.0
    total_held: float = 0.0
    #: The names of the attempts that failed, and what the newest failure asked for.
    error_types: tuple[str, ...] = ()
    retry_after: float | None = None
    #: Why it got no further attempt.
    reason: str | None = None
    #: What the newest attempt brought is let go of, so the call can't end without another one.
    must_send: bool = False
    ended: bool = False
    #: Another retry layer around us has sent the same before, so the first attempt is a retry too.
    is_resend: bool = False
    #: Its configuration, where that is not its origin's.
    own: AdaptiveConfig | None = None
    #: It is decided on and counted, and sent once.
    observed: bool = False
    #: When it must have ended by the caller's `call_options`.
    until: float | None = None
    #: While it waits: the bytes that it was counted with in `WaitingCalls`.
    waits_with: int | None = None

    def kept_bytes(self) -> int:
        """Bytes that the call keeps while it waits: its body, and what it may end with."""
        return 0

    def limit(self, total: float | None) -> None:
        """Set the deadline: by the seconds that the call may take, `retry_for` and `until`.

        All are planned for alike. What ends an attempt at its total time is the caller's.
        """
        longest = (self.own or self.origin.config).retry_for
        if longest is None or (total is not None and total < longest):
            longest = total
        deadline = self.until
        if longest is not None and (deadline is None or self.started + longest < deadline):
            deadline = self.started + longest
        self.deadline = deadline

    def end_by(self, moment: float) -> None:
        """The call ends at this moment at the latest."""
        if self.deadline is None or moment < self.deadline:
            self.deadline = moment

    def is_late(self, now: float) -> bool:
        """Whether no retry may begin any more."""
        return self.deadline is not None and now > self.deadline

    @property
    def resends(self) -> int:
        """Requests sent before the newest one, for whatever reason."""
        return self.requests_before + self.attempts - 1

    @property
    def label(self) -> Label:
        """What the call's origin is counted under."""
        return self.origin.counters.label

    def report_on(self, result: object, now: float) -> None:
        """Put a report on what the call ends with, and a note if that is an exception.

        An exception that ends several calls has the report and the note of the last one.
        """
        try:
            found = CallReport(
                self.attempts,
                max(0.0, now - self.started),
                self.total_waited,
                self.total_held,
                self.reason,
                self.retry_after,
                self.error_types,
            )
            # As a plain tuple: an exception can be unpickled where this package is not.
            result.__dict__[REPORT] = tuple(found)
            if isinstance(result, BaseException):
                notes = getattr(result, "__notes__", None)
                if isinstance(notes, list):
                    notes[:] = [note for note in notes if not str(note).startswith(NOTE)]
                result.add_note(str(found))
        except Exception as fault:
            # An exception's own class may forbid it.
            _log.debug("no report on %s (%s)", type(result).__name__, type(fault).__name__)

    def __repr__(self) -> str:
        # Users' policies get calls, and may log them: no request and no body.
        return f"<call {self.method} {self.origin_name} attempts={self.attempts}>"

    @property
    def origin_name(self) -> str:
        """The origin as "scheme://host:port"."""
        return self.origin.name

    @property
    def method(self) -> str:
        """Nothing, for what is no request."""
        return ""
