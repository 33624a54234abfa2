"""When a call is retried, held or given up: the rules, without windows, records and clocks.

In five sentences. An attempt that failed with an answer is retried after a short, growing, jittered
wait, unless its type hardly ever mends or it speaks of overload while the origin is congested. One
that failed without an answer, or any while the origin is down, is held until another call's success
shows that the origin is back or, with hardly any other calls, until a probe at growing spacing
finds out. A crowd of held calls is let go at the pace of successes of usual latency, the most
urgent first, and nothing is held for more than 12 seconds or once the trouble is older than 40.
Every retry needs a token that successes earn, that comes back if the retry mends, and that is lost
if it does not. With `admission=True` first attempts too wait out what a limiter asks for, are held
while the origin is down but for one probe at a time, and are thinned while it is congested, to
where latency stays bearable.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from aiohttp_adaptive_retry.backoff import full_jitter, jittered_retry_after

from .health import SUSPICIOUS

if TYPE_CHECKING:
    from aiohttp_adaptive_retry.config import AdaptiveConfig
    from aiohttp_adaptive_retry.memory import MemoryGuard

    from .budget import RewardingBudget
    from .health import Health

__all__ = ("Deciding", "Decision", "Reason", "Trial")

#: Why a retry was not made.
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

# Holding pays while the end is likely near. Trouble that has lasted for t seconds will typically
# last for t more; at 0.025 for a second's wait against 0.9 for a success that is so up to 36 s.
_YOUNG: Final = 40.0
# No call is held for longer, seconds: most callers' patience.
_LONGEST_HOLD: Final = 12.0
# A call that failed finds out by itself after so many seconds without news ...
_PROBE_AFTER: Final = 1.5
# ... and then whenever the trouble has become so many times older since.
_PROBE_GROWTH: Final = 2.0
# With admission one first attempt probes at this share of the outage's age, within these bounds:
# a blip is noticed at once, the end of an outage within 2 s.
_FIRST_PROBE_SHARE: Final = 0.5
_FIRST_PROBE_LEAST: Final = 0.2
_FIRST_PROBE_MOST: Final = 1.5
# A held call asks again after this share of the trouble's age, within these bounds: its wait is
# little longer than the trouble, and a crowd of held calls costs little work.
_POLL_SHARE: Final = 0.05
_POLL_LEAST: Final = 0.05
_POLL_MOST: Final = 0.5
# A failure with no news for so many seconds before it: no other call will tell either.
_ALONE_AFTER: Final = 5.0


class Decision(NamedTuple):
    """What to do next about a call.

    `reason` set: no further attempt, for that reason. `hold`: wait `delay` seconds and ask again
    (`woken`); no token is reserved. Otherwise: wait `delay` seconds and send; for a retry a token
    is reserved.
    """

    delay: float
    reason: Reason | None
    hold: bool = False


_SEND: Final = Decision(0.0, None)


class Trial:
    """What the strategy remembers of one call, from its first failure or `admit` to its end."""

    __slots__ = ("alone", "code", "failed_at", "failures", "held_since", "limited", "reserved")

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
        #: Whether nothing had been heard of the origin for long when the call failed first.
        self.alone = False
        #: Since when the call has been held, or None.
        self.held_since: float | None = None


class Deciding:
    """The rules for one origin."""

    __slots__ = ("_guard", "_random", "budget", "config", "health")

    config: AdaptiveConfig
    health: Health
    budget: RewardingBudget
    _guard: MemoryGuard
    _random: Callable[[], float]

    def admit(self, now: float, trial: Trial, remaining: float | None = None) -> Decision:
        """Decide on the first attempt of a call; only asked with `admission=True`.

        Args:
            now: the clock's reading.
            trial: a new one, to be passed on for the rest of the call.
            remaining: seconds until the caller's deadline, None without one.
        """
        health = self.health
        if health.down_since is not None:
            age = now - health.failing_since
            spacing = max(_FIRST_PROBE_LEAST, _FIRST_PROBE_SHARE * age)
            if now - health.last_sent < min(_FIRST_PROBE_MOST, spacing):
                return self._hold(now, trial, remaining, age, "origin_down")
        elif health.limited_until > now:
            return self._await_limit(now, trial, remaining)
        elif health.flow < 1.0 and self._random() >= health.flow:
            return self._hold(now, trial, remaining, self._congested_for(now), "congested")
        health.last_sent = now
        return _SEND

    def woken(self, now: float, trial: Trial, remaining: float | None = None) -> Decision:
        """Decide again on a call that was held, after the wait that `hold` asked for."""
        if trial.failures:
            if not trial.limited:
                return self._hold_for_news(now, trial, remaining)
            if self.health.limited_until > now:
                return self._await_limit(now, trial, remaining)
            return self._go(now, trial)
        health = self.health
        if health.down_since is not None or health.limited_until > now:
            return self.admit(now, trial, remaining)
        if health.flow >= 1.0 and health.release(now, _urgency(now, trial, remaining)):
            health.last_sent = now
            return _SEND
        return self._hold(now, trial, remaining, self._congested_for(now), "congested")

    def cancelled(self, trial: Trial) -> None:
        """The call ended while it waited or while an attempt was under way: refund its token."""
        if trial.reserved:
            trial.reserved = False
            self.budget.refund()

    def _judge_success(self, now: float, latency: float | None, trial: Trial | None) -> None:
        budget = self.budget
        if trial is None or not trial.failures:
            fresh = trial is None or trial.held_since is None
            over = self.health.succeeded(now, latency, fresh=fresh)
            if budget.tokens < budget.capacity:
                budget.deposit()
        else:
            health = self.health
            over = health.succeeded(now, latency, fresh=False)
            health.retried(trial.code, True, trial.failed_at)
            if trial.reserved:
                trial.reserved = False
                budget.refund()
                budget.reward()
        if over:
            # Those who were held need tokens, and the silence may have used them up.
            budget.reward()

    def _judge_failure(
        self,
        now: float,
        code: int,
        trial: Trial,
        *,
        obstacle: Reason | None,
        retry_after: float | None,
        limited: bool,
        overload: bool,
        absent: bool,
        remaining: float | None,
        patient: bool,
    ) -> Decision:
        health, longest = self.health, self.config.retry_after_cap
        first = not trial.failures
        if first:
            trial.alone = now - health.last_known > _ALONE_AFTER
        else:
            health.retried(trial.code, False, trial.failed_at)
        trial.failures += 1
        # The retry that has failed has cost its token.
        trial.reserved = False
        health.failed(now, first=first, limited=limited, overload=overload)
        trial.code, trial.failed_at, trial.held_since = code, now, None
        trial.limited = limited and retry_after is not None
        if limited and retry_after is not None:
            health.limited_until = max(health.limited_until, now + min(retry_after, longest))
        if obstacle is not None:
            return Decision(0.0, obstacle)
        if self._guard.container_pressure:
            return Decision(0.0, "memory_pressure")
        if retry_after is not None and retry_after > longest:
            return Decision(0.0, "retry_after")
        if not health.promising(code, self._random()):
            return Decision(0.0, "limited" if limited else "unpromising")
        if trial.limited and patient:
            return self._await_limit(now, trial, remaining)
        if (
            overload
            and health.congested
            # A silence that came out of nothing is an outage, whatever the latency was before.
            and (health.streak < SUSPICIOUS or not health.silent)
        ):
            return Decision(0.0, "congested")
        if not limited and (absent or health.down_since is not None):
            if patient:
                return self._hold_for_news(now, trial, remaining)
            if health.down_since is not None and self._until_probe(now, trial) > 0.0:
                return Decision(0.0, "origin_down")
        return self._go(now, trial, remaining, self._pace(trial, retry_after))

    def _pace(self, trial: Trial, retry_after: float | None) -> float:
        config = self.config
        if retry_after is None:
            return full_jitter(
                trial.failures, config.backoff_base, config.backoff_cap, self._random
            )
        return jittered_retry_after(
            retry_after, trial.failures, self._random, longest=config.retry_after_cap
        )

    def _go(
        self, now: float, trial: Trial, remaining: float | None = None, delay: float = 0.0
    ) -> Decision:
        """Reserve a token and retry."""
        if remaining is not None and delay >= remaining:
            return Decision(0.0, "deadline")
        if not self.budget.try_withdraw(now):
            return Decision(0.0, "budget_exhausted")
        trial.reserved = True
        self.health.last_sent = now + delay
        return Decision(delay, None)

    def _hold_for_news(self, now: float, trial: Trial, remaining: float | None) -> Decision:
        """A call that failed waits for its origin to come back, or finds out."""
        health = self.health
        affordable = self.budget.balance(now) >= 1.0
        if not health.streak and health.last_success > trial.failed_at:
            # It is back.
            if affordable and health.release(now, _urgency(now, trial, remaining)):
                return self._go(now, trial)
            return self._hold(now, trial, remaining, now - trial.failed_at, "origin_down")
        age = now - (health.failing_since if health.streak else trial.failed_at)
        if age > _YOUNG:
            return Decision(0.0, "origin_down")
        wait = self._until_probe(now, trial)
        if wait <= 0.0 and affordable:
            return self._go(now, trial)
        if trial.alone and not (
            affordable and wait < _LONGEST_HOLD and (remaining is None or wait < remaining)
        ):
            # Nobody will bring news.
            return Decision(0.0, "origin_down")
        return self._hold(now, trial, remaining, age, "origin_down")

    def _until_probe(self, now: float, trial: Trial) -> float:
        """Seconds until a call that failed may find out by itself whether the origin is back."""
        health = self.health
        since = health.failing_since if health.streak else trial.failed_at
        sent = max(health.last_sent, trial.failed_at)
        return sent + max(_PROBE_AFTER, _PROBE_GROWTH * (sent - since)) - now

    def _congested_for(self, now: float) -> float:
        return now - self.health.congested_since if self.health.congested else 0.0

    def _hold(
        self, now: float, trial: Trial, remaining: float | None, age: float, reason: Reason
    ) -> Decision:
        """Ask again a little later, unless the trouble is too old or the call held for too long."""
        if trial.held_since is None:
            trial.held_since = now
        if age > _YOUNG or now - trial.held_since > _LONGEST_HOLD:
            return Decision(0.0, reason)
        # Half to one and a half: those who were held together do not ask together.
        pause = min(_POLL_MOST, max(_POLL_LEAST, _POLL_SHARE * age)) * (0.5 + self._random())
        if remaining is not None and pause >= remaining:
            return Decision(0.0, "deadline")
        return Decision(pause, None, True)

    def _await_limit(self, now: float, trial: Trial, remaining: float | None) -> Decision:
        """Wait for the moment that the origin named; the least urgent calls spread furthest."""
        if trial.held_since is None:
            trial.held_since = now
        if trial.failures and self.budget.balance(now) < 1.0:
            return Decision(0.0, "budget_exhausted")
        longest = self.config.retry_after_cap
        lateness = (1.0 - _urgency(now, trial, remaining)) * self._random()
        delay = jittered_retry_after(
            self.health.limited_until - now, trial.failures or 1, lambda: lateness, longest
        )
        if remaining is not None and delay >= remaining:
            return Decision(0.0, "deadline")
        if now - trial.held_since + delay > longest:
            return Decision(0.0, "limited")
        return Decision(delay, None, True)


def _urgency(now: float, trial: Trial, remaining: float | None) -> float:
    """How much of the time that a held call has is over, 0 to 1."""
    held = 0.0 if trial.held_since is None else max(0.0, now - trial.held_since)
    left = max(0.0, _LONGEST_HOLD - held)
    if remaining is not None and remaining < left:
        left = max(0.0, remaining)
    return held / (held + left) if held + left > 0.0 else 1.0
