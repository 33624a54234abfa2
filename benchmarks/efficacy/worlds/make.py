"""A world by its number."""

from __future__ import annotations

import math
import random

from .calls import arrivals, callers, length
from .draft import Draft
from .plan import REFUSED, TIMEOUT, LoopKind, Outage, RandomWorld, SitePlan, Speed
from .troubles import CUSTOMS, TROUBLES, bursts

_TWO_KINDS = 1.0 / 3.0
_LONGEST_SERVICE = 0.4
_SEVERAL_ORIGINS = 0.08


def make_random_world(number: int, loop: LoopKind) -> RandomWorld:
    """Return the world of that number. Equal arguments, equal worlds."""
    draft = Draft(random.Random(f"{loop}/{number}"), loop)
    rng = draft.rng
    names = list(TROUBLES)
    weights = [weight for weight, _ in TROUBLES.values()]
    kinds = rng.choices(names, weights)
    if draft.chance(_TWO_KINDS):
        more = rng.choices(names, weights)[0]
        kinds += [more] if more not in kinds else []
    draft.warm = draft.chance(0.7)
    patience, attempt_timeout = draft.log(1.0, 60.0), draft.log(0.3, 10.0)
    draft.latency, draft.service = draft.log(0.0005, 0.05), draft.log(0.01, _LONGEST_SERVICE)
    if "bad_server" in kinds or draft.chance(0.5):
        draft.servers = max(2, draft.whole(2.0, 10.0))
    # Long outages need long runs, and so fewer calls a second.
    if {"outage", "flapping"} & set(kinds):
        draft.horizon = min(1500.0, max(6.0, draft.log(0.3, 300.0) / draft.log(0.05, 0.5)))
    else:
        draft.horizon = draft.log(10.0, 600.0)
    origins = draft.whole(2.0, 5.0) if draft.chance(_SEVERAL_ORIGINS) else 1
    draft.share = rng.uniform(0.3, 0.8) if origins > 1 else 1.0
    if loop == "open":
        _size_open(draft)
    else:
        _size_closed(draft)
    # Mostly, hardly any healthy attempt takes as long as its time-out.
    least = 4.0 if draft.chance(0.85) else draft.log(1.2, 4.0)
    attempt_timeout = max(attempt_timeout, min(10.0, least * _sojourn(draft)))
    draft.families += kinds
    for family in kinds:
        TROUBLES[family][1](draft)
    for family, (chance, apply) in CUSTOMS.items():
        if draft.chance(chance) and (loop == "open" or apply is not bursts):
            draft.families.append(family)
            apply(draft)
    sites = [_site(draft)]
    if origins > 1:
        draft.families.append("origins")
        draft.note(f"{origins} origins, {draft.share:.0%} of calls to the first")
        sites += [
            _other_site(draft, (1.0 - draft.share) / (origins - 1)) for _ in range(1, origins)
        ]
    first = (arrivals if loop == "open" else callers)(draft, patience, origins)
    calls = length(first)
    return RandomWorld(
        number=number,
        loop=loop,
        families=tuple(draft.families),
        description=_describe(draft, number, calls, sites[0], attempt_timeout, patience),
        sites=sites,
        attempt_timeout=attempt_timeout,
        first=first,
        calls=calls,
    )


def _size_open(draft: Draft) -> None:
    """Draw rate, load and clients, and workers to fit."""
    calls = max(draft.log(400.0, 2500.0), 0.3 * draft.horizon)
    draft.horizon = max(draft.horizon, calls / 500.0)
    draft.rate = draft.share * calls / draft.horizon
    draft.load = draft.log(0.15, 0.95)
    draft.workers, draft.servers, draft.service = _fit(
        draft.rate, draft.load, draft.servers, draft.service
    )
    draft.load = draft.rate * draft.service / (draft.servers * draft.workers)
    kind = draft.rng.random()
    if kind < 0.06:
        draft.clients = math.ceil(calls)  # lone cold calls
    elif kind < 0.12:
        draft.clients = draft.whole(300.0, 1000.0)
    else:
        draft.clients = draft.whole(1.0, 300.0)
    draft.clients = min(draft.clients, math.ceil(calls))


def _fit(rate: float, load: float, servers: int, service: float) -> tuple[int, int, float]:
    """Choose workers per server, and a service time near the drawn one that gives the load.

    With few calls a second even one worker per server may have less to do.
    """
    workers = max(1, round(rate * service / load / servers))
    exact = load * servers * workers / rate
    if exact > _LONGEST_SERVICE and servers > 2:
        servers = max(2, math.floor(servers * _LONGEST_SERVICE / exact))
        exact = load * servers * workers / rate
    return workers, servers, min(exact, _LONGEST_SERVICE)


