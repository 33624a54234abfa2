"""What the strategy is told of one call, what it answers, and what it remembers in between."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

__all__ = ("REASONS", "Decision", "Evidence", "Reason", "Trial")

#: Why there was no (further) attempt.
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


class Decision(NamedTuple):
    """What to do next about a call.

    `reason` set: no further attempt, for that reason. `hold`: wait `delay` seconds and ask again
    (`woken`). Otherwise: wait `delay` seconds and send; for a retry a token is reserved.
    """

    delay: float
    reason: Reason | None
    hold: bool = False


class Evidence(NamedTuple):
    """What a failed attempt says beside its type.

    `absent`: nobody answered (refused, unreachable, timed out). `overload`: what a flooded origin
    does (timed out, 503, 504). `limited`: told to come later; `retry_after` is when, in seconds.
    """

    absent: bool = False
    overload: bool = False
    limited: bool = False
    retry_after: float | None = None


class Trial:
    """What the strategy remembers of one call, from its first failure or `admit` to its end."""

    __slots__ = (
        "alone",
        "code",
        "failed_at",
        "failures",
        "flooded",
        "held",
        "holding",
        "limited",
        "reserved",
    )

    def __init__(self) -> None:
        #: Attempts that failed.
        self.failures = 0
        #: Whether a token is reserved for a retry that has not been judged yet.
        self.reserved = False
        #: The error that the last attempt came to, and when.
        self.code = 0
        self.failed_at = 0.0
        #: Whether it was told to come later, and waits for that moment.
        self.limited = False
        #: Whether it met overload while the origin was congested, and waits for that to pass.
        self.flooded = False
        #: Whether nothing had been heard of the origin for long when the call failed first.
        self.alone = False
        #: Whether it is being held, and for how many seconds it was in all. Counted by what it was
        #: asked to wait and not by the clock, which may stand still or leap.
        self.holding = False
        self.held = 0.0
