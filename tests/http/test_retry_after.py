"""What servers say about another attempt, in all their dialects, and in what is none of them."""

from __future__ import annotations

import math
import string
from email.utils import formatdate
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from aiohttp_adaptive_retry._http import retry_after
from aiohttp_adaptive_retry._http.moments import LONGEST
from aiohttp_adaptive_retry._http.retry_after import NACKS, SILENCE, ServerWord, heard

from ..kit.fakes import Response, Rig

NOW = 1_800_000_000.0


def word(status: int = 429, /, **headers: str) -> ServerWord:
    """What these headers say; an underscore stands for a hyphen."""
    return said(status, {name.replace("_", "-"): value for name, value in headers.items()})


def said(status: int, headers: dict[str, str]) -> ServerWord:
    return heard(status, CIMultiDictProxy(CIMultiDict(headers)), wall=lambda: NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1.0),
        (" 120 ", 120.0),
        ("02", 2.0),
        ("0", 0.0),
        ("00", 0.0),
        # Digits of any length: what is too long to be counted is longer than anybody waits.
        ("9999999999", 9999999999.0),
        ("10000000000", LONGEST),
        ("9" * 11, LONGEST),
        ("1800000000000", LONGEST),
        ("9" * 400, LONGEST),
        ("9" * 5000, LONGEST),
        ("0" * 5000 + "2", 2.0),
        # Decimals, as Shopify and others send them.
        ("1.5", 1.5),
        ("0.503", 0.503),
        ("292.052427053", 292.052427053),
        ("2.", 2.0),
        (".5", 0.5),
        ("9" * 400 + "." + "9" * 400, LONGEST),
        # Durations, as Go prints them and as people write them.
        ("1m0s", 60.0),
        ("2s", 2.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("2 seconds", 2.0),
        ("1 Minute", 60.0),
        ("1 h 30 min", 5400.0),
        ("9" * 400 + "h", LONGEST),
        ("0s", 0.0),
        # What says nothing.
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("Infinity", None),
        ("0x10", None),
        ("1_000", None),
        ("१२", None),
        ("2\u017f", None),
        (".", None),
        ("s", None),
        ("1m0", None),
        ("2 apples", None),
        ("2 secondsx", None),
        ("", None),
        ("soon", None),
        ("\x00", None),
    ],
)
def test_numbers_and_durations(value: str, seconds: float | None) -> None:
    """Any number of seconds is read, and any duration with its units."""
    assert word(Retry_After=value).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("offset", "seconds"), [(30, 30.0), (1, 1.0), (0, 0.0), (-30, 0.0), (86_400, 86_400.0)]
)
def test_dates(offset: int, seconds: float) -> None:
    """A date to come is a wait until then, a date gone by asks for none."""
    assert word(Retry_After=formatdate(NOW + offset, usegmt=True)).seconds == seconds


@pytest.mark.parametrize(
    "value",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun, 06 Nov 1994 10:49:37 +0200",
        "1994-11-06T08:49:37Z",
        "1994-11-06T10:49:37+02:00",
        "1994-11-06 08:49:37",
    ],
)
def test_forms_of_dates(value: str) -> None:
    """The three forms of HTTP, those of mail, and ISO 8601; without a zone they are in GMT."""
    headers = {"Retry-After": value}
    assert heard(503, headers, wall=lambda: 784_111_777.0 - 10).seconds == 10.0


@pytest.mark.parametrize(
    "value",
    [
        "Fri, 31 Dec 9998 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Fri, 31 Dec 9999 23:59:59 -1200",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 999999999999 23:59:59 GMT",
    ],
)
def test_dates_that_are_far_away(value: str) -> None:
    """A year that can't be counted is longer than anybody waits, and not garbage."""
    seconds = word(Retry_After=value).seconds
    assert seconds is not None
    assert 1e9 < seconds <= LONGEST


