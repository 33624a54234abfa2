"""What is told of a call that is more than a first success. The success path tells nobody."""

from __future__ import annotations

from typing import Final, Literal, Protocol, get_args

from ._policy.protocol import AttemptOutcome, CallView

__all__ = ("RESULTS", "CallInfo", "CallResult", "Label", "Listener")

#: `server.address` and `server.port` as metrics show them; port None where there is none to name.
Label = tuple[str, int | None]

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
