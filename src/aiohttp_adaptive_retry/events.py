"""What is told of a call that is more than a first success. The success path tells nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

from ._policy.protocol import AttemptOutcome, CallView

__all__ = (
    "RESULTS",
    "CallInfo",
    "CallReport",
    "CallResult",
    "EventKind",
    "Label",
    "Listener",
    "RetryEvent",
    "report",
)

#: What an event tells of. `hedge` is kept for a second attempt beside a slow one.
EventKind = Literal["retry", "hold", "give_up", "mended", "hedge", "state"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryEvent:
    """What happens to a call that is more than a first success, or to an origin's state.

    For `AdaptiveRetryMiddleware(on_event=)`. It has no path, query, header or body.

    - `retry`: a failed attempt is followed by another one, `delay` seconds from now.
    - `hold`: the call waits for news of its origin. It asks again in `delay` seconds, and perhaps
      waits on; once in a hold.
    - `give_up`: the call failed, and `reason` says why there is no further attempt.
    - `mended`: a retry succeeded.
    - `state`: the origin has come into the state that `reason` names, after `elapsed` seconds in
      another one. It is about no call: `attempt` is 0, and `method` is "".
    """

    kind: EventKind
    #: "scheme://host:port".
    origin: str
    method: str = ""
    #: The number of the attempt that ended, from 1; 0 before the first one.
    attempt: int = 0
    #: Seconds until the next attempt, or until a held call asks again; 0.0 where none.
    delay: float = 0.0
    reason: str | None = None
    #: What the newest failed attempt of the call is counted under.
    error_type: str | None = None
    #: Seconds since the call began.
    elapsed: float = 0.0


class CallReport(NamedTuple):
    """What one call took: plain values, which hold nothing alive."""

    #: Attempts sent, since the last redirect.
    attempts: int
    #: Seconds from the call's start to its end.
    elapsed: float
    #: Seconds of that between attempts, and how many of them the call was held for news.
    waited: float
    held: float
    #: Why there was no further attempt; None when a retry mended the call.
    reason: str | None
    #: Seconds that the server asked for with its newest failure, if it did.
    retry_after: float | None
    #: For each failed attempt, oldest first, what it is counted under.
    error_types: tuple[str, ...]

    def __str__(self) -> str:
        """The note on a failed call's exception."""
        noun = "attempt" if self.attempts == 1 else "attempts"
        text = f"{NOTE}{self.attempts} {noun} in {self.elapsed:.1f} s"
        return text if self.reason is None else f"{text}; no further retry: {self.reason}"


#: How a note of ours begins, and the attribute that has the report of a response or an exception.
NOTE: Final = "aiohttp_adaptive_retry: "
REPORT: Final = "_adaptive_retry_report"
# An exception that aiohttp made around ours is its cause, or the cause of that.
_MOST_CAUSES: Final = 4


def report(result: object) -> CallReport | None:
    """What was done for a response or an exception that a call ended with. O(1); any thread.

    None for a call that succeeded at once, which is not worth the cost of a report, and for what
    did not come out of a middleware of ours.

    >>> report(ValueError()) is None
    True
    """
    candidate: Any = result
    for _ in range(_MOST_CAUSES):
        found = getattr(candidate, "__dict__", {}).get(REPORT)
        if isinstance(found, tuple):
            return CallReport(*found)
        candidate = getattr(candidate, "__cause__", None)
        if candidate is None:
            break
    return None


#: `server.address` and `server.port` as metrics show them; port None where there is none to name.
Label = tuple[str, int | None]

#: Why a call got no further attempt, where `mode` and not a policy says so.
SWITCH_REASONS: Final = ("observed", "disabled")

#: What a call came to.
CallResult = Literal[
    "first_success",
    "retry_success",
    "failed_without_retry",
    "failed_after_retry",
    "refused",
    "ignored",
]
RESULTS: Final[tuple[CallResult, ...]] = get_args(CallResult)


class CallInfo(CallView, Protocol):
    """What a listener sees of one call: plain values."""

    @property
    def label(self) -> Label:
        """What the call's origin is counted under."""

    @property
    def resends(self) -> int:
        """Requests sent for the call before the newest one, redirects included."""

    @property
    def origin_name(self) -> str:
        """The call's origin, as "scheme://host:port"."""

    @property
    def method(self) -> str:
        """The request's method; "" for what is no request."""

    @property
    def error_types(self) -> tuple[str, ...]:
        """What each failed attempt is counted under, oldest first."""


class Listener(Protocol):
    """Is told of failures, retries and ends, on the event loop, in their order; must not block.

    If a listener raises, the fault is counted, and the call ends as it would without us.
    """

    def attempt_failed(self, call: CallInfo, outcome: AttemptOutcome) -> None:
        """An attempt failed; what happens next is not decided yet."""

    def retry_sent(self, call: CallInfo, waited: float) -> None:
        """A retry is sent now, after so many seconds of waiting since the failure before it."""

    def call_ended(self, call: CallInfo, result: CallResult, reason: str | None) -> None:
        """The call is over. `reason` says why a failed or refused call got no further attempt."""