@pytest.mark.parametrize(
    "value",
    [
        "Fri, 41 Dec 99999 23:59:59 GMT",
        "Fri, 31 Dec 2099 25:59:59 GMT",
        "Fri, 31 Dec 2099 23:59:59 GMT" + " " * 60 + "x",
        "31 Dec",
    ],
)
def test_dates_that_are_none(value: str) -> None:
    """There is no such day, no such hour, or too much text."""
    assert word(Retry_After=value).seconds is None


def test_a_date_is_counted_from_the_servers_own_clock() -> None:
    """A client whose clock is an hour off waits neither an hour nor not at all."""
    headers = {"Retry-After": formatdate(NOW + 5, usegmt=True), "Date": formatdate(NOW)}
    reset = {"X-RateLimit-Reset": str(NOW + 5), "Date": formatdate(NOW)}
    for skew in (-3600.0, 0.0, 3600.0):
        for given_ in (headers, reset):
            assert heard(429, given_, wall=lambda: NOW + skew).seconds == 5.0  # noqa: B023
    assert heard(429, headers | {"Date": "nonsense"}, wall=lambda: NOW).seconds == 5.0


#: One of each dialect, in the order in which they are heard: for each its headers and its seconds.
DIALECTS: list[tuple[dict[str, str], float]] = [
    ({"retry-after-ms": "1500"}, 1.5),
    ({"x-ms-retry-after-ms": "1600.5"}, 1.6005),
    ({"x-amz-retry-after": "1700"}, 1.7),
    ({"grpc-retry-pushback-ms": "1800"}, 1.8),
    ({"Retry-After": "2"}, 2.0),
    ({"X-RateLimit-Retry-After": "3"}, 3.0),
    ({"X-RateLimit-Reset-After": "3.25"}, 3.25),
    ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "4"}, 4.0),
    ({"x-rate-limit-remaining": "0", "x-rate-limit-reset": "5"}, 5.0),
    ({"RateLimit-Remaining": "0", "RateLimit-Reset": "6"}, 6.0),
    ({"RateLimit": '"burst";r=0;t=7'}, 7.0),
    ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m0.5s"}, 60.5),
    (
        {
            "anthropic-ratelimit-tokens-remaining": "0",
            "anthropic-ratelimit-tokens-reset": "2027-01-15T08:00:09Z",
        },
        9.0,
    ),
]


@pytest.mark.parametrize(
    ("headers", "seconds"), DIALECTS, ids=[" ".join(headers) for headers, _ in DIALECTS]
)
@pytest.mark.parametrize("spell", [str, str.upper, str.lower], ids=["as is", "upper", "lower"])
def test_a_dialect_alone(headers: dict[str, str], seconds: float, spell: Any) -> None:
    """Each is heard in any case, from a plain mapping too, on a limit and on an overload."""
    spelt = {spell(name): value for name, value in headers.items()}
    for status in (429, 403, 503):
        assert said(status, spelt).seconds == pytest.approx(seconds)
        assert heard(status, spelt, wall=lambda: NOW).wait == pytest.approx(seconds)


def test_every_dialect_is_in_the_table() -> None:
    """A parser without a row here would hold nothing."""
    assert len(DIALECTS) == len(retry_after.INVITATIONS) + len(retry_after.LIMITS)


@pytest.mark.parametrize("first", range(len(DIALECTS)))
def test_the_first_that_can_be_read_wins(first: int) -> None:
    """Those before it, if they hold garbage, and those after it don't count."""
    headers: dict[str, str] = {}
    for others, _ in reversed(DIALECTS[first:]):
        headers |= others
    for others, _ in DIALECTS[:first]:
        headers |= {name: "garbage" for name in others if "remaining" not in name.lower()}
    assert said(429, headers).seconds == pytest.approx(DIALECTS[first][1])


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["2", "5"], 5.0),
        (["5", "2"], 5.0),
        (["2", "soon"], 2.0),
        (["soon", "2"], 2.0),
        (["2, 5"], 5.0),
        (["2,"], 2.0),
        (['"2"'], 2.0),
        (["Fri, 15 Jan 2027 08:00:07 GMT", "2"], 7.0),
        (["Fri, 15 Jan 2027 08:00:07 GMT", "Fri, 15 Jan 2027 08:00:09 GMT"], 9.0),
        (["soon", "never"], None),
        (["1,5"], 5.0),
    ],
    ids=str,
)
def test_a_header_that_came_twice(values: list[str], seconds: float | None) -> None:
    """On two lines or on one: nobody is asked sooner than anyone said."""
    headers = CIMultiDict([("Retry-After", value) for value in values])
    assert heard(503, CIMultiDictProxy(headers), wall=lambda: NOW).seconds == seconds


