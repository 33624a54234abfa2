"""Policies for tests of what a policy is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp_adaptive_retry.policy import SEND, Action, AttemptOutcome, CallView, GiveUp, Wait


@dataclass
class Listening:
    """Keeps what it is told; sends again at once what says nothing about the origin.

    Every other failure is sent again after a wait of `pause` seconds.
    """

    pause: float = 1.0
    outcomes: list[AttemptOutcome] = field(default_factory=list)
    #: For each failure, whether another layer had sent the call before.
    resent: list[bool] = field(default_factory=list)

    def __call__(self, origin: str) -> Listening:
        """For `AdaptiveRetryMiddleware(policy=)`: one for all origins."""
        return self

    @property
    def failures(self) -> list[AttemptOutcome]:
        """The outcomes that were no success."""
        return [outcome for outcome in self.outcomes if not outcome.ok]

    def arrive(self, now: float, call: CallView) -> Action:
        return SEND

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        self.outcomes.append(outcome)
        if outcome.ok:
            return SEND
        self.resent.append(getattr(call, "is_resend", False))
        if not outcome.replayable:
            return GiveUp("not_retryable")
        if outcome.reused_connection:
            return SEND
        return Wait(self.pause, committed=True)

    def wake(self, now: float, call: CallView) -> Action:
        return SEND

    def cancel(self, now: float, call: CallView) -> None:
        """Nothing is reserved."""
