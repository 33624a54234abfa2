"""One caller or a few on real sockets: short forms of `benchmarks.wire.alone`, judged on counts."""

from __future__ import annotations

import pytest

from benchmarks.wire import alone
from benchmarks.wire.alone import LOOP, NONE, OURS

pytestmark = [pytest.mark.wire, pytest.mark.timeout(60)]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("seconds", [0.3, 1.0])
async def test_a_lone_caller_gets_over_a_restart(seconds: float, warm: bool) -> None:
    """With three seconds in hand, whether it ever called before or not; without us it fails."""
    assert (await alone.restarts(OURS, seconds, warm, 12)).succeeded >= 11
    assert (await alone.restarts(NONE, seconds, warm, 2)).succeeded == 0


async def test_a_lone_callers_lost_request_is_sent_again() -> None:
    """As the plain loop does, and with as many requests."""
    ours = await alone.hangs(OURS, 0.1, 1, 60)
    plain = await alone.hangs(LOOP, 0.1, 1, 60)
    assert plain.attempts > plain.calls
    assert ours.succeeded >= plain.succeeded - 1
    assert ours.attempts <= plain.attempts + 1
    assert (await alone.hangs(NONE, 0.1, 1, 60)).succeeded < ours.succeeded


async def test_callers_do_not_pile_up_before_a_dead_origin() -> None:
    """Fifty calls a second, each with two seconds in hand: at most 30 at a time, hardly a retry."""
    row = await alone.dead_at_rate(OURS, 50.0, 3.0)
    assert row.calls == 150
    assert row.most_in_flight <= 30
    assert row.calls <= row.attempts <= 1.05 * row.calls


async def test_a_dead_origin_costs_one_look_a_call() -> None:
    """One call after the other: after the first five at most two attempts each."""
    row = await alone.dead(OURS, 12)
    assert row.calls == 12
    assert row.attempts <= 5 * 5 + 7 * 2


async def test_a_dropped_pool_is_mended() -> None:
    """All fifty calls succeed, and the server answers each of them once."""
    row = await alone.dropped(OURS, 50)
    assert row.succeeded == 50
    assert row.attempts == 50


@pytest.mark.parametrize("path", [None, "missing.sock"])
async def test_what_cannot_mend_is_not_tried_again(path: str | None) -> None:
    """A call to an unknown name or a missing socket file has one attempt."""
    row = await alone.cannot_mend(OURS, "http://no-such-host.invalid/", path, calls=3)
    assert row.attempts == row.calls == 3


def test_the_table_has_every_row() -> None:
    """A row of each policy in each trouble, and the heads."""
    rows = [alone.Row("a", NONE, 2, 1, 0.5, 3), alone.Row("a", OURS, 2, 2, 0.25, 4, 7)]
    text = alone.in_plain_text(rows)
    assert text.splitlines()[1].split() == [
        "a",
        "no",
        "retries",
        "1",
        "of",
        "2",
        "0.500",
        "s",
        "1.50",
    ]
    assert text.splitlines()[2].split()[-2:] == ["2.00", "7"]
