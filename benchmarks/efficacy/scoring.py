"""What a run is worth, and how far that is from the best.

Per request, averaged: ``value = success - 0.1 * attempts - 0.25 * waiting / 10 s``. Waiting is
defined in ``engine``.

**Regret** = (V_clairvoyant - V) / (V_clairvoyant - min(V_none, V_fixed3)): 0 is a clairvoyant
client, which sends each call once when it comes, as every client does, and then retries with full
knowledge; 1 is the worse of never retrying and always retrying twice, and a policy can exceed it.
Admission goes beyond retrying, and so can fall below 0; averages over conditions count that as 0,
so that what it gains in one condition hides nothing in another. The same ratio against the client
that also chooses with full knowledge when to send first attempts is reported beside it.

Values are pooled over the seeds before the ratio is taken (the mean of ratios would be ruled by the
seed in which least was at stake). All policies meet the same worlds with the same luck, so even
small differences are real; still, where less than ``LEAST_STAKE`` lies between best and worst
nobody should be praised or blamed, so the denominator is at least that. With 0.1 % errors some
0.0009 are at stake.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .engine import Run

ATTEMPT_COST = 0.1
"""Value of one attempt."""

WAIT_COST = 0.025
"""Value of one second of waiting."""

LEAST_STAKE = 0.0005
"""Smallest denominator of a regret."""

_RECOVERED = 0.95
_BUCKET = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """Means per request of one run.

    ``fault_attempts``: attempts sent in the fault's windows per request begun in them, nan
    without a fault. ``wasted``: failed retries per request. ``waiting``: s. ``recovery``: s from
    the fault's end until service is back (see ``recovery_time``), nan without a fault.
    """

    requests: int
    success: float
    attempts: float
    fault_attempts: float
    wasted: float
    waiting: float
    recovery: float
    value: float


def score(run: Run) -> Score:
    """Return the score of a run."""
    world = run.world
    count = max(1, len(run.records))
    success = sum(record.ok for record in run.records) / count
    attempts = len(run.attempt_times) / count
    waiting = sum(record.waiting for record in run.records) / count
    inside = sum(world.in_fault(record.started) for record in run.records)
    sent = sum(world.in_fault(time) for time in run.attempt_times)
    return Score(
        requests=len(run.records),
        success=success,
        attempts=attempts,
        fault_attempts=sent / inside if inside else math.nan,
        wasted=run.failed_retries / count,
        waiting=waiting,
        recovery=recovery_time(run),
        value=success - ATTEMPT_COST * attempts - WAIT_COST * waiting,
    )


def recovery_time(run: Run) -> float:
    """Return the time from the last fault's end until calls succeed as before, s.

    Calls are put into buckets of half a second by their start (wider ones where there are fewer
    than 20 calls in that time). Service is back at the first bucket after the fault in which at
    least 95 % of the calls that are not hopeless by nature succeed as they did before the fault,
    and which is followed by one like it. If that never happens, the time until the arrivals' end
    is returned: read it as "at least".
    """
    world = run.world
    if not world.faults:
        return math.nan
    begin, end = world.faults[0][0], world.faults[-1][1]
    before = [record.ok for record in run.records if record.started < begin]
    after = [record for record in run.records if record.started >= end]
    if not after:
        return math.nan
    usual = sum(before) / len(before) if len(before) >= 50 else 1.0
    width = max(_BUCKET, 20.0 / max(world.rate.at(end), 1e-9))
    buckets: dict[int, list[bool]] = {}
    for record in after:
        buckets.setdefault(int((record.started - end) / width), []).append(record.ok)
    last = int((world.horizon - end) / width)
    good = [_good(buckets.get(index), usual) for index in range(last + 1)]
    for index, fine in enumerate(good):
        if fine and (index == last or good[index + 1]):
            return index * width
    return world.horizon - end


def _good(results: Sequence[bool] | None, usual: float) -> bool:
    return results is None or sum(results) >= _RECOVERED * usual * len(results)


def regret(value: float, best: float, none: float, fixed3: float) -> float:
    """Return the regret of a pooled value, given those of the bound and of the two worst ends.

    >>> regret(0.8, best=0.9, none=0.7, fixed3=0.5)
    0.25
    """
    return round((best - value) / max(LEAST_STAKE, best - min(none, fixed3)), 9)
