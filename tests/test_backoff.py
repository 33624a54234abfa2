"""Waits: their spans, their jitter, and Retry-After in all that servers send."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry.backoff import full_jitter, jittered_retry_after, parse_retry_after

NOW = 1_800_000_000.0


@given(
    retry=st.integers(1, 10_000),
    base=st.floats(1e-6, 1e6),
    factor=st.floats(1.0, 1e3),
    chance=st.floats(0, 1),
)
def test_a_wait_lies_between_nothing_and_its_cap(
    retry: int, base: float, factor: float, chance: float
) -> None:
    """However many retries, no wait is negative, above the cap, or overflows."""
    wait = full_jitter(retry, base, base * factor, lambda: chance)
    assert 0.0 <= wait <= base * factor


def test_spans_reach_from_a_blip_to_a_restart() -> None:
    """The first wait ends within a blip of 200 ms, the third may pass a second."""
    assert full_jitter(1, 0.2, 5.0, lambda: 1.0) == pytest.approx(0.2)
    assert full_jitter(3, 0.2, 5.0, lambda: 1.0) == pytest.approx(1.8)
    assert full_jitter(4, 0.2, 5.0, lambda: 1.0) == 5.0
    assert full_jitter(4, 0.2, 5.0, lambda: 0.0) == 0.0


@pytest.mark.parametrize("chance", [math.nan, -1.0, 2.0, math.inf])
def test_a_broken_source_of_chance_waits_the_whole_span(chance: float) -> None:
    """A source that gives no number from 0 to 1 leads to no negative and no endless wait."""
    assert full_jitter(1, 0.2, 5.0, lambda: chance) == 0.2


@given(
    seconds=st.floats(0.001, 1e6),
    retry=st.integers(1, 1000),
    chance=st.floats(0, 1),
    longest=st.floats(0.001, 1e6),
)
def test_jitter_only_adds_to_retry_after_and_at_most_doubles_it(
    seconds: float, retry: int, chance: float, longest: float
) -> None:
    """Never less than the server asked for, never more than twice that, nor past the cap."""
    wait = jittered_retry_after(seconds, retry, lambda: chance, longest)
    assert seconds <= wait <= 2 * seconds
    assert wait <= max(seconds, longest)


def test_jitter_grows_with_the_retries() -> None:
    """Those that keep meeting at the end of a wait spread further each time."""
    waits = [jittered_retry_after(4.0, retry, lambda: 1.0) for retry in (1, 2, 3, 4)]
    assert waits == [5.0, 6.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0),
        (" 120 ", 120.0),
        ("0", None),
        ("00", None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("१२", None),
        ("9" * 11, None),
        ("9" * 5000, None),
        ("", None),
        ("soon", None),
        ("\x00", None),
        (None, None),
    ],
)
def test_seconds(value: str | None, seconds: float | None) -> None:
    """Whole seconds are read; zero asks for no wait of its own; all else is ignored."""
    assert parse_retry_after(value, wall=lambda: NOW) == seconds


@pytest.mark.parametrize(
    ("offset", "seconds"), [(30, 30.0), (1, 1.0), (0, None), (-30, None), (86_400, 86_400.0)]
)
def test_dates(offset: int, seconds: float | None) -> None:
    """A date to come is a wait until then, a date gone by asks for none."""
    value = formatdate(NOW + offset, usegmt=True)
    assert parse_retry_after(value, wall=lambda: NOW) == seconds


def test_older_forms_of_dates() -> None:
    """The two obsolete forms of RFC 9110 are dates too."""
    wall = 784_111_777.0 - 10
    for value in (
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ):
        assert parse_retry_after(value, wall=lambda: wall) == 10.0, value


def test_a_date_is_counted_from_the_servers_own_clock() -> None:
    """A client whose clock is an hour off waits neither an hour nor not at all."""
    value, date = formatdate(NOW + 5, usegmt=True), formatdate(NOW, usegmt=True)
    for skew in (-3600.0, 0.0, 3600.0):
        assert parse_retry_after(value, date, wall=lambda: NOW + skew) == 5.0  # noqa: B023
    assert parse_retry_after(value, "nonsense", wall=lambda: NOW) == 5.0


@given(value=st.text(max_size=80), date=st.none() | st.text(max_size=40))
def test_garbage_never_raises(value: str, date: str | None) -> None:
    """Whatever a server sends is a number of seconds above zero, or nothing."""
    seconds = parse_retry_after(value, date)
    assert seconds is None or (seconds > 0 and math.isfinite(seconds))
