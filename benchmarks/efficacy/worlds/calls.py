"""The calls of a world: arrivals that don't wait, or callers that do."""

from __future__ import annotations

import math
from itertools import accumulate

from .draft import Draft
from .plan import Planned

_MOST = 5000


def _call(draft: Draft, time: float, client: int, patience: float, origins: int) -> Planned:
    rng = draft.rng
    site = 0
    if origins > 1 and rng.random() >= draft.share:
        site = rng.randrange(1, origins)
    share, times = draft.heavy
    return Planned(
        time,
        client,
        site,
        patience * rng.uniform(0.8, 1.25),
        rng.getrandbits(64),
        site == 0 and rng.random() < draft.hopeless,
        times if site == 0 and rng.random() < share else 1.0,
    )


def arrivals(draft: Draft, patience: float, origins: int) -> list[Planned]:
    """Draw a Poisson process, by thinning, perhaps pushed together into bursts."""
    rng = draft.rng
    edges = {0.0, *(edge for start, end, _ in draft.surges for edge in (start, end))}
    peak = max(draft.surge(edge) for edge in edges)
    rate = draft.rate / draft.share
    lone = draft.clients >= 0.9 * rate * draft.horizon
    spread = rng.choice((0.0, 0.5, 1.5))
    weights = list(accumulate(rng.lognormvariate(0.0, spread) for _ in range(draft.clients)))
    times: list[float] = []
    time = rng.expovariate(rate * peak)
    while time < draft.horizon and len(times) < _MOST:
        if not draft.surges or rng.random() * peak < draft.surge(time):
            times.append(time)
        time += rng.expovariate(rate * peak)
    every, within = draft.bursts
    if every:
        times = sorted(math.floor(t / every) * every + rng.random() * within for t in times)
    made: list[Planned] = []
    for time in times:
        if lone:
            client = len(made)
        elif draft.present:
            # Those who are there are neighbours by number, and the oldest leaves first.
            first = math.floor((draft.clients - draft.present + 1) * time / draft.horizon)
            client = first + rng.randrange(draft.present)
        else:
            client = rng.choices(range(draft.clients), cum_weights=weights)[0]
        made.append(_call(draft, time, client, patience, origins))
    return made


def callers(draft: Draft, patience: float, origins: int) -> list[Planned]:
    """Draw each caller's calls, one after the other, and the pauses between them.

    A surge of the load makes pauses shorter where it would be met in a world without trouble.
    """
    rng = draft.rng
    count = max(1, round(draft.rate / draft.share * draft.horizon / draft.callers))
    firsts: list[Planned] = []
    for caller in range(draft.callers):
        time = 0.0
        mine = count
        if draft.present:
            # Some come later, some leave earlier.
            time = rng.random() * draft.horizon * 0.5
            mine = max(1, round(count * rng.uniform(0.3, 1.0)))
        last: Planned | None = None
        for _ in range(mine):
            pause = rng.expovariate(1.0) * draft.think / draft.surge(time)
            begin = pause if last is not None else time + pause
            planned = _call(draft, begin, caller // draft.together, patience, origins)
            time += pause + draft.service + 2.0 * draft.latency
            if last is None:
                firsts.append(planned)
            else:
                last.next = planned
            last = planned
    firsts.sort(key=lambda planned: planned.time)
    return firsts


def length(firsts: list[Planned]) -> int:
    """Return how many calls all callers make."""
    total = 0
    for planned in firsts:
        found: Planned | None = planned
        while found is not None:
            total, found = total + 1, found.next
    return total
