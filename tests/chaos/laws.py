"""What holds after every call, whatever happened to it."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

import aiohttp

from aiohttp_adaptive_retry import OriginUnavailable
from aiohttp_adaptive_retry.events import RESULTS

from .bodies import BODIES
from .faults import RETRIED
from .world import Attempt, Call, Ending, World

__all__ = ("SENT_AGAIN", "obey", "obey_at_each_hop")

#: Methods that may be sent twice, whatever an attempt came to.
SENT_AGAIN = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})


#: A look for oneself takes no token. The first comes after a usual backoff, which may be next to
#: nothing, and the second after so many seconds of trouble. Each other one comes when the trouble
#: is three times as old.
_SECOND_LOOK = 0.4
_NEXT_LOOK = 3.0
#: What each retry that mends adds to what a success earns, and the most that one earns.
_STEP = 0.02
_MOST_EARNED = 0.5

#: How an attempt ends that the server may never have heard of.
_LEFT = (asyncio.CancelledError, TimeoutError)


def obey(world: World, calls: list[Call], endings: list[Ending]) -> None:
    """All laws. Call number n was made with the name `str(n)`, and has ended."""
    tries = [
        sum(attempt.call == str(number) for attempt in world.attempts)
        for number in range(len(calls))
    ]
    assert sum(tries) == len(world.attempts)
    _attempts_are_bounded(world, tries)
    _bodies_are_whole(world, calls)
    _deadlines_are_kept(world, calls, endings)
    _outcomes_are_counted(world, calls, endings, tries)
    _failures_are_counted(world)
    _waste_is_paid_for(world)
    _nothing_is_held(world)


def obey_at_each_hop(world: World, call: Call, ending: Ending) -> None:
    """What holds for a call that is redirected: each hop is counted as a call of its own."""
    hops = Counter(attempt.path for attempt in world.attempts)
    assert max(hops.values()) <= world.retry.config.max_attempts
    snapshot = world.retry.snapshot()
    assert snapshot.faults == 0
    assert snapshot.requests.total == len(hops)
    assert snapshot.attempts["original"] == len(hops)
    assert sum(snapshot.attempts.values()) == len(world.attempts) == world.server.hits
    _bodies_are_whole(world, [call])
    _deadlines_are_kept(world, [call], [ending])
    _failures_are_counted(world)
    _nothing_is_held(world)


def _attempts_are_bounded(world: World, tries: list[int]) -> None:
    """Not more than `max_attempts` for a call, and the server saw no attempt that we did not."""
    for count in tries:
        assert count <= world.retry.config.max_attempts
    sent = sum(count > 0 for count in tries)
    assert world.retry.snapshot().attempts == {
        "original": sent,
        "retry": len(world.attempts) - sent,
    }
    assert world.server.hits <= len(world.attempts)
    if not any(isinstance(attempt.came_to, _LEFT) for attempt in world.attempts):
        assert world.server.hits == len(world.attempts)


def _bodies_are_whole(world: World, calls: list[Call]) -> None:
    """What the server took for a complete body is what the caller sent, all of it."""
    for exchange in world.server.requests:
        if exchange.body is not None and exchange.body.complete:
            kind = BODIES[calls[int(exchange.headers["x-call"])].body]
            assert kind.arrived(exchange), (kind.sent[0][:20], exchange.body)


def _deadlines_are_kept(world: World, calls: list[Call], endings: list[Ending]) -> None:
    """By the clock that waits move on no attempt begins at a call's deadline or after it."""
    for attempt in world.attempts:
        number = int(attempt.call)
        assert attempt.at < endings[number].began + calls[number].total


def _ended(ending: Ending, tries: int) -> str:
    """The outcome by which a call is to be counted."""
    if isinstance(ending.error, OriginUnavailable):
        assert tries == 0
        return "refused"
    assert tries > 0
    if isinstance(ending.error, TimeoutError) and not isinstance(ending.error, aiohttp.ClientError):
        return "ignored"
    if ending.error is not None or ending.status in RETRIED:
        return "failed_after_retry" if tries > 1 else "failed_without_retry"
    return "retry_success" if tries > 1 else "first_success"


