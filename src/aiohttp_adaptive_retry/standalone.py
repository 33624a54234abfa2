"""Deciding without HTTP, by the same policy: for anything that can fail."""

from __future__ import annotations

import asyncio
import math
import random as _random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Self, Unpack
from weakref import WeakKeyDictionary

from ._call import Call, CallDriver, SafeClock
from ._checks import checked_callable, checked_sleep
from ._errors import OriginUnavailable, error_name, error_text
from ._origin.counters import OTHER_LABEL, Counters, ErrorCatalogue, Faults
from ._origin.memory import MemoryGuard
from ._origin.origin import Origin
from ._origin.recent import AttemptRecord, RecentAttempts
from ._origin.sweeper import Sweeper
from ._origin.window import Window
from ._policy.cost import full_jitter
from ._policy.protocol import Action, AttemptOutcome, GiveUp, Wait
from .config import AdaptiveConfig, ConfigOverrides, configured
from .policy import make_adaptive_policy

__all__ = ("AdaptiveStrategy", "StrategyCall")


class AdaptiveStrategy:
    """Decides for anything that can fail, from a bounded window.

    Args:
        config: what can be set; None for the defaults.
        clock: monotonic seconds.
        sleep: an awaitable pause of so many seconds.
        random: a number from 0 to 1, for jitter.
        **overrides: fields of `AdaptiveConfig`, on top of `config`.

    Raises:
        TypeError, ValueError: a field or an argument is wrong; the text names it and its value.

    An attempt costs O(1) time and 9 bytes whatever the window's size. One loop at a time may use a
    strategy; any number of calls may be under way.

    Example, outside HTTP (examples/standalone.py has it whole)::

        strategy = AdaptiveStrategy(window_size=100)
        async with strategy.call() as call:
            while True:
                try:
                    result = await work()
                except OSError as error:
                    if not await call.should_retry(error):
                        raise
                else:
                    call.succeeded()
                    break
    """

    def __init__(
        self,
        config: AdaptiveConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = _random.random,
        **overrides: Unpack[ConfigOverrides],
    ) -> None:
        own = ("clock", "sleep", "random")
        self.config = config = configured("AdaptiveStrategy", config, overrides, own)
        faults = Faults()
        self._now = now = SafeClock(checked_callable("clock", clock), faults)
        self._sleep = checked_sleep(sleep)
        self._random = checked_callable("random", random)
        self._catalogue = ErrorCatalogue(config.max_error_type_length)
        counters = Counters(0, faults).of_label(OTHER_LABEL)
        policy = make_adaptive_policy(config, clock=now, random=random)
        window = Window(config.window_size, config.window_duration.total_seconds())
        self._origin = Origin("", "", "", None, config, policy, window, counters, (counters,))
        guard = MemoryGuard(config)
        sweeper = Sweeper(config, guard, self._origin)
        self._driver = CallDriver(config, self._catalogue, guard, sweeper, faults)
        self._driver.is_off = config.mode == "off"
        # Turns the clock's readings into times of day, for people.
        self._epoch = time.time() - now()
        # The call of each task that `should_retry` has granted a retry.
        self._open = WeakKeyDictionary[asyncio.Task[object], Call]()

    def call(self) -> StrategyCall:
        """One call with all its attempts, to be entered with `async with`.

        Entering raises `OriginUnavailable` if `admission=True` and the call would not be served.
        """
        return StrategyCall(self)

    @property
    def window_size(self) -> int:
        """Most attempts that are remembered."""
        return self.config.window_size

    @property
    def recent_attempts(self) -> Sequence[AttemptRecord]:
        """The window, oldest first: a read-only view, O(1) to get, O(1) for an item."""
        return RecentAttempts(self._origin, self._catalogue, self._now, self._epoch)

    @property
    def success_rate(self) -> float:
        """Share of successes among the attempts in the window, 0 to 1; 1.0 while it is empty."""
        return self._origin.window.success_rate_at(self._now())

    async def should_retry(self, error: BaseException, *, attempt: int | None = None) -> bool:
        """Record one failed attempt; say whether another is worth its cost. Never suspends.

        For code that waits by itself (`delay`). The attempts that one asyncio task makes are taken
        for one call, until `record_success` or an answer of False ends it. Where calls take turns
        in one task, use `call`.

        Args:
            error: what the attempt raised. Only its type's name is kept, and its text if
                `record_error_messages` is set. An error that is no `Exception` (a cancellation,
                an interrupt) is not recorded and not retried.
            attempt: which attempt of its call it was, 1 or more, if `max_attempts` is to hold.

        A granted retry reserves a token of the budget; `record_success` gives it back.
        """
        if not isinstance(error, Exception):
            return False
        now = self._now()
        call = self._take_open_call(now)
        call.attempts = 1 if attempt is None else max(1, attempt)
        if isinstance(self._failed(now, call, error, can_wait=False), GiveUp):
            return False
        # The caller waits, or forgets the call; nobody would say when.
        self._driver.leave(call)
        # The end of a call counts its attempts; this one has not ended.
        self._driver.count(now, self._origin)
        if (task := _current_task()) is not None:
            self._open[task] = call
        return True

    def record_success(self, latency: float = math.nan) -> None:
        """Record one attempt that succeeded; it earns its share of a retry.

        Args:
            latency: seconds that it took, if known. Slow successes tell congestion, in which
                time-outs are not retried.
        """
        now = self._now()
        self._driver.outcome(now, self._take_open_call(now), AttemptOutcome(True, latency=latency))

    def delay(self, retry: int = 1) -> float:
        """Seconds to wait before the `retry`-th retry of a call: full jitter over a growing span.

        The spans are 0.2, 0.6, 1.8 and 5 seconds with the defaults.
        """
        config = self.config
        return full_jitter(max(1, retry), config.backoff_base, config.backoff_cap, self._random())

    def _take_open_call(self, now: float) -> Call:
        """The call of this task that was granted a retry, else a new one."""
        task = _current_task()
        call = None if task is None else self._open.pop(task, None)
        return self._new_call(now, attempts=1) if call is None else call

    def _new_call(self, now: float, attempts: int = 0) -> Call:
        call = Call(self._origin, now, now, attempts, observed=self.config.mode == "observe")
        call.limit(None)
        return call

    def _failed(self, now: float, call: Call, error: Exception, **more: bool) -> Action:
        """Tell the driver of a failed attempt; `more` are fields of its `AttemptOutcome`."""
        text = None
        if self.config.record_error_messages:
            text = error_text(error, self.config.max_error_message_length)
        timed_out = isinstance(error, TimeoutError)
        outcome = AttemptOutcome(
            False,
            error_name(error),
            now - call.sent_at,
            no_response=timed_out or isinstance(error, ConnectionError),
            overload=timed_out,
            **more,
        )
        return self._driver.outcome(now, call, outcome, text=text)

    def __repr__(self) -> str:
        origin, now = self._origin, self._now()
        tokens = origin.policy.tokens_at(now, origin.untold)
        return (
            f"<AdaptiveStrategy attempts={len(origin.window)}/{self.window_size} "
            f"budget={tokens:.1f}/{origin.policy.capacity:g}>"
        )


