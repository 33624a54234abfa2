"""Whether a failed attempt is worth another one: the deciding core for one origin.

In five sentences. An attempt that failed with an answer is retried after a short, growing, jittered
wait, unless retries of its type hardly ever mend, or it speaks of overload while successes have
become slow and stay so for a second. A call that got no answer, like any while the origin is down,
is held until another call's success shows that the origin is back or, where hardly anybody else
calls, until a probe finds out. Calls that were held are let go at the pace of successes of usual
latency, the most urgent first, and none is held for more than `hold_cap` seconds or once the
trouble is older than 40. Every retry needs a token that successes earn, that comes back if the
retry mends, and that is lost if it does not; what a server asks for in Retry-After is waited for or
handed to the caller. With `admission=True` first attempts too wait out what a limiter asks for, are
held while the origin is down but for one probe at a time, and are thinned while it is congested, to
where latency stays bearable.

The rules are in deciding.py, what is learnt of the origin in health.py. All of it is synchronous
arithmetic over plain values that knows neither aiohttp nor asyncio nor OpenTelemetry; time and
chance are injected, and the simulator, the tests and the middleware drive this same object.
"""

from __future__ import annotations

import dataclasses
import math
import random as _random
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from .backoff import full_jitter
from .budget import RetryBudget
from .config import AdaptiveConfig
from .deciding import Deciding
from .errors import OK, ErrorCatalogue, error_name, error_text
from .faults import Faults, SafeClock
from .health import Health
from .memory import MemoryGuard
from .recent import AttemptRecord, RecentAttempts
from .trial import REASONS, Decision, Evidence, Reason, Trial
from .window import Window

if TYPE_CHECKING:
    from typing import Unpack

    from .config import ConfigOverrides

__all__ = ("REASONS", "AdaptiveStrategy", "Decision", "Reason", "checked_callable")

_F = TypeVar("_F")

# Texts are the only thing recorded that is not a small number, so they are few.
_MESSAGES: Final = 100
# Retries of should_retry that may be under way at a time; what is beyond is taken for new calls.
_PENDING: Final = 64


