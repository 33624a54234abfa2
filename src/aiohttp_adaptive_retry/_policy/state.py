"""What the adaptive policy remembers of a call, and what it decides about one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .protocol import Action, AttemptOutcome


@dataclass(slots=True, eq=False)
class CallState:
    """What the policy remembers of one call, from its first failure to its end."""

    #: The newest failure, and when it came.
    failure: AttemptOutcome
    failed_at: float
    #: The time that the call had at its first failure, in seconds.
    time: float
    #: Until when it may be held for others' news, and may look for itself.
    hold_until: float
    look_until: float
    failures: int = 1
    #: Whether the newest attempt timed out, and the tokens that its retry takes.
    timed_out: bool = False
    price: float = 1.0
    #: Tokens reserved for a retry that has not been judged yet.
    paid: float = 0.0
    held: bool = False
    #: Seconds that it was asked to wait while held, since its newest failure. The clock may stand
    #: still or leap.
    held_seconds: float = 0.0
    ended: bool = False


@dataclass(slots=True, eq=False)
class Arrival:
    """What the policy remembers of a call that was held before its first attempt."""

    began: float
    #: Seconds for which it may be held.
    longest: float
    #: Seconds that it was asked to wait; the clock may stand still or leap.
    held_seconds: float = 0.0
    #: Whether the hold is over.
    admitted: bool = False


class Decision(NamedTuple):
    """What is to be done with a failed call, and what that takes."""

    action: Action
    #: Tokens of the flow.
    price: float = 0.0
    #: The call was held and is let go, as the origin is back.
    released: bool = False
    #: The call looks whether the origin is back.
    look: bool = False