def test_verdicts_that_came_twice() -> None:
    """The first line counts."""
    headers = CIMultiDict([("x-should-retry", "false"), ("x-should-retry", "true")])
    assert heard(503, CIMultiDictProxy(headers)).again is False


def test_zero_wins_too() -> None:
    """A server that says "at once" is heard before one of its proxies."""
    found = word(retry_after_ms="0", Retry_After="7")
    assert (found.seconds, found.wait, found.invites) == (0.0, None, True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        # GitHub: a moment of the epoch. Elsewhere seconds from now, milliseconds, or a date.
        ({"X-RateLimit-Reset": "1800000030"}, 30.0),
        ({"X-RateLimit-Reset": "1800000030.5"}, 30.5),
        ({"X-RateLimit-Reset": "1800000030000"}, 30.0),
        ({"X-RateLimit-Reset": "1700000000"}, 0.0),
        ({"X-RateLimit-Reset": "1000000000"}, 1e9),
        ({"X-RateLimit-Reset": "1000000001"}, 0.0),
        ({"X-RateLimit-Reset": "9" * 300}, LONGEST),
        ({"X-RateLimit-Reset": "9" * 3000}, LONGEST),
        ({"X-RateLimit-Reset": "2027-01-15T08:00:30Z"}, 30.0),
        ({"X-RateLimit-Reset": "6m0s"}, 360.0),
        ({"X-RateLimit-Reset": "-5"}, None),
        ({"X-RateLimit-Reset": "tomorrow"}, None),
        ({"X-RateLimit-Reset": "4", "X-RateLimit-Remaining": "00"}, 4.0),
        ({"X-RateLimit-Reset": "4", "X-RateLimit-Remaining": "0.0"}, 4.0),
        ({"X-RateLimit-Reset": "4", "X-RateLimit-Remaining": "-1"}, 4.0),
        ({"X-RateLimit-Reset": "4", "X-RateLimit-Remaining": "1"}, None),
        ({"X-RateLimit-Reset": "4", "X-RateLimit-Remaining": "0.5"}, None),
        ({"X-RateLimit-Reset": "4", "X-RateLimit-Remaining": "many"}, None),
        # The header with several limits: the longest of those used up.
        ({"RateLimit": '"burst";r=0;t=2, "daily";r=0;t=9'}, 9.0),
        ({"RateLimit": '"burst";r=0;t=2, "daily";r=5;t=9'}, 2.0),
        ({"RateLimit": '"burst";r=3;t=2, "daily";r=5;t=9'}, None),
        ({"RateLimit": "r=0;t=2"}, 2.0),
        ({"RateLimit": '"a;r=0;t=50, b";r=0; t=2'}, 2.0),
        ({"RateLimit": '"a\\";r=0;t=50";r=0;t=2;pk=:YQ==:'}, 2.0),
        ({"RateLimit": "limit=10, remaining=0, reset=7"}, 7.0),
        ({"RateLimit": "limit=10, remaining=3, reset=7"}, None),
        ({"RateLimit": '"burst";r=0'}, None),
        ({"RateLimit": '"burst";r=0;t=-4'}, None),
        ({"RateLimit": '";r=0;t=5'}, 5.0),
        ({"RateLimit": '"' * 4001}, None),
        # A limit for each kind of use: the longest of those used up.
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "12ms",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            360.0,
        ),
        (
            {
                "x-ratelimit-remaining-requests": "9",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "2s",
            },
            2.0,
        ),
        ({"x-ratelimit-reset-tokens": "2s"}, None),
        ({"X-RateLimit-Reset-After": "1.5", "X-RateLimit-Remaining": "3"}, 1.5),
        ({"grpc-retry-pushback-ms": "-1"}, None),
        ({"grpc-retry-pushback-ms": "0"}, 0.0),
        ({"grpc-retry-pushback-ms": str(2**31)}, None),
    ],
    ids=str,
)
def test_limits_on_a_429(headers: dict[str, str], seconds: float | None) -> None:
    """An answer 429 says that a limit is used up, unless what is left is above zero."""
    assert said(429, headers).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        # Sent with every answer, these say nothing about this one.
        ({"X-RateLimit-Reset": "60"}, (None, False)),
        ({"X-RateLimit-Reset": "60", "X-RateLimit-Remaining": "59"}, (None, False)),
        ({"RateLimit-Reset": "60", "RateLimit-Remaining": "59"}, (None, False)),
        ({"RateLimit": '"burst";r=3;t=2'}, (None, False)),
        ({"X-RateLimit-Reset-After": "60", "X-RateLimit-Remaining": "4"}, (None, False)),
        ({"X-RateLimit-Reset-After": "60"}, (60.0, False)),
        ({"X-RateLimit-Reset-After": "60", "X-RateLimit-Remaining": "0"}, (60.0, True)),
        ({"X-RateLimit-Reset": "60", "X-RateLimit-Remaining": "0"}, (60.0, True)),
        ({"X-RateLimit-Remaining": "0"}, (None, True)),
        ({"RateLimit-Remaining": "0"}, (None, True)),
        ({"RateLimit": '"burst";r=0'}, (None, True)),
    ],
    ids=str,
)
def test_limits_on_another_answer(
    headers: dict[str, str], found: tuple[float | None, bool]
) -> None:
    """Only where nothing is left. Both the seconds, and whether nothing is left."""
    heard_ = said(403, headers)
    assert (heard_.seconds, heard_.exhausted) == found


