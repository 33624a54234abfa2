"""The adaptive policy with `admission=True`: it decides on first attempts too."""

from __future__ import annotations

from typing import Final

from .adaptive import MOST_HELD, AdaptivePolicy
from .cost import poll_pause, time_of
from .protocol import SEND, Action, AttemptOutcome, CallView, GiveUp, Wait
from .state import Arrival, CallState

# While the origin is down one call probes after this share of the outage's age, within two bounds:
# a blip is noticed at once, the end of an outage within a second.
_PROBE_SHARE: Final = 0.1
_PROBE_LEAST: Final = 0.2
_PROBE_MOST: Final = 1.0


class AdmittingPolicy(AdaptivePolicy):
    """Implements `Policy` for one origin: while that is down, all but a few calls wait or fail.

    Congestion and limits keep no first attempt back. Who steps back from a limit that others share
    leaves it to them, and gains nothing.
    """

    __slots__ = ()

    def arrive(self, now: float, call: CallView) -> Action:
        """Send, hold or refuse a call before its first attempt."""
        if self.outage.down_since is None:
            return SEND
        _, hold = time_of(now, call.deadline, self._config, self._tuning)
        # While few are sent, callers would else seem to wait for their answers.
        self.callers.called(now)
        call.state = Arrival(now, hold)
        self._held_calls += 1
        return self._admit(now, call, call.state)

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        """Learn from the attempt; after a failure, decide."""
        if outcome.ok and isinstance(call.state, Arrival):
            call.state = None
        return super().outcome(now, call, outcome)

    def wake(self, now: float, call: CallView) -> Action:
        """Decide again on a held call, whether it failed or was never sent."""
        if isinstance(call.state, Arrival):
            return self._admit(now, call, call.state)
        return super().wake(now, call)

    def cancel(self, now: float, call: CallView) -> None:
        """Take back the place of a call that ends without an outcome."""
        if not isinstance(call.state, Arrival):
            super().cancel(now, call)
        elif not call.state.admitted:
            self._admitted(call, SEND)

    def _failed(self, now: float, call: CallView, outcome: AttemptOutcome) -> CallState:
        arrival = call.state
        if not isinstance(arrival, Arrival):
            return super()._failed(now, call, outcome)
        call.state = None
        state = super()._failed(now, call, outcome)
        # A call has one allowance of holding, before its first attempt and after it.
        state.hold_until -= arrival.held_seconds
        return state

    def retry_in(self, now: float) -> float | None:
        """Seconds until a call may look again while the origin is down; else None."""
        if self.outage.down_since is None:
            return None
        spacing = self._spacing(now - self.outage.failing_since)
        return min(spacing, max(0.0, self._last_look + spacing - now))

    @staticmethod
    def _spacing(age: float) -> float:
        """Seconds between two looks in an outage of that age."""
        return min(_PROBE_MOST, max(_PROBE_LEAST, _PROBE_SHARE * age))

    def _admit(self, now: float, call: CallView, state: Arrival) -> Action:
        outage, tuning = self.outage, self._tuning
        # Whether it waited so long by the clock or by what it was asked to.
        is_over = max(state.held_seconds, now - state.began) >= state.longest
        if outage.down_since is None:
            if is_over or self._release >= 1.0:
                self._release = max(0.0, self._release - 1.0)
                return self._admitted(call, SEND)
            age = 0.0
        else:
            age = now - outage.failing_since
            spacing = self._spacing(age)
            # Also sent if the clock was set back, and the last look seems to be yet to come.
            if not 0.0 <= now - self._last_look < spacing:
                self._last_look = now
                return self._admitted(call, SEND)
            too_old = age > tuning.hold_young * state.longest
            if is_over or too_old or self._held_calls > MOST_HELD:
                return self._admitted(call, GiveUp("origin_down"))
        pause = poll_pause(now, age, self._chance(), self._held_calls, tuning)
        if call.deadline is not None and pause >= call.deadline - now:
            return self._admitted(call, GiveUp("deadline"))
        state.held_seconds += pause
        return Wait(pause)

    def _admitted(self, call: CallView, action: Action) -> Action:
        """End the hold before the first attempt."""
        call.state.admitted = True
        self._held_calls -= 1
        return action