class StrategyCall:
    """One call with all its attempts, made by `AdaptiveStrategy.call`.

    Leaving it by an exception that `should_retry` was not told of is a failure without retry.
    Leaving it without a word is a cancellation, which says nothing about what was called.
    """

    __slots__ = ("_call", "_driver", "_now", "_strategy", "_told")

    def __init__(self, strategy: AdaptiveStrategy) -> None:
        self._strategy, self._driver, self._now = strategy, strategy._driver, strategy._now
        self._call = strategy._new_call(strategy._now())
        # The exception that was told last, as long as the call is open.
        self._told: BaseException | None = None

    async def __aenter__(self) -> Self:
        self._call.origin.begun += 1
        if self._strategy.config.mode != "on":
            # Nothing is held or refused.
            self._driver.observe(self._now(), self._call)
            self._driver.sent(self._now(), self._call)
            return self
        action = await self._waited(self._driver.arrive(self._now(), self._call))
        if isinstance(action, GiveUp):
            wait = self._call.origin.retry_in(self._now())
            refusal = OriginUnavailable(action.reason, retry_after=wait)
            self._call.report_on(refusal, self._now())
            raise refusal
        self._driver.sent(self._now(), self._call)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        call = self._call
        if not call.ended and isinstance(error, Exception) and error is not self._told:
            self._strategy._failed(self._now(), call, error, replayable=False)
            call.report_on(error, self._now())
        self._told = None
        self._driver.cancel(self._now(), call)

    async def should_retry(self, error: BaseException) -> bool:
        """Record one failed attempt, wait as long as the policy says; True: try again now.

        Args:
            error: what the attempt raised, kept as by `AdaptiveStrategy.should_retry`. An error
                that is no `Exception` ends the call. One that is not retried gets a note that says
                why, and a `report`.
        """
        call = self._call
        if call.ended:
            return False
        if not isinstance(error, Exception):
            self._driver.cancel(self._now(), call)
            return False
        self._told = error
        action = await self._waited(self._strategy._failed(self._now(), call, error))
        if isinstance(action, GiveUp):
            call.report_on(error, self._now())
            return False
        self._driver.sent(self._now(), call)
        return True

    def succeeded(self, latency: float | None = None) -> None:
        """Record that the newest attempt succeeded.

        Args:
            latency: seconds that it took; None for the time since it was sent.
        """
        now, call = self._now(), self._call
        if not call.ended:
            seconds = now - call.sent_at if latency is None else latency
            self._driver.outcome(now, call, AttemptOutcome(True, latency=seconds))

    async def _waited(self, action: Action) -> Action:
        """Wait as long as there is to wait; return what is to be done then."""
        while isinstance(action, Wait):
            try:
                await self._strategy._sleep(action.seconds)
            except BaseException:
                self._driver.cancel(self._now(), self._call)
                raise
            action = self._driver.wake(self._now(), self._call)
        return action


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs
        return None