def _size_closed(draft: Draft) -> None:
    """Draw callers, callers per client and thinking, and workers to fit."""
    draft.callers, draft.together = draft.whole(1.0, 64.0), draft.whole(1.0, 16.0)
    draft.think = draft.log(0.01, 10.0)
    spent = draft.service + 2.0 * draft.latency
    most = draft.log(400.0, 2500.0)
    # Long runs: callers think longer, or they are fewer.
    turn = min(max(draft.think + spent, draft.callers * draft.horizon / most), 10.0 + spent)
    draft.callers = max(1, min(draft.callers, math.floor(most * turn / draft.horizon)))
    draft.think = turn - spent
    calls = max(300.0, draft.callers * draft.horizon / turn)
    draft.horizon = calls * turn / draft.callers
    draft.rate = draft.share * draft.callers / turn
    draft.clients = math.ceil(draft.callers / draft.together)
    if draft.chance(0.8):
        # Plenty of capacity is left.
        draft.workers = math.ceil(draft.callers * draft.log(1.0, 4.0) / draft.servers)
    else:
        load = draft.log(0.15, 0.95)
        draft.workers = math.ceil(draft.rate * draft.service / load / draft.servers)
    draft.load = draft.rate * draft.service / (draft.servers * draft.workers)


def _sojourn(draft: Draft) -> float:
    """Return about how long an attempt takes on average without trouble, s.

    The wait in the queue is Sakasegawa's approximation (1977) for one server with its workers.
    """
    load = min(draft.load, 0.98)
    queued: float = load ** (math.sqrt(2.0 * (draft.workers + 1)) - 1.0) / (
        draft.workers * (1.0 - load)
    )
    return draft.service * (1.0 + queued) + 2.0 * draft.latency


def _queue(draft: Draft, workers: int, service: float) -> int:
    """Draw the places of a server's queue: none, or so many seconds of work."""
    return 0 if draft.chance(0.12) else math.ceil(draft.log(0.05, 30.0) * workers / service)


def _site(draft: Draft) -> SitePlan:
    rng = draft.rng
    indices = range(draft.servers)
    return SitePlan(
        servers=draft.servers,
        workers=draft.workers,
        queue=_queue(draft, draft.workers, draft.service),
        service=draft.service,
        sigma=draft.log(0.3, 1.5) if draft.chance(0.5) else 0.0,
        latency=draft.latency,
        forgets=draft.chance(0.3),
        sticky=draft.servers > 1 and draft.chance(0.15),
        full=rng.choice(("503", "503", "503", "429", REFUSED, TIMEOUT)),
        speeds=[_speed(draft.speeds.get(index, [])) for index in indices],
        outages=[_merged([o for w, o in draft.outages if w in (None, index)]) for index in indices],
        errors=[[e for w, e in draft.errors if w in (None, index)] for index in indices],
        limit=draft.limit,
        scaling=draft.scaling,
        hopeless=rng.choice(("500", "500", "503", "502", TIMEOUT)),
        stale=draft.stale,
        idle=draft.idle,
    )


def _other_site(draft: Draft, share: float) -> SitePlan:
    """Draw a further origin, without trouble of its own."""
    rate = draft.rate / draft.share * share
    workers, servers, service = _fit(
        rate, draft.log(0.15, 0.95), draft.whole(1.0, 4.0), draft.log(0.01, _LONGEST_SERVICE)
    )
    return SitePlan(
        servers=servers,
        workers=workers,
        queue=_queue(draft, workers, service),
        service=service,
        sigma=0.0,
        latency=draft.latency,
        forgets=False,
        speeds=[None] * servers,
        outages=[[] for _ in range(servers)],
        errors=[[] for _ in range(servers)],
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
            merged.append(Outage(start, outage.end, outage.mode, outage.says))
    return merged


def _describe(
    draft: Draft, number: int, calls: int, site: SitePlan, attempt_timeout: float, patience: float
) -> str:
    """Return one line with all numbers."""
    shape = f"{draft.clients} clients"
    if draft.loop == "closed":
        shape = f"{draft.callers} callers in {shape}, think {draft.think:.2f} s"
    traits = [name for name in ("forgets", "sticky") if getattr(site, name)]
    traits += [f"full {site.full}"] if site.full != "503" else []
    traits += [f"hopeless {site.hopeless}"] if draft.hopeless else []
    spread = f" sigma {site.sigma:.1f}" if site.sigma else ""
    return (
        f"{draft.loop} {number}: {shape}, {draft.rate:.2f}/s, load {draft.load:.2f},"
        f" {calls} calls in {draft.horizon:.0f} s; {site.servers}x{site.workers} workers,"
        f" service {site.service * 1e3:.0f} ms{spread}, queue {site.queue}"
        f"{''.join(f', {trait}' for trait in traits)}, latency {site.latency * 1e3:.1f} ms;"
        f" time-out {attempt_timeout:.2f} s, patience {patience:.1f} s,"
        f" {'warm' if draft.warm else 'cold'}; {'; '.join(draft.notes) or 'calm'}"
    )
