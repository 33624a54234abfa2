"""A world by its number."""

from __future__ import annotations

import math
import random

from .draft import Draft
from .plan import Loop, Outage, Planned, RandomWorld, SitePlan, Speed
from .troubles import TROUBLES

_TWO_KINDS = 1.0 / 3.0


def make_random_world(number: int, loop: Loop) -> RandomWorld:
    """Return the world of that number. Equal arguments, equal worlds."""
    draft = Draft(random.Random(f"{loop}/{number}"), loop)
    rng = draft.rng
    names = list(TROUBLES)
    weights = [weight for weight, _ in TROUBLES.values()]
    families = rng.choices(names, weights)
    if draft.chance(_TWO_KINDS):
        more = rng.choices(names, weights)[0]
        families += [more] if more not in families else []
    draft.warm = draft.chance(0.7)
    patience = draft.log(1.0, 60.0)
    attempt_timeout = draft.log(0.3, 10.0)
    draft.servers = draft.whole(2.0, 10.0) if draft.chance(0.5) else 1
    latency = draft.log(0.0005, 0.05)
    # Long outages need long runs, and so fewer calls a second.
    if {"outage", "flapping"} & set(families):
        horizon = draft.log(0.3, 300.0) / draft.log(0.05, 0.5)
    else:
        horizon = draft.log(10.0, 600.0)
    draft.horizon = min(1500.0, max(6.0, horizon))
    draft.service = draft.log(0.01, 0.4)
    if loop == "open":
        calls = draft.log(400.0, 2500.0)
        _size_open(draft, calls)
    else:
        callers, shared, think = _size_closed(draft, latency)
    for family in families:
        TROUBLES[family][1](draft)
    attempt_timeout = max(attempt_timeout, 4.0 * draft.service + 2.0 * latency)
    plan = _site(draft, latency)
    if loop == "open":
        first = _arrivals(draft, patience)
        total = len(first)
        shape = f"{draft.clients} clients {draft.rate:.2f}/s load {draft.load:.2f}"
    else:
        first, total = _callers(draft, callers, shared, think, patience)
        shape = f"{callers} callers in {draft.clients} clients, think {think:.2f}s"
    description = (
        f"{loop} {number}: {shape}, {total} calls {draft.horizon:.0f}s,"
        f" {draft.servers}x{draft.workers} workers service {plan.service * 1e3:.0f}ms"
        f"{' lognormal' if plan.sigma else ''} queue {plan.queue}"
        f"{' forgets' if plan.forgets else ''} latency {latency * 1e3:.1f}ms,"
        f" time-out {attempt_timeout:.2f}s patience {patience:.1f}s"
        f" {'warm' if draft.warm else 'cold'}; {'; '.join(draft.notes) or 'calm'}"
    )
    return RandomWorld(
        number, loop, tuple(families), description, [plan], attempt_timeout, first, total
    )


def _size_open(draft: Draft, calls: float) -> None:
    """Draw rate, load and clients, and workers to fit."""
    calls = max(calls, 0.3 * draft.horizon)
    draft.horizon = max(draft.horizon, calls / 500.0)
    draft.rate = calls / draft.horizon
    draft.load = draft.log(0.15, 0.95)
    _fit(draft)
    kind = draft.rng.random()
    if kind < 0.06:
        draft.clients = math.ceil(calls)
    elif kind < 0.12:
        draft.clients = draft.whole(300.0, 1000.0)
    else:
        draft.clients = draft.whole(1.0, 300.0)
    draft.clients = min(draft.clients, math.ceil(calls))


def _fit(draft: Draft) -> None:
    """Choose workers per server, and a service time as near to the drawn one as the load allows."""
    workers = draft.rate * draft.service / draft.load / draft.servers
    draft.workers = max(1, round(workers))
    service = draft.load * draft.servers * draft.workers / draft.rate
    if service > 0.4:
        # Few calls: several servers can't be busy.
        draft.servers = 1 if draft.servers * 0.4 > service else draft.servers
        service = min(draft.load * draft.servers * draft.workers / draft.rate, 0.4)
    draft.service = service
    draft.load = draft.rate * service / (draft.servers * draft.workers)