def _outcomes_are_counted(
    world: World, calls: list[Call], endings: list[Ending], tries: list[int]
) -> None:
    """Each call once, by what its caller got; each that failed with one reason, the right one."""
    snapshot = world.retry.snapshot()
    assert snapshot.faults == 0
    expected = Counter(map(_ended, endings, tries))
    counted = {name: getattr(snapshot.requests, name) for name in RESULTS}
    assert counted == {name: expected[name] for name in RESULTS}
    assert sum(counted.values()) == len(calls)
    reasons = Counter(snapshot.suppressed)
    unsafe = exhausted = fragile = 0
    for number, (call, ending, count) in enumerate(zip(calls, endings, tries, strict=True)):
        attempts = [attempt for attempt in world.attempts if attempt.call == str(number)]
        is_unsafe = call.method not in SENT_AGAIN and not call.key
        # Each attempt but the last one was proven to have done nothing.
        assert not is_unsafe or all(map(_did_nothing, attempts[:-1]))
        if not _ended(ending, count).startswith("failed"):
            continue
        if is_unsafe and not _did_nothing(attempts[-1]):
            unsafe += 1
        elif count == world.retry.config.max_attempts:
            exhausted += 1
        elif BODIES[call.body].fragile:
            fragile += 1
    # Only a call that was refused or has failed has a reason, and it has exactly one.
    assert reasons.total() == sum(
        expected[name] for name in ("failed_without_retry", "failed_after_retry", "refused")
    )
    assert reasons["not_idempotent"] == unsafe
    assert reasons["max_attempts"] == exhausted
    assert reasons["body_not_replayable"] <= fragile


def _did_nothing(attempt: Attempt) -> bool:
    """Whether nobody can have processed an attempt: it was never connected, or turned away."""
    came_to = attempt.came_to
    connecting = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
    return came_to == 429 or isinstance(came_to, connecting)


def _failures_are_counted(world: World) -> None:
    """By type, as a middleware behind ours saw them."""
    seen = Counter(attempt.failure for attempt in world.attempts if attempt.failure)
    assert dict(world.retry.snapshot().failures) == dict(seen)


def _waste_is_paid_for(world: World) -> None:
    """Retries that failed are no more than the budget's rule allows, and those that take no token.

    These are looks for oneself, and what is sent again since a used connection was lost.
    """
    config = world.retry.config
    firsts: set[str] = set()
    wasted = failures = unpaid = 0
    earned, deposit = 0.0, config.budget_deposit
    troubled_since: float | None = None
    for attempt in world.ended:
        retry = attempt.call in firsts
        firsts.add(attempt.call)
        if attempt.failure:
            failures += 1
            wasted += retry
            unpaid += attempt.reused
            if troubled_since is None:
                troubled_since = attempt.at
        elif isinstance(attempt.came_to, int):
            # After a time in which nothing succeeded there is a token at least.
            earned += deposit + (failures > 1)
            deposit = max(deposit, min(_MOST_EARNED, deposit + _STEP * retry))
            unpaid += _looks(troubled_since, attempt.until)
            failures, troubled_since = 0, None
    unpaid += _looks(troubled_since, world.clock.now)
    elapsed = world.clock.now - world.began
    paid = config.budget_initial + earned + config.budget_floor * elapsed
    assert wasted <= paid + unpaid + 1e-6


def _looks(since: float | None, now: float) -> int:
    """The most calls that look for themselves in a time in which nothing succeeds."""
    if since is None:
        return 0
    age = now - since
    return 1 if age < _SECOND_LOOK else 2 + int(math.log(age / _SECOND_LOOK, _NEXT_LOOK) + 1e-6)


def _nothing_is_held(world: World) -> None:
    """No call is in flight or held, and every token that was reserved is spent or back."""
    for origin in world.retry.snapshot().origins:
        assert (origin.in_flight, origin.held) == (0, 0)
        assert 0.0 <= origin.budget_available <= origin.budget_limit