@pytest.mark.parametrize(
    ("headers", "again"),
    [
        ({"x-should-retry": "true"}, True),
        ({"X-Should-Retry": " False "}, False),
        ({"Stripe-Should-Retry": "true"}, True),
        ({"Stripe-Should-Retry": "false"}, False),
        ({"x-should-retry": "maybe", "Stripe-Should-Retry": "false"}, False),
        ({"x-should-retry": "true", "Stripe-Should-Retry": "false"}, True),
        ({"x-should-retry": "1"}, None),
        ({"x-should-retry": ""}, None),
        ({"grpc-retry-pushback-ms": "-1"}, False),
        ({"grpc-retry-pushback-ms": "soon"}, False),
        ({"grpc-retry-pushback-ms": "1.5"}, False),
        ({"grpc-retry-pushback-ms": str(2**31)}, False),
        ({"grpc-retry-pushback-ms": "9" * 5000}, False),
        ({"grpc-retry-pushback-ms": "1500"}, None),
        ({"grpc-retry-pushback-ms": ""}, False),
        ({"grpc-retry-pushback-ms": "-1", "x-should-retry": "true"}, False),
        ({"finagle-http-nonretryable-nack": "true"}, False),
        ({"finagle-http-nack": "true"}, None),
    ],
    ids=str,
)
def test_whether_it_is_wanted_again(headers: dict[str, str], again: bool | None) -> None:
    """A word that can be read is heard; of pushback also one that can't."""
    assert said(503, headers).again is again