class AdaptiveStrategy(Deciding):
    """Decides for one origin, or for anything else that can fail, from a bounded window.

    Args:
        config: what can be set; None for the defaults.
        clock: monotonic seconds.
        random: a number from 0 to 1, for jitter.
        **overrides: fields of `AdaptiveConfig`, on top of `config`.

    Raises:
        TypeError, ValueError: a field or an argument is wrong; the text names it and its value.

    An attempt costs O(1) time and 9 bytes whatever the window's size. One loop at a time may use
    it; nothing here suspends, so calls of one loop never interleave.

    Example, outside HTTP (examples/standalone.py has it whole)::

        strategy = AdaptiveStrategy(window_size=100)
        try:
            await work()
        except OSError as error:
            if not await strategy.should_retry(error, attempt=1):
                raise
            await asyncio.sleep(strategy.delay(retry=1))
        else:
            strategy.record_success()
    """

    __slots__ = (
        "_booked",
        "_catalogue",
        "_clock",
        "_epoch",
        "_messages",
        "_operations",
        "_pending",
        "_sweep_at",
        "_written",
        "window",
    )

    def __init__(
        self,
        config: AdaptiveConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
        **overrides: Unpack[ConfigOverrides],
    ) -> None:
        if config is not None and not isinstance(config, AdaptiveConfig):
            raise TypeError(f"config must be an AdaptiveConfig or None, got {config!r}")
        config = dataclasses.replace(config or AdaptiveConfig(), **overrides)
        catalogue = ErrorCatalogue(config.max_error_type_length)
        self._set_up(
            config,
            SafeClock(checked_callable("clock", clock), Faults()),
            checked_callable("random", random),
            catalogue,
            MemoryGuard(config),
        )
        self._sweep_at = self._clock() + config.cleanup_interval.total_seconds()

    @classmethod
    def shared(
        cls,
        config: AdaptiveConfig,
        clock: SafeClock,
        random: Callable[[], float],
        catalogue: ErrorCatalogue,
        guard: MemoryGuard,
    ) -> AdaptiveStrategy:
        """One of many strategies that share a catalogue and a guard; their owner sweeps them."""
        self = cls.__new__(cls)
        self._set_up(config, clock, random, catalogue, guard)
        return self

    def _set_up(
        self,
        config: AdaptiveConfig,
        clock: SafeClock,
        random: Callable[[], float],
        catalogue: ErrorCatalogue,
        guard: MemoryGuard,
    ) -> None:
        self.config = config
        self._clock = clock
        self._random = random
        self._catalogue = catalogue
        self._guard = guard
        now = self._clock()
        self.budget = RetryBudget(config, now)
        self.health = Health()
        # The window's end as far as it was booked, and how many successes `book` made up for.
        self._booked = 0
        self._written = 0
        self.window = Window(config.window_size, config.window_duration.total_seconds())
        if guard.pressure:
            self.window.restrict(self._pressure_size(), now)
        # (number of the attempt, its text), newest last.
        self._messages: deque[tuple[int, str]] | None = None
        # What turns the clock's readings into times of day, for people.
        self._epoch = time.time() - now
        self._operations = 0
        # Sweeps by time are the business of whoever shares it.
        self._sweep_at = math.inf
        # What is known of retries granted by should_retry whose outcome is not known yet.
        self._pending: deque[Trial] | None = None

    # The mission's surface.

    @property
    def window_size(self) -> int:
        """Most attempts that are remembered."""
        return self.config.window_size

    @property
    def recent_attempts(self) -> Sequence[AttemptRecord]:
        """The window, oldest first: a read-only view, O(1) to get, O(1) for an item."""
        return RecentAttempts(self)

    @property
    def success_rate(self) -> float:
        """Share of successes among the attempts in the window, 0 to 1; 1.0 while it is empty."""
        now = self._clock()
        count = self.window.length_at(now)
        return (count - self.window.failures_at(now)) / count if count else 1.0

    async def should_retry(self, error: BaseException, *, attempt: int | None = None) -> bool:
        """Record one failed attempt; say whether another is worth its cost. Never suspends.

        Args:
            error: what the attempt raised. Only its type's name is kept, and its text if
                `record_error_messages` is set. An error that is no `Exception` (a cancellation,
                an interrupt) is not recorded and not retried.
            attempt: which attempt of its call it was, 1 or more, if `max_attempts` is to hold.

        A granted retry reserves a token of the budget; `record_success` gives it back.
        """
        if not isinstance(error, Exception):
            return False
        now = self._clock()
        self._housekeeping(now)
        trial = self._pending.popleft() if self._pending else Trial()
        out_of_attempts = attempt is not None and attempt >= self.config.max_attempts
        decision = self.failed(
            now,
            self._catalogue.code(error_name(error)),
            trial,
            Evidence(overload=isinstance(error, TimeoutError)),
            obstacle="max_attempts" if out_of_attempts else None,
            error=error,
        )
        if decision.reason is not None:
            return False
        if self._pending is None:
            self._pending = deque(maxlen=_PENDING)
        self._pending.append(trial)
        return True

    def record_success(self, latency: float = math.nan) -> None:
        """Record one attempt that succeeded; it earns its share of a retry.

        Args:
            latency: seconds that it took, if known. Slow successes tell congestion, in which
                timeouts are not retried.
        """
        now = self._clock()
        self._housekeeping(now)
        self.succeeded(now, latency, self._pending.popleft() if self._pending else None)

    def delay(self, retry: int = 1) -> float:
        """Seconds to wait before the `retry`-th retry of a call: full jitter over a growing span.

        The spans are 0.2, 0.6, 1.8 and 5 seconds with the defaults.
        """
        config = self.config
        return full_jitter(max(1, retry), config.backoff_base, config.backoff_cap, self._random)

    # The core that the middleware drives.

    def succeeded(self, now: float, latency: float, trial: Trial | None = None) -> None:
        """Record one attempt that succeeded at `now`, `latency` seconds after it was sent.

        `trial`: what is remembered of its call, if it was held or failed before.
        """
        self.book()
        self._append(now, OK)
        if now < self.health.calm_until and (trial is None or not trial.failures):
            self.health.passed(1)
            self.budget.deposit()
        else:
            self._judge_success(now, latency, trial)

    def woken(self, now: float, trial: Trial, remaining: float | None = None) -> Decision:
        """Decide again on a call that was held, after the wait that the decision asked for."""
        self.book()
        return super().woken(now, trial, remaining)

    @property
    def unbooked(self) -> int:
        """Successes that stand in the window and have earned nothing yet. Any thread."""
        unbooked = self.window.end - self._booked
        # Below 0 for a moment in `_append`, and where the origin is evicted.
        return unbooked if unbooked > 0 else 0

    @property
    def written(self) -> int:
        """Successes that were only written into the window, where it was open. Any thread."""
        return self._written + self.unbooked

    def book(self) -> None:
        """Make up for successes that were only written into the window."""
        unbooked = self.unbooked
        if unbooked:
            # In this order another thread may miss some for a moment, and counts none twice.
            self._booked += unbooked
            self._written += unbooked
            self.budget.deposit(unbooked)
            self.health.passed(unbooked)

    def _append(self, now: float, code: int) -> None:
        # Booked before it is there: another thread must not take it for one that was only written.
        self._booked = self.window.end + 1
        self.window.append(now, code)

    def hand_over(self) -> int:
        """The successes that were only written into the window, from now on counted elsewhere."""
        self.book()
        written, self._written = self._written, 0
        return written

    def tokens_at(self, now: float) -> float:
        """What the budget holds at `now`. Any thread."""
        return self.budget.balance(now, self.unbooked)

    def failed(
        self,
        now: float,
        code: int,
        trial: Trial,
        evidence: Evidence,
        *,
        obstacle: Reason | None = None,
        remaining: float | None = None,
        patient: bool = False,
        error: Exception | None = None,
    ) -> Decision:
        """Record one attempt that failed at `now`; decide on the next.

        Args:
            now: the clock's reading.
            code: the error's code in the catalogue.
            trial: what is remembered of its call.
            evidence: what the failure says beside its type.
            obstacle: why there can be no other attempt whatever the rules say, if so.
            remaining: seconds until the call's deadline.
            patient: whether the call can be held, and end with what it has got now if no retry
                comes of that.
            error: for its text, where texts are recorded. Not kept.

        After a decision to retry or to hold, tell what came of it: `succeeded`, `failed` or, if the
        call ends in another way, `abandoned`.
        """
        self.book()
        self._append(now, code)
        window = self.window
        if error is not None and self.config.record_error_messages:
            text = error_text(error, self.config.max_error_message_length)
            if self._messages is None:
                # Not before the first: an empty deque takes more than all the rest of an origin.
                self._messages = deque(maxlen=min(self.config.window_size, _MESSAGES))
            self._messages.append((window.end - 1, text))
        return self._judge_failure(
            now,
            code,
            trial,
            evidence,
            obstacle=obstacle,
            remaining=remaining,
            patient=patient and self.config.hold_cap > 0.0,
        )

    # Clean-up.

    def restrict(self, now: float) -> int:
        """Answer memory pressure: keep the newest attempts only, and no texts."""
        self._messages = None
        return self.window.restrict(self._pressure_size(), now)

    def relax(self) -> None:
        """The pressure is over: let the window grow again."""
        self.window.relax(self.config.window_size)

    def sweep(self, now: float) -> None:
        """Drop what has expired, and the arrays it stood in."""
        window = self.window
        window.settle(now)
        window.compact()
        while self._messages and self._messages[0][0] < window.start:
            self._messages.popleft()

    def _pressure_size(self) -> int:
        return min(self.config.window_size, self.config.pressure_window_size)

    def _housekeeping(self, now: float) -> None:
        """What a middleware's table of origins does for its strategies; alone we do it ourselves.

        Runs on every operation, and sweeps every `cleanup_frequency` of them or
        `cleanup_interval`, whichever comes first.
        """
        change = self._guard.sample(now)
        if change == "begun":
            self.restrict(now)
        elif change == "over":
            self.relax()
        self._operations += 1
        if self._operations >= self.config.cleanup_frequency or now >= self._sweep_at:
            self._operations = 0
            self._sweep_at = now + self.config.cleanup_interval.total_seconds()
            self.sweep(now)

    def window_now(self) -> range:
        """Numbers of the attempts in the window that have not expired."""
        return range(self.window.start_at(self._clock()), self.window.end)

    def record(self, number: int) -> AttemptRecord:
        """Attempt `number` of the window, counted from the first ever made."""
        stamp, code = self.window.at(number)
        try:
            moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._epoch + stamp)
        except (OverflowError, ValueError):
            moment = datetime.max.replace(tzinfo=UTC)
        name = None if code == OK else self._catalogue.name(code)
        texts = self._messages or ()
        text = next((text for at, text in texts if at == number), None)
        return AttemptRecord(moment, name, text)

    def __repr__(self) -> str:
        return (
            f"<AdaptiveStrategy attempts={len(self.window)}/{self.window_size} "
            f"budget={self.tokens_at(self._clock()):.1f}/{self.budget.capacity:g}>"
        )


def checked_callable(name: str, value: _F) -> _F:
    """The value itself, if it can be called; else a TypeError that names the argument."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {value!r} ({type(value).__name__})")
    return value
