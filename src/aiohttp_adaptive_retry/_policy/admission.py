"""The adaptive policy with `admission=True`: first attempts too wait where there is trouble.

They wait out what a limiter asks for, are parked but for one probe at a time while the origin is
down, and are thinned while it is congested, to where latency stays bearable.
"""

from __future__ import annotations

from typing import Final

from .adaptive import AdaptivePolicy, CallState
from .protocol import SEND, Action, CallView, GiveUp

# One first attempt probes at this share of the outage's age, within the two bounds below: a blip is
# noticed at once, the end of an outage within 2 s (flapping).
_PROBE_SHARE: Final = 0.5
_PROBE_LEAST: Final = 0.2
_PROBE_MOST: Final = 1.0
# Where nothing was sent for so many seconds, one call that is parked for congestion goes all the
# same: only what is sent can tell that congestion is over (a burst that ends in a brownout).
_SILENCE: Final = 1.0


class AdmittingPolicy(AdaptivePolicy):
    """Implements `Policy` for one origin; decides on first attempts as well as on retries."""

    __slots__ = ()

    def arrive(self, now: float, call: CallView) -> Action:
        """Send, park or refuse a call before its first attempt."""
        if call.state is None:
            call.state = CallState()
        action = self._admit(now, call, call.state)
        if type(action) is GiveUp:
            self.cancel(now, call)
        return action

    def _admit(self, now: float, call: CallView, state: CallState) -> Action:
        health = self.health
        if health.down_since is not None:
            age = now - health.failing_since
            spacing = max(_PROBE_LEAST, _PROBE_SHARE * age)
            # Also sent if the clock was set back, and the last attempt seems to be yet to come.
            if 0.0 <= now - health.last_sent < min(_PROBE_MOST, spacing):
                return self._park(now, call, state, age, "origin_down")
        elif self._limit(now) > 0.0:
            return self._await_limit(now, call, state)
        elif health.admission_rate < 1.0 and self._random() >= health.admission_rate:
            return self._park(now, call, state, self._congested_for(now), "congested")
        health.last_sent = now
        return SEND

    def _resume(self, now: float, call: CallView, state: CallState) -> Action:
        """Decide again on a parked call, whether it failed or was never sent."""
        if state.failures:
            return super()._resume(now, call, state)
        health = self.health
        if health.down_since is not None or self._limit(now) > 0.0:
            return self._admit(now, call, state)
        priority = self._priority(now, call, state)
        unheard = not 0.0 <= now - health.last_sent < _SILENCE
        if unheard or (health.admission_rate >= 1.0 and health.try_release(now, priority)):
            health.last_sent = now
            return SEND
        return self._park(now, call, state, self._congested_for(now), "congested")

    def _congested_for(self, now: float) -> float:
        return now - self.health.congested_since if self.health.congested else 0.0