def _size_closed(draft: Draft, latency: float) -> tuple[int, int, float]:
    """Draw callers, callers per client and thinking, and workers to fit."""
    callers, shared = draft.whole(1.0, 64.0), draft.whole(1.0, 16.0)
    think = draft.log(0.01, 10.0)
    turn = think + draft.service + 2.0 * latency
    calls = min(2000.0, max(200.0, callers * draft.horizon / turn))
    draft.horizon = calls * turn / callers
    draft.rate = callers / turn
    draft.clients = math.ceil(callers / shared)
    if draft.chance(0.8):
        # Plenty of capacity is left.
        draft.workers = math.ceil(callers * draft.log(1.0, 4.0) / draft.servers)
        draft.load = draft.rate * draft.service / (draft.servers * draft.workers)
    else:
        draft.load = draft.log(0.15, 0.95)
        draft.workers = math.ceil(draft.rate * draft.service / draft.load / draft.servers)
    return callers, shared, think


def _site(draft: Draft, latency: float) -> SitePlan:
    rng = draft.rng
    capacity = draft.workers / draft.service
    queue = 0 if draft.chance(0.12) else math.ceil(draft.log(0.05, 30.0) * capacity)
    indices = range(draft.servers)
    return SitePlan(
        servers=draft.servers,
        workers=draft.workers,
        queue=queue,
        service=draft.service,
        sigma=draft.log(0.3, 1.5) if draft.chance(0.5) else 0.0,
        latency=latency,
        forgets=draft.chance(0.3),
        speeds=[_speed(draft.speeds.get(index, [])) for index in indices],
        outages=[_merged([o for w, o in draft.outages if w in (None, index)]) for index in indices],
        errors=[[e for w, e in draft.errors if w in (None, index)] for index in indices],
        limit=draft.limit,
        scaling=draft.scaling,
        hopeless=rng.choice(("500", "500", "503", "502", "ServerTimeoutError")),
        stale=sorted(draft.stale),
    )


def _speed(stretches: list[tuple[float, float, float]]) -> Speed | None:
    """Multiply the factors of stretches that overlap."""
    if not stretches:
        return None
    edges = sorted({edge for start, end, _ in stretches for edge in (start, end)})
    return Speed(
        (edge, math.prod(factor for start, end, factor in stretches if start <= edge < end))
        for edge in edges
    )


def _merged(outages: list[Outage]) -> list[Outage]:
    """Put outages in order; of two that overlap, the later one begins when the earlier ends."""
    merged: list[Outage] = []
    for outage in sorted(outages, key=lambda one: one.start):
        start = max(outage.start, merged[-1].end) if merged else outage.start
        if outage.end > start:
            merged.append(Outage(start, outage.end, outage.mode))
    return merged


def _factor(draft: Draft, time: float) -> float:
    return math.prod(factor for start, end, factor in draft.surges if start <= time < end)


def _arrivals(draft: Draft, patience: float) -> list[Planned]:
    """Draw a Poisson process, by thinning."""
    rng = draft.rng
    edges = {0.0} | {start for start, _, _ in draft.surges} | {end for _, end, _ in draft.surges}
    peak = max(_factor(draft, edge) for edge in edges)
    lone = draft.clients >= 0.9 * draft.rate * draft.horizon
    spread = draft.rng.choice((0.0, 0.5, 1.5))
    cumulative, total = [], 0.0
    for _ in range(draft.clients):
        total += rng.lognormvariate(0.0, spread)
        cumulative.append(total)
    clients = range(draft.clients)
    time, made = 0.0, []
    while True:
        time += rng.expovariate(draft.rate * peak)
        if time >= draft.horizon or len(made) >= 3000:
            return made
        if peak > 1.0 and rng.random() * peak >= _factor(draft, time):
            continue
        client = len(made) if lone else rng.choices(clients, cum_weights=cumulative)[0]
        hopeless = rng.random() < draft.hopeless
        limit = patience * rng.uniform(0.8, 1.25)
        made.append(Planned(time, client, 0, limit, rng.getrandbits(64), hopeless))


def _callers(
    draft: Draft, callers: int, shared: int, think: float, patience: float
) -> tuple[list[Planned], int]:
    """Draw each caller's calls, one after the other, and the pauses between them."""
    rng = draft.rng
    count = max(1, round(draft.rate * draft.horizon / callers))
    first = []
    for caller in range(callers):
        last: Planned | None = None
        for _ in range(count):
            pause = rng.expovariate(1.0 / think)
            hopeless = rng.random() < draft.hopeless
            limit = patience * rng.uniform(0.8, 1.25)
            key = rng.getrandbits(64)
            planned = Planned(pause, caller // shared, 0, limit, key, hopeless)
            if last is None:
                first.append(planned)
            else:
                last.next = planned
            last = planned
    first.sort(key=lambda planned: planned.time)
    return first, count * callers
