"""The kinds of trouble. Each draws its numbers, changes the draft and says what it has done."""

from __future__ import annotations

import math
from collections.abc import Callable

from .draft import Draft, of, span
from .plan import DROPPED, RESET, TIMEOUT, Errors, Limit, Scaling

# A spike brings at most so many calls more.
_MOST_MORE = 1000.0
_STATUSES = ("500", "502", "503", "504")


def calm(draft: Draft) -> None:
    """No trouble but the load's own."""


def errors(draft: Draft) -> None:
    """Attempts fail by chance, whatever the load."""
    chance = draft.log(0.001, 0.5)
    kinds: tuple[str, ...] = draft.rng.choice(
        (("503",), ("503",), _STATUSES, (DROPPED, RESET), (DROPPED,), (TIMEOUT,), (TIMEOUT,))
    )
    start, end = draft.stretch()
    draft.errors.append((None, Errors(start, end, chance, kinds)))
    draft.note(f"errors {chance:.2%} {'/'.join(kinds)} {span(start, end)}")


def outage(draft: Draft) -> None:
    """Nobody answers, or a gateway says 503, for one stretch; perhaps with cold caches after it."""
    mode, server = draft.mode(), draft.where(0.15)
    start, end = draft.frame(draft.log(0.3, 300.0))
    if draft.chance(0.06):
        end = math.inf  # dead for good
    draft.down(server, start, end, mode)
    draft.note(f"outage {mode}{of(server)} from {start:.1f} s for {end - start:.1f} s")
    if end < draft.horizon and draft.chance(0.4):
        _slow_start(draft, server, end)


def _slow_start(draft: Draft, server: int | None, end: float) -> None:
    """Service is slow at first, and gets faster in steps."""
    low, length = draft.log(0.1, 0.7), min(draft.log(0.5, 60.0), 0.8 * (draft.horizon - end))
    for step in range(8):
        at = end + length * step / 8
        draft.slow(server, at, at + length / 8, low + (1.0 - low) * step / 8)
    draft.families.append("slow_start")
    draft.note(f"slow start from {low:.2f} within {length:.1f} s")


def _periodic(draft: Draft, on: float, off: float, name: str) -> None:
    mode, server = draft.mode(), draft.where(0.15)
    start, stop = draft.frame(draft.horizon)
    time, count = start, 0
    while time < stop and count < 200:
        end = time + on * draft.log(0.6, 1.6)
        draft.down(server, time, end, mode)
        time, count = end + off * draft.log(0.6, 1.6), count + 1
    draft.note(f"{name} {mode}{of(server)} {on:.2f} s every {on + off:.1f} s {span(start, time)}")


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
    factor, server = draft.log(0.1, 0.9), draft.where(0.3)
    draft.slow(server, start, end, factor)
    draft.note(f"brownout{of(server)} to {factor:.2f} {span(start, end)}")


def pauses(draft: Draft) -> None:
    """All stand still for a moment, once or again and again; requests queue meanwhile."""
    length = min(draft.log(0.1, 10.0), draft.horizon / 8)
    start, stop = draft.frame()
    every = length * draft.log(2.0, 30.0)
    time, count = start, 0
    while count == 0 or (time < stop and count < 100):
        draft.slow(None, time, time + length, 0.0)
        time, count = time + length + every, count + 1
    draft.note(f"{count} pauses of {length:.2f} s from {start:.1f} s")


def collections(draft: Draft) -> None:
    """Each server stands still by itself now and then, as for garbage collection."""
    length = draft.log(0.05, 2.0)
    every = max(length * draft.log(3.0, 100.0), draft.horizon / 100)
    for server in range(draft.servers):
        time = draft.rng.random() * every
        while time < draft.horizon:
            long = length * draft.log(0.5, 2.0)
            draft.slow(server, time, time + long, 0.0)
            time += long + every * draft.log(0.6, 1.6)
    draft.note(f"each server pauses {length:.2f} s every {every:.1f} s")


def spike(draft: Draft) -> None:
    """More load for a stretch."""
    start, end = draft.frame()
    factor = draft.log(1.2, 5.0)
    end = min(end, start + _MOST_MORE / (draft.rate * (factor - 1.0)))
    draft.surges.append((start, end, factor))
    draft.note(f"spike x{factor:.2f} {span(start, end)}")


def autoscaling(draft: Draft) -> None:
    """Workers follow the work, late, and the load rises."""
    spike(draft)
    goal = max(min(0.9, draft.log(0.3, 0.9)), draft.load)
    draft.scaling = Scaling(
        period=min(draft.log(2.0, 60.0), draft.horizon / 6),
        goal=goal,
        boot=min(draft.log(0.5, 60.0), draft.horizon / 4),
        most=draft.workers * draft.whole(2.0, 10.0),
    )
    made = draft.scaling
    draft.note(f"scaling every {made.period:.1f} s to {goal:.2f} busy, boot {made.boot:.1f} s")