def test_who_turned_a_request_away() -> None:
    """Envoy and Finagle say so by a header's presence."""
    for name in NACKS:
        assert said(503, {name.upper(): "true"}).unread
    assert not said(503, {"Retry-After": "1", "finagle-http-nonretryable-nack": "1"}).unread


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {"Content-Type": "text/plain", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"},
        cast(Any, {1: 2}),
        cast(Any, {None: "1", "Retry-After": "1"}),
        cast(Any, [("Retry-After", "1")]),
        cast(Any, object()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_headers_that_say_nothing(headers: Any) -> None:
    """None at all, ordinary ones, and what is no headers."""
    assert heard(503, headers) == SILENCE


def test_values_that_are_no_texts() -> None:
    """An exception's headers may have been made by anybody."""
    headers = {"Retry-After": 2, "x-should-retry": False, "RateLimit": None}
    assert heard(503, headers) == ServerWord(2.0, True, False, False)


NAMES = sorted(retry_after._KNOWN | {"date"})
VALUES = (
    st.text(max_size=80)
    | st.text(alphabet=string.digits + '.,;=-+:" rtTZsmhGMT', max_size=80)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.datetimes().map(lambda moment: moment.isoformat())
)
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(status=st.integers(0, 999), headers=HEADERS)
@example(status=429, headers={"retry-after": "1" * 100_000})
@example(status=429, headers={"ratelimit": '"\\' * 50_000})
@example(status=429, headers={"retry-after": "1" + " " * 50_000 + "x"})
def test_garbage_never_raises(status: int, headers: dict[str, str]) -> None:
    """Whatever a server sends is a number of seconds of 0 or more, or nothing."""
    seconds = said(status, headers).seconds
    assert seconds is None or (0.0 <= seconds <= LONGEST and math.isfinite(seconds))


def at(kind: int, seconds: float) -> dict[str, str]:
    """So many seconds from the answer's Date, said in one of all dialects."""
    whole, date = str(math.ceil(seconds)), {"Date": formatdate(NOW, usegmt=True)}
    reset = math.ceil(NOW + seconds)
    forms: list[dict[str, str]] = [
        {"retry-after-ms": f"{1000 * seconds:.3f}"},
        {"x-ms-retry-after-ms": str(math.ceil(1000 * seconds))},
        {"x-amz-retry-after": str(math.ceil(1000 * seconds))},
        {"grpc-retry-pushback-ms": str(math.ceil(1000 * seconds))},
        {"Retry-After": whole},
        {"Retry-After": f"{seconds:.6f}"},
        {"Retry-After": f"{whole}s"},
        {"Retry-After": formatdate(reset, usegmt=True)},
        {"X-RateLimit-Reset-After": f"{seconds:.6f}"},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": whole},
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)},
        {"RateLimit-Remaining": "0", "RateLimit-Reset": whole},
        {"RateLimit": f'"burst";r=0;t={whole}'},
    ]
    return forms[kind % len(forms)] | date


@settings(max_examples=150, deadline=None)
@given(
    kind=st.integers(0, 12),
    seconds=st.floats(0.01, 80.0),
    status=st.sampled_from([403, 429, 500, 503, 529]),
    cap=st.floats(0.5, 60.0),
    chance=st.floats(0.0, 1.0),
)
async def test_never_sooner_than_said_and_never_above_the_cap(
    kind: int, seconds: float, status: int, cap: float, chance: float
) -> None:
    """A wait is as long as was asked for, at least; what asks for more than the cap is handed back.

    Rounded up to what the dialect can say, no more than a second.
    """
    refusal = Response(status, at(kind, seconds))
    rig = Rig([refusal, 200], chance, retry_after_cap=cap)
    response = await rig.call()
    asked = heard(status, refusal.headers).wait
    assert asked is not None
    assert seconds - 1e-3 <= asked <= seconds + 1.001
    if asked <= cap:
        assert (response.status, rig.upstream.hits) == (200, 2)
        assert asked <= sum(rig.clock.waits) <= cap
    else:
        assert (response.status, rig.upstream.hits, rig.clock.waits) == (status, 1, [])
        assert rig.middleware.snapshot().suppressed == {"retry_after": 1}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(headers=HEADERS, status=st.sampled_from([403, 404, 409, 429, 500, 503]))
async def test_no_header_makes_a_call_fail_or_wait_for_long(
    headers: dict[str, str], status: int
) -> None:
    """The caller gets one of the answers, nothing of ours breaks, and no wait is above the cap."""
    rig = Rig([Response(status, headers), 200], max_attempts=2)
    response = await rig.call()
    assert response.status in (status, 200)
    assert all(wait <= 30.0 for wait in rig.clock.waits)
    assert rig.middleware.snapshot().faults == 0
