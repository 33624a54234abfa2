"""The constants of the adaptive policy, each with its reason.

`make sensitivity` shows what halving and doubling each of them changes, in worlds drawn at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Numbers that no user has to set. Times are in seconds; shares lie between 0 and 1."""

    # The flow of retries (`RetryFlow`).
    #: What a mended retry adds to the tokens that a success earns.
    share_step: float = 0.02
    #: What a sign of overload leaves of them.
    share_cut: float = 0.7
    #: Their bounds: one retry for 50 successes, and one for two.
    share_least: float = 0.02
    share_most: float = 0.5
    #: Tokens that a time-out's retry takes: it may cost the origin as much work as the first one.
    timeout_price: float = 2.0
    #: Tokens that an outage leaves, so that what comes back meets no burst.
    outage_tokens: float = 4.0

    # Time that a call has.
    #: What a call without a deadline is taken to have; also one that has more than `told_most`, as
    #: aiohttp's default of 300 seconds is nobody's choice.
    untold: float = 4.0
    told_most: float = 60.0
    #: The longest hold of such a call.
    untold_hold: float = 0.5
    #: The share of its time after which a call looks no more: the rest is for the answer.
    look_share: float = 2 / 3
    #: Trouble is too old for a hold after so many times the hold.
    hold_young: float = 4.0

    # Looking.
    #: The shortest silence after which a failed call looks for itself.
    look_least: float = 0.4
    #: The same as a multiple of the trouble's age. At 2, each look comes at three times the age of
    #: the one before, so that seconds of outage cost three looks, and minutes cost five.
    look_growth: float = 2.0
    #: The share of its time that a call waits for its look where callers wait for their answers.
    serial_share: float = 0.12
    #: How many standard deviations too few calls tell that callers wait.
    serial_surprise: float = 2.0

    # Asking again while held.
    #: The pause is this share of the trouble's age, within the two bounds.
    poll_share: float = 0.1
    poll_least: float = 0.05
    poll_most: float = 0.5
    #: All held calls together ask no more often a second.
    polls: float = 500.0

    # Letting go.
    #: Held calls that a success lets go, and that the success of one that was let go lets go.
    release: float = 1.0
    release_mended: float = 1.5
    #: The most that can be saved up: a small burst.
    release_most: float = 4.0

    # Down (`Outage`).
    #: The probability below which a streak of failures is no bad luck.
    surprise: float = 1e-4
    #: The shortest and the longest streak that tells an outage.
    streak_least: float = 3.0
    streak_most: float = 14.0
    #: What a failed retry adds to a streak: retries of one call are hardly evidence.
    streak_retry: float = 0.34
    #: The weight of a first attempt in the share that fails, and the least share that is believed.
    failing_weight: float = 0.02
    failing_least: float = 0.02

    # Congested (`Latency`).
    #: The weight of one latency in the short-run mean, in the long-run mean, and in the latter
    #: while the origin is congested: trouble is not to be taken for usual.
    fast: float = 1 / 16
    slow: float = 1 / 256
    slow_congested: float = 1 / 2048
    #: A latency counts at most so many long-run means.
    clip: float = 4.0
    #: Congestion begins and ends where the short-run mean is so many long-run means, and begins
    #: never below an excess of so many seconds.
    slowed: float = 1.7
    relieved: float = 1.3
    excess: float = 0.02
    #: Successes from which on latencies say anything.
    known: int = 16
    #: A success is slow, and brakes, from so many long-run means on.
    slow_success: float = 2.0
    #: A time-out is a lost request, and not a slow one, from so many short-run means on.
    lost: float = 5.0

    # Mending (`Mending`).
    #: An error that was never retried: so many mended of so many retries.
    prior_mended: float = 0.6
    prior_retries: float = 0.8
    #: What each retry leaves of those before it: about 20 count.
    mending_memory: float = 0.95
    #: The share of retries that must mend for one to be worth its cost, and after a 429, where
    #: below that share a retry only takes another call's place.
    worth: float = 0.15
    worth_limited: float = 0.6
    #: The share of other retries that is sent all the same, to notice a change; more at first.
    explored: float = 0.03
    explored_early: float = 2.0


TUNING: Final = Tuning()