def bad_server(draft: Draft) -> None:
    """One of several servers fails most of what it gets."""
    bad = draft.rng.randrange(draft.servers)
    start, end = draft.frame()
    how = draft.rng.choice(("errors", "errors", "hangs", "refused"))
    chance = 1.0
    if how == "refused":
        draft.down(bad, start, end, "refused")
    else:
        chance = draft.log(0.3, 1.0)
        kinds = (TIMEOUT,) if how == "hangs" else draft.rng.choice((_STATUSES, ("503",), ("502",)))
        draft.errors.append((bad, Errors(start, end, chance, kinds)))
    draft.note(f"one server of {draft.servers} bad ({how} {chance:.0%}) {span(start, end)}")


def hopeless(draft: Draft) -> None:
    """A share of requests always fails."""
    draft.hopeless = draft.log(0.002, 0.4)
    draft.note(f"hopeless {draft.hopeless:.2%}")


def heavy(draft: Draft) -> None:
    """A share of requests is many times the work, however often it is sent."""
    share, times = draft.log(0.003, 0.1), draft.log(5.0, 100.0)
    draft.heavy = share, times
    draft.note(f"heavy {share:.2%} x{times:.0f}")


def keep_alive(draft: Draft) -> None:
    """Pooled connections are lost unnoticed: many at once, or single ones while they are idle."""
    if draft.chance(0.4):
        draft.idle = draft.log(0.002, 0.3)
        draft.note(f"idle connections lost {draft.idle:.2%}")
        return
    # A pool has no more connections than the client had calls at a time.
    most = draft.together
    if draft.loop == "open":
        most = 1 + math.ceil(3.0 * draft.service * draft.rate / draft.clients)
    size, count = min(most, draft.whole(1.0, 50.0)), draft.whole(1.0, 30.0)
    start = 0.15 * draft.horizon
    draft.stale = sorted((draft.rng.uniform(start, draft.horizon), size) for _ in range(count))
    draft.note(f"{count} times pools of {size} connections lost")


def limit(draft: Draft) -> None:
    """A limit for all clients together, or for each."""
    shared = draft.chance(0.5)
    share = draft.log(0.3, 1.3)
    start, end = draft.stretch()
    made = Limit(
        shared=shared,
        kind=draft.rng.choice(("window", "bucket")),
        rate=share * draft.rate / (1.0 if shared else draft.clients),
        span=draft.log(0.5, max(1.0, min(60.0, draft.horizon / 4))),
        says=draft.rng.choice(("exact", "rounded", "rounded", "absent", "absurd")),
        absurd=draft.rng.choice((0.0, 60.0, 3600.0, 86400.0)),
        punish=draft.log(0.1, 10.0) if draft.chance(0.2) else 0.0,
        start=start,
        end=end,
    )
    draft.limit = made
    absurd = f" {made.absurd:g}" if made.says == "absurd" else ""
    punish = ""
    if made.punish:
        draft.families.append("punishing")
        punish = f", each refusal bans for {made.punish:.2f} s"
    draft.note(
        f"limit for {'all' if shared else 'each'} at {share:.2f} of the load, {made.kind}"
        f" {made.span:.1f} s, Retry-After {made.says}{absurd}{punish}, {span(start, end)}"
    )


def day_and_night(draft: Draft) -> None:
    """The load goes up and down."""
    days, swing = draft.rng.choice((1, 2, 4)), draft.rng.uniform(0.3, 0.9)
    step = draft.horizon / (12 * days)
    for index in range(12 * days):
        factor = 1.0 + swing * math.sin(2.0 * math.pi * (index + 0.5) / 12)
        draft.surges.append((index * step, (index + 1) * step, factor))
    draft.note(f"{days} days, load +-{swing:.0%}")


def churn(draft: Draft) -> None:
    """Clients join and leave; few are there at a time."""
    draft.present = max(1, math.ceil(draft.clients * draft.log(0.05, 0.5)))
    draft.note(f"{draft.present} clients at a time")


def bursts(draft: Draft) -> None:
    """Calls come in bursts, as from timers."""
    every = min(draft.log(0.5, 60.0), draft.horizon / 8)
    draft.bursts = every, every * draft.log(0.01, 0.3)
    draft.note(f"bursts every {every:.1f} s within {draft.bursts[1]:.2f} s")


TROUBLES: dict[str, tuple[float, Callable[[Draft], None]]] = {
    "calm": (0.5, calm),
    "errors": (2.0, errors),
    "outage": (2.5, outage),
    "blips": (1.0, blips),
    "flapping": (1.0, flapping),
    "brownout": (1.0, brownout),
    "pauses": (1.0, pauses),
    "collections": (0.7, collections),
    "spike": (1.0, spike),
    "autoscaling": (0.5, autoscaling),
    "bad_server": (1.0, bad_server),
    "hopeless": (0.8, hopeless),
    "heavy": (0.6, heavy),
    "keep_alive": (0.8, keep_alive),
    "limit": (2.0, limit),
}
"""Kinds of trouble by family, each with its weight."""

CUSTOMS: dict[str, tuple[float, Callable[[Draft], None]]] = {
    "day_and_night": (0.06, day_and_night),
    "churn": (0.06, churn),
    "bursts": (0.06, bursts),
}
"""What calls may be like in any world, each with its chance."""
