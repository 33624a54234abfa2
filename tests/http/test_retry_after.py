"""Retry-After in all that servers send."""

from __future__ import annotations

import math
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiohttp_adaptive_retry._http.retry_after import parse_retry_after

NOW = 1_800_000_000.0


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
