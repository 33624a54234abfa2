"""When a call is retried, held or given up: the rules, without windows, records and clocks.

strategy.py says them in five sentences; `Deciding._judge_failure` is where they are applied, in the
order in which they stand there. What is known of the origin is `Health`'s affair, what retries may
cost is `RetryBudget`'s; what is known of one call is its `Trial`.

*Holding* is waiting for news: the call asks again and again (`woken`) until something says that
the origin is back. It costs the origin nothing and needs no token; the attempt that ends it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .backoff import full_jitter, jittered_retry_after
from .health import SUSPICIOUS
from .trial import Decision, Evidence, Reason, Trial

if TYPE_CHECKING:
    from .budget import RetryBudget
    from .config import AdaptiveConfig
    from .health import Health
    from .memory import MemoryGuard

__all__ = ("MOST_HELD", "Deciding")

# Holding pays while the end is likely near. Trouble that has lasted for t seconds will typically
# last for t more; at 0.025 for a second's wait against 0.9 for a success that is so up to 36 s.
_YOUNG: Final = 40.0
# A call that failed finds out by itself after so many seconds without news ...
_PROBE_AFTER: Final = 4.5
# ... and later the later, by this share of the trouble's age: few probes tell of a long outage
# (sparse_clients, quiet_outage).
_PROBE_GROWTH: Final = 0.4
# With admission one first attempt probes at this share of the outage's age, within these bounds:
# a blip is noticed at once, the end of an outage within 2 s (flapping).
_FIRST_PROBE_SHARE: Final = 0.5
_FIRST_PROBE_LEAST: Final = 0.2
_FIRST_PROBE_MOST: Final = 1.0
# Where nothing was sent for so many seconds, one that is held for congestion goes all the same:
# only what is sent can tell that it is over (a burst that ends in a brownout).
_FLOW_SILENCE: Final = 1.0
# A call that met overload waits so many seconds for congestion to pass before it gives up. What
# chance made look like congestion is over by then (errors_20% where all are 503 or timeouts); for
# what is no chance little is waited (shedding_503).
_RELIEF: Final = 1.5
# It looks so often meanwhile, seconds.
_RELIEF_POLL: Final = 0.2
# A held call asks again after this share of the trouble's age, within these bounds: its wait is
# little longer than the trouble (blips_200ms), and a crowd of held calls costs little work.
_POLL_SHARE: Final = 0.05
_POLL_LEAST: Final = 0.05
_POLL_MOST: Final = 0.5
# However many are held, they ask no more often than this altogether, times a second: a tenth of a
# processor. From 200 on they ask less often each.
_MOST_POLLS: Final = 4000.0
# A failure with no news for so many seconds before it: no other call will tell either.
_ALONE_AFTER: Final = 5.0
#: Calls held at a time for one origin; each holds its request, and perhaps an answer of 16 kB.
MOST_HELD: Final = 1000


_SEND: Final = Decision(0.0, None)


class Deciding:
    """The rules for one origin. One loop; nothing suspends, everything is O(1)."""

    __slots__ = ("_guard", "_random", "budget", "config", "health")

    config: AdaptiveConfig
    health: Health
    budget: RetryBudget
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
            # Also sent if the clock was set back, and the last one seems to be yet to come.
            if 0.0 <= now - health.last_sent < min(_FIRST_PROBE_MOST, spacing):
                return self._hold(now, trial, remaining, age, "origin_down")
        elif self._limit(now) > 0.0:
            return self._await_limit(now, trial, remaining)
        elif health.flow < 1.0 and self._random() >= health.flow:
            return self._hold(now, trial, remaining, self._congested_for(now), "congested")
        health.last_sent = now
        return _SEND

    def woken(self, now: float, trial: Trial, remaining: float | None = None) -> Decision:
        """Decide again on a call that was held, after the wait that the decision asked for."""
        decision = self._woken(now, trial, remaining)
        if not decision.hold:
            self._unhold(trial)
            if decision.reason is not None:
                self._refund(trial)
        return decision

    def abandoned(self, trial: Trial) -> None:
        """The call ended while it waited or while an attempt was under way: nothing was learnt.

        Returns the token that is reserved for it. Does nothing if called again.
        """
        self._unhold(trial)
        self._refund(trial)

    def _judge_success(self, now: float, latency: float, trial: Trial | None) -> None:
        budget = self.budget
        if trial is None or not trial.failures:
            fresh = trial is None or not trial.held
            over = self.health.succeeded(now, latency, fresh=fresh)
            budget.deposit()
        else:
            health = self.health
            over = health.succeeded(now, latency, fresh=False)
            health.retried(trial.code, True, trial.failed_at)
            if trial.reserved:
                self._refund(trial)
                budget.reward()
        if over:
            # Those who are held need tokens, and the silence may have used them up.
            budget.reward()

    def _judge_failure(
        self,
        now: float,
        code: int,
        trial: Trial,
        evidence: Evidence,
        *,
        obstacle: Reason | None,
        remaining: float | None,
        patient: bool,
    ) -> Decision:
        health, longest = self.health, self.config.retry_after_cap
        absent, overload, limited, retry_after = evidence
        first = not trial.failures
        if first:
            trial.alone = now - health.last_known > _ALONE_AFTER
        else:
            health.retried(trial.code, False, trial.failed_at)
        trial.failures += 1
        # The retry that has failed has cost its token.
        trial.reserved = False
        health.failed(now, first=first, limited=limited, overload=overload)
        trial.code, trial.failed_at = code, now
        trial.limited = limited and retry_after is not None
        trial.flooded = False
        if limited and retry_after is not None:
            health.limited_until = max(health.limited_until, now + min(retry_after, longest))
        if obstacle is not None:
            return Decision(0.0, obstacle)
        if self._guard.container_pressure:
            # A call that waits holds its request and body; near the limit that may be what kills.
            return Decision(0.0, "memory_pressure")
        if retry_after is not None:
            if remaining is not None and retry_after >= remaining:
                return Decision(0.0, "deadline")
            if retry_after > longest:
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
            if patient:
                trial.flooded = True
                return self._await_relief(now, trial, remaining)
            return Decision(0.0, "congested")
        # One refusal alone may be a blip. A timeout has cost so much time that no blip is left.
        silence = absent and (overload or health.streak > 1.0)
        if not limited and (silence or health.down_since is not None):
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
        if not self._reserve(now, trial):
            return Decision(0.0, "budget_exhausted")
        self.health.last_sent = now + delay
        return Decision(delay, None)

    def _reserve(self, now: float, trial: Trial) -> bool:
        if not trial.reserved:
            trial.reserved = self.budget.try_withdraw(now)
        return trial.reserved

    def _refund(self, trial: Trial) -> None:
        if trial.reserved:
            trial.reserved = False
            self.budget.refund()

    def _woken(self, now: float, trial: Trial, remaining: float | None) -> Decision:
        health = self.health
        if trial.failures:
            if trial.flooded:
                return self._await_relief(now, trial, remaining)
            if not trial.limited:
                return self._hold_for_news(now, trial, remaining)
            if self._limit(now) > 0.0:
                return self._await_limit(now, trial, remaining)
            return self._go(now, trial)
        if health.down_since is not None or self._limit(now) > 0.0:
            return self.admit(now, trial, remaining)
        unheard = not 0.0 <= now - health.last_sent < _FLOW_SILENCE
        if unheard or (health.flow >= 1.0 and health.release(now, self._urgency(trial, remaining))):
            health.last_sent = now
            return _SEND
        return self._hold(now, trial, remaining, self._congested_for(now), "congested")

    def _await_relief(self, now: float, trial: Trial, remaining: float | None) -> Decision:
        """A call that met overload waits a moment for it to pass."""
        health = self.health
        if not health.congested and health.release(now, self._urgency(trial, remaining)):
            return self._go(now, trial, remaining)
        if health.flooded or now - trial.failed_at >= _RELIEF or trial.held >= self.config.hold_cap:
            return Decision(0.0, "congested")
        return self._ask_again(trial, remaining, _RELIEF_POLL, "congested")

    def _hold_for_news(self, now: float, trial: Trial, remaining: float | None) -> Decision:
        """A call that failed waits for its origin to come back, or finds out."""
        health = self.health
        affordable = self.budget.balance(now) >= 1.0
        if not health.streak and health.last_success >= trial.failed_at:
            # It is back.
            if affordable and health.release(now, self._urgency(trial, remaining)):
                return self._go(now, trial)
            return self._hold(now, trial, remaining, now - trial.failed_at, "origin_down")
        age = now - (health.failing_since if health.streak else trial.failed_at)
        if age > _YOUNG:
            return Decision(0.0, "origin_down")
        wait = self._until_probe(now, trial)
        if wait <= 0.0 and affordable:
            return self._go(now, trial)
        if trial.alone and not (
            affordable
            and wait < self.config.hold_cap - trial.held
            and (remaining is None or wait < remaining)
        ):
            # Nobody will bring news.
            return Decision(0.0, "origin_down")
        return self._hold(now, trial, remaining, age, "origin_down")

    def _until_probe(self, now: float, trial: Trial) -> float:
        """Seconds until a call that failed may find out by itself whether the origin is back."""
        health = self.health
        since = health.failing_since if health.streak else trial.failed_at
        news = max(health.last_sent, health.last_known, trial.failed_at)
        return news + max(_PROBE_AFTER, _PROBE_GROWTH * (news - since)) - now

    def _congested_for(self, now: float) -> float:
        return now - self.health.congested_since if self.health.congested else 0.0

    def _hold(
        self, now: float, trial: Trial, remaining: float | None, age: float, reason: Reason
    ) -> Decision:
        """Ask again a little later, unless the trouble is too old or the call held for too long."""
        if age > _YOUNG or trial.held >= self.config.hold_cap:
            return Decision(0.0, reason)
        crowd = self.health.held / _MOST_POLLS
        pause = min(_POLL_MOST, max(_POLL_LEAST, _POLL_SHARE * age, crowd))
        return self._ask_again(trial, remaining, pause, reason)

    def _ask_again(
        self, trial: Trial, remaining: float | None, pause: float, reason: Reason
    ) -> Decision:
        # Half to one and a half: those who were held together do not ask together.
        pause *= 0.5 + self._random()
        if remaining is not None and pause >= remaining:
            return Decision(0.0, "deadline")
        return self._held(trial, pause, reason)

    def _await_limit(self, now: float, trial: Trial, remaining: float | None) -> Decision:
        """Wait for the moment that the origin named; the least urgent calls spread furthest."""
        longest = self.config.retry_after_cap
        lateness = (1.0 - self._urgency(trial, remaining)) * self._random()
        delay = jittered_retry_after(
            self._limit(now), trial.failures or 1, lambda: lateness, longest
        )
        if remaining is not None and delay >= remaining:
            return Decision(0.0, "deadline")
        if trial.held and trial.held + delay > longest:
            return Decision(0.0, "limited")
        # Before the wait: who can't afford the retry need not wait for it.
        if trial.failures and not self._reserve(now, trial):
            return Decision(0.0, "budget_exhausted")
        return self._held(trial, delay, "limited")

    def _limit(self, now: float) -> float:
        """Seconds for which the origin wants to be left alone; 0 if it does not say so."""
        left = self.health.limited_until - now
        if not 0.0 < left <= self.config.retry_after_cap:
            # Over; or so far away that the clock must have been set back.
            return 0.0
        return left

    def _held(self, trial: Trial, pause: float, reason: Reason) -> Decision:
        health = self.health
        if not trial.holding:
            if health.held >= MOST_HELD:
                self._refund(trial)
                return Decision(0.0, reason)
            trial.holding = True
            health.held += 1
        trial.held += pause
        return Decision(pause, None, True)

    def _unhold(self, trial: Trial) -> None:
        if trial.holding:
            trial.holding = False
            self.health.held -= 1

    def _urgency(self, trial: Trial, remaining: float | None) -> float:
        """How much of the time for which a call can be held is over, 0 to 1."""
        left = max(0.0, self.config.hold_cap - trial.held)
        if remaining is not None and remaining < left:
            left = max(0.0, remaining)
        return trial.held / (trial.held + left) if trial.held + left > 0.0 else 1.0
