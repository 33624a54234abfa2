"""The kinds of trouble. Each draws its numbers, changes the draft and says what it has done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from .draft import Draft
from .plan import DROPPED, RESET, TIMEOUT, Errors, Limit, Outage

_STATUSES = ("500", "502", "503", "504")


def lengths(draft: Draft) -> float:
    """Draw the length of an outage, s. The world's horizon is drawn around the first one."""
    return draft.log(0.3, 300.0)


def errors(draft: Draft) -> None:
    """Attempts fail by chance, whatever the load."""
    chance = draft.log(0.001, 0.5)
    kinds: tuple[str, ...] = draft.rng.choice(
        (("503",), ("503",), _STATUSES, (DROPPED, RESET), (DROPPED,), (TIMEOUT,), (TIMEOUT,))
    )
    start, end = (0.0, math.inf) if draft.chance(0.5) else draft.frame()
    draft.errors.append((None, Errors(start, end, chance, kinds)))
    draft.note(f"errors {chance:.2%} {'/'.join(kinds)} {start:.1f}-{end:.1f}s")


def _ramp(draft: Draft, server: int | None, end: float) -> None:
    """Caches are cold after an outage: service is slow at first, and gets faster in steps."""
    low, length = draft.log(0.1, 0.7), draft.log(0.5, 60.0)
    length = min(length, (draft.horizon - end) * 0.8)
    for step in range(8):
        at = end + length * step / 8
        draft.slow(server, at, at + length / 8, low + (1.0 - low) * step / 8)
    draft.note(f"slow start {low:.2f} for {length:.1f}s")


def _mode(draft: Draft) -> Literal["refused", "silent", "503"]:
    return draft.rng.choice(("refused", "refused", "silent", "503"))


def outage(draft: Draft) -> None:
    """Nobody answers, or a gateway says 503, for one stretch."""
    mode, server = _mode(draft), draft.where(0.15)
    start, end = draft.frame(lengths(draft))
    draft.outages.append((server, Outage(start, end, mode)))
    where = "all" if server is None else "one server"
    draft.note(f"outage {mode} of {where} {start:.1f}-{end:.1f}s ({end - start:.1f}s)")
    if draft.chance(0.4):
        _ramp(draft, server, end)


def _periodic(draft: Draft, on: float, off: float, name: str) -> None:
    mode, server = _mode(draft), draft.where(0.15)
    start, stop = draft.frame(draft.horizon)
    time, count = start, 0
    while time < stop and count < 200:
        end = time + on * draft.log(0.6, 1.6)
        draft.outages.append((server, Outage(time, end, mode)))
        time, count = end + off * draft.log(0.6, 1.6), count + 1
    draft.note(f"{name} {mode} {on:.2f}s every {on + off:.1f}s {start:.1f}-{time:.1f}s")


def blips(draft: Draft) -> None:
    """Short outages now and then."""
    on = draft.log(0.05, 1.0)
    _periodic(draft, on, max(10.0 * on, draft.log(0.03, 0.3) * draft.horizon), "blips")


def flapping(draft: Draft) -> None:
    """Down and up in quick succession."""
    on = min(draft.log(0.3, 20.0), draft.horizon / 6)
    _periodic(draft, on, on * draft.log(0.3, 3.0), "flapping")


def brownout(draft: Draft) -> None:
    """All servers, or one, are slow for a stretch."""
    start, end = draft.frame()
    factor, server = draft.log(0.1, 0.9), draft.where()
    draft.slow(server, start, end, factor)
    where = "all" if server is None else "one server"
    draft.note(f"brownout of {where} to {factor:.2f} {start:.1f}-{end:.1f}s")


def pauses(draft: Draft) -> None:
    """All stand still for a moment, once or again and again; requests queue meanwhile."""
    length = min(draft.log(0.1, 10.0), draft.horizon / 8)
    start, stop = draft.frame()
    every = length * draft.log(2.0, 30.0)
    time, count = start, 0
    while count == 0 or (time < stop and count < 100):
        draft.slow(None, time, time + length, 0.0)
        time, count = time + length + every, count + 1
    draft.note(f"{count} pauses of {length:.2f}s from {start:.1f}s")


def spike(draft: Draft) -> None:
    """More load for a stretch."""
    start, end = draft.frame()
    factor = draft.log(1.2, 5.0)
    draft.surges.append((start, end, factor))
    draft.note(f"spike x{factor:.2f} {start:.1f}-{end:.1f}s")


def bad_server(draft: Draft) -> None:
    """One of several servers fails most of what it gets."""
    if draft.servers < 2:
        draft.servers = draft.whole(2.0, 10.0)
    bad = draft.rng.randrange(draft.servers)
    start, end = draft.frame()
    how = draft.rng.choice(("errors", "errors", "hangs", "refused"))
    if how == "refused":
        draft.outages.append((bad, Outage(start, end, "refused")))
        chance = 1.0
    else:
        chance = draft.log(0.3, 1.0)
        kinds = (TIMEOUT,) if how == "hangs" else draft.rng.choice((_STATUSES, ("503",), ("502",)))
        draft.errors.append((bad, Errors(start, end, chance, kinds)))
    draft.note(f"one server of {draft.servers} bad ({how} {chance:.2f}) {start:.1f}-{end:.1f}s")


def hopeless(draft: Draft) -> None:
    """A share of requests always fails."""
    draft.hopeless = draft.log(0.002, 0.4)
    draft.note(f"hopeless {draft.hopeless:.2%}")


def limit(draft: Draft) -> None:
    """A limit for all clients together, or for each."""
    shared = draft.chance(0.5)
    rate = draft.log(0.3, 1.3) * draft.rate / (1.0 if shared else draft.clients)
    start, end = (0.0, math.inf) if draft.chance(0.5) else draft.frame()
    made = Limit(
        shared=shared,
        kind=draft.rng.choice(("window", "bucket")),
        rate=rate,
        span=draft.log(0.5, 60.0),
        says=draft.rng.choice(("exact", "rounded", "rounded", "absent", "absurd")),
        absurd=draft.rng.choice((0.0, 60.0, 3600.0)),
        punish=draft.log(0.1, 5.0) if draft.chance(0.15) else 0.0,
        start=start,
        end=end,
    )
    draft.limit = made
    who = "all" if shared else "each"
    absurd = f"={made.absurd:g}" if made.says == "absurd" else ""
    punish = f" punish {made.punish:.2f}s" if made.punish else ""
    share = rate * (1.0 if shared else draft.clients) / draft.rate
    draft.note(
        f"limit for {who} {share:.2f} of load, {made.kind} {made.span:.1f}s,"
        f" Retry-After {made.says}{absurd}{punish} {start:.1f}-{end:.1f}s"
    )


def calm(draft: Draft) -> None:
    """No trouble but the load's own."""


TROUBLES: dict[str, tuple[float, Callable[[Draft], None]]] = {
    "errors": (2.0, errors),
    "outage": (2.5, outage),
    "blips": (1.0, blips),
    "flapping": (1.0, flapping),
    "brownout": (1.0, brownout),
    "pauses": (1.0, pauses),
    "spike": (1.0, spike),
    "bad_server": (1.0, bad_server),
    "hopeless": (0.7, hopeless),
    "limit": (2.0, limit),
    "calm": (0.5, calm),
}
"""Kinds of trouble by family, each with its weight."""
