"""What is told of calls as they go: events for a user's `on_event`, and lines in the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from .._origin.counters import Faults
from .._origin.origin import Mood, Origin
from .._policy.protocol import State
from ..events import CallInfo, EventKind, RetryEvent

_log: Final = logging.getLogger("aiohttp_adaptive_retry")
# The log has at most one line in so many seconds about the state of one origin.
_LINE_SECONDS: Final = 60.0


class Narrator:
    """Tells of calls and of origins' states. Never raises; one loop.

    `on_event` is the user's, or None. What it raises is counted, and logged once.
    """

    __slots__ = ("_faults", "_on_event", "is_listening")

    def __init__(self, on_event: Callable[[RetryEvent], object] | None, faults: Faults) -> None:
        self._on_event, self._faults = on_event, faults
        self.is_listening = on_event is not None

    def tell(
        self, kind: EventKind, now: float, call: CallInfo, delay: float, reason: str | None
    ) -> None:
        """Tell of a call."""
        try:
            event = RetryEvent(
                kind=kind,
                origin=call.origin_name,
                method=call.method,
                attempt=call.attempts,
                delay=delay,
                reason=reason,
                error_type=call.error_types[-1] if call.error_types else None,
                elapsed=max(0.0, now - call.started),
            )
            self._write(event)
            self._emit(event)
        except Exception as error:
            # A handler of the log may raise.
            self._faults(error)

    def look(self, now: float, origin: Origin) -> None:
        """Tell of an origin's state, if that has changed since it was told."""
        try:
            state, mood = origin.policy.state(now), origin.mood
            if state != "healthy" or mood is not None:
                self._saw(now, origin, state, mood or Mood("healthy", now))
        except Exception as error:
            self._faults(error)

    def _saw(self, now: float, origin: Origin, state: State, mood: Mood) -> None:
        origin.mood = mood
        is_recent = 0.0 <= now - mood.line_at < _LINE_SECONDS
        is_down = state == "down"
        if state != mood.state:
            lasted, mood.state, mood.since = max(0.0, now - mood.since), state, now
            self._emit(RetryEvent(kind="state", origin=origin.name, reason=state, elapsed=lasted))
        if is_down != mood.line_is_down and not is_recent:
            since, mood.line_is_down, mood.line_at = mood.line_at, is_down, now
            if is_down:
                _log.warning("%s is down: nothing succeeds there", origin.name)
            else:
                _log.info("%s is back, %.0f s after it went down", origin.name, now - since)
        elif state == "healthy" and not mood.line_is_down and not is_recent:
            # Nothing is left to be told.
            origin.mood = None

    @staticmethod
    def _write(event: RetryEvent) -> None:
        """Write a line about a call."""
        call = (event.method, event.origin, event.attempt, event.error_type)
        if event.kind == "retry":
            _log.debug(
                "%s %s: attempt %d failed (%s), the next one follows in %.2f s", *call, event.delay
            )
        elif event.kind == "hold":
            _log.debug("%s %s: held after attempt %d (%s) for news of the origin", *call)
        elif event.kind == "give_up":
            _log.info(
                "%s %s: given up after attempt %d (%s) and %.1f s: %s",
                *call,
                event.elapsed,
                event.reason,
            )

    def _emit(self, event: RetryEvent) -> None:
        if self._on_event is not None:
            try:
                self._on_event(event)
            except Exception as error:
                self._faults.of_callback("on_event", error)
