"""The seam between deciding and doing: what a policy is told, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol, get_args

#: Why a call got no (further) attempt.
Reason = Literal[
    "not_idempotent",
    "max_attempts",
    "not_retryable",
    "body_not_replayable",
    "memory_pressure",
    "retry_after",
    "limited",
    "congested",
    "unpromising",
    "origin_down",
    "deadline",
    "budget_exhausted",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

#: An origin's condition in a word, worst first.
State = Literal["down", "congested", "limited", "healthy"]
STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class Send:
    """Send an attempt now."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Send nothing for so many seconds, 0 or more, and then ask `Policy.wake`."""

    seconds: float
    #: `wake` will answer with `Send`. So what the call has got now can be let go before the wait.
    committed: bool = False


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the call, counted under one of `REASONS`; other words are `_OTHER` in the metrics."""

    reason: str


Action = Send | Wait | GiveUp

#: The one `Send` that is needed.
SEND: Final = Send()


class AttemptOutcome(NamedTuple):
    """What one attempt came to, as plain values."""

    #: The attempt succeeded. The fields about failures then have their defaults.
    ok: bool
    #: The failure's name, as `error.type` in the metrics: a status, or an exception's class.
    error_type: str = ""
    #: Seconds from sending to knowing; nan if unknown.
    latency: float = math.nan
    #: Nobody answered: refused, unreachable, or timed out.
    no_response: bool = False
    #: An overloaded server fails so: a time-out, a 503, a 504 or a 529.
    overload: bool = False
    #: The server asked to come later.
    limited: bool = False
    #: Seconds after which it wants to be asked again, if it named a time.
    retry_after: float | None = None
    #: The connection had been used before, and was lost before an answer began.
    reused_connection: bool = False
    #: Another attempt is possible. If not, the policy learns, and its answer does not matter.
    replayable: bool = True
    #: The call can end, after any wait, with what it has got now.
    can_wait: bool = True


class CallView(Protocol):
    """What a policy sees of one call. One object for the whole life of the call."""

    @property
    def attempts(self) -> int:
        """Attempts sent so far."""

    @property
    def started(self) -> float:
        """When the call began, by the policy's clock, in seconds."""

    @property
    def deadline(self) -> float | None:
        """When the call must have ended, by the same clock; None without a limit."""

    #: The policy's own, None at first.
    state: Any


class Policy(Protocol):
    """Decides for one origin whether and when attempts are sent.

    All methods are synchronous and O(1), and belong to one event loop. `now` is monotonic time in
    seconds. The policy's caller ends a call at `max_attempts` or the deadline, whatever the answer.

    The order for one call: `arrive`, then after `Send` one `outcome`, after `Wait` one `wake`, and
    so on, until an outcome is ok or an answer is `GiveUp`. `cancel` ends a call at any other point.
    """

    def arrive(self, now: float, call: CallView) -> Action:
        """Decide before the first attempt."""

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Learn what an attempt came to; after a failure decide on another attempt.

        After a success the answer does not matter. Without `outcome.can_wait` every `Wait` is
        committed, as the server's answer can't be kept.
        """

    def wake(self, now: float, call: CallView) -> Action:
        """Decide again, after the wait that the last answer asked for."""

    def cancel(self, now: float, call: CallView) -> None:
        """Take back what a call reserved that was cancelled or ended by its caller; idempotent."""
