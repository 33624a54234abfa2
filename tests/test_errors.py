"""Errors have the names that OpenTelemetry gives them, and texts with nothing secret in them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.http_parser import RawResponseMessage
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiohttp_adaptive_retry import OriginUnavailable
from aiohttp_adaptive_retry._errors import error_name, error_text


def test_names_are_qualified_as_opentelemetry_has_them() -> None:
    """Nested classes keep their outer name; the function that made a class is left out."""

    class Local(Exception):
        class Nested(Exception):
            pass

    assert error_name(aiohttp.ServerDisconnectedError()) == "ServerDisconnectedError"
    assert error_name(Local()) == "Local"
    assert error_name(Local.Nested()) == "Local.Nested"


SECRETS = ("hunter2", "s3cr3t", "private", "sid=1")


@pytest.mark.parametrize(
    "text",
    [
        "https://user:hunter2@api.example.com:8443/private/s3cr3t?token=s3cr3t#private",
        "GET http://api.example.com:8443/private failed",
        "url='https://api.example.com:8443?token=s3cr3t'",
        "Connection timeout to host https://api.example.com:8443/private",
        "wss://hunter2@api.example.com:8443/s3cr3t",
        "HTTPS://API.EXAMPLE.COM:8443/PRIVATE/s3cr3t",
        "(https://api.example.com:8443/private/%20(s3cr3t))",
        "https://api.example.com:8443/Orders('private')?$filter=name+eq+'s3cr3t'&token=hunter2",
        "https://us'er:hunter2@api.example.com:8443/private",
        'https://api.example.com:8443"private"',
        "https://api.example.com:8443\\private",
        "https://api.example.com:8443/a,https://private/s3cr3t",
        "seen: {'url': 'https://api.example.com:8443/private?token=s3cr3t','token':'hunter2'}",
    ],
)
def test_urls_in_texts_lose_all_but_scheme_host_and_port(text: str) -> None:
    """Neither userinfo nor path nor query of a URL is kept."""
    kept = error_text(ValueError(text), 200)
    assert "api.example.com:8443" in kept.lower()
    assert not [secret for secret in SECRETS if secret in kept.lower()]


def test_what_a_server_sent_is_left_out() -> None:
    """aiohttp puts raw header lines and response heads into texts; they may hold cookies."""
    head = RawResponseMessage(
        (1, 1),  # type: ignore[arg-type]
        200,
        "OK",
        CIMultiDictProxy(CIMultiDict({"Set-Cookie": "sid=1"})),
        ((b"Set-Cookie", b"sid=1"),),
        False,
        None,
        False,
        False,
    )
    info = aiohttp.RequestInfo(
        URL("http://h/private"), "GET", CIMultiDictProxy(CIMultiDict()), URL("http://h/private")
    )
    errors: list[Exception] = [
        aiohttp.ServerDisconnectedError(head),
        aiohttp.ClientResponseError(info, (), status=400, message="bad header b'Cookie: sid=1'"),
        aiohttp.InvalidURL("hunter2/private"),
    ]
    texts = [error_text(error, 200) for error in errors]
    assert texts == ["Server disconnected", "400", "Invalid URL"]


def test_texts_are_cut_and_may_fail() -> None:
    """A text of any size is cut; an error whose text raises has none."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_text(ValueError("x" * 10_000_000), 200) == "x" * 200
    assert error_text(Unprintable(), 200) == ""


def test_a_long_text_costs_its_length_and_not_its_square() -> None:
    """A megabyte that is nearly a URL all over is searched in one pass."""
    for text in ("a" * 1_000_000, "a" * 1_000_000 + "://", "http://" * 200_000, "a://b@" * 200_000):
        assert len(error_text(ValueError(text), 100_000)) <= 100_000


#: Whatever may stand in a URL as people write it, or in one that is none.
IN_URLS = st.text("abcXYZ019-._~%!$&'()*+,;=:@/?#[]|^`{}\"\\\u00e4\x00", max_size=40)


@given(
    scheme=st.sampled_from(["http", "https", "HTTPS", "wss", "redis", "postgresql+asyncpg"]),
    user=st.text("abcXYZ019-_~!$&'()*+,;=%.\"", max_size=20),
    port=st.sampled_from(["", ":1", ":8443"]),
    start=st.sampled_from(["/", "?", "#", "'", '"', "\\", ",", ")", ";", "/'", '?"']),
    rest=IN_URLS,
    before=st.text(max_size=20),
    after=st.sampled_from(["", " end", "\n", ">", "\t<b>"]),
    length=st.integers(1, 300),
)
def test_no_part_of_a_url_survives(
    scheme: str,
    user: str,
    port: str,
    start: str,
    rest: str,
    before: str,
    after: str,
    length: int,
) -> None:
    """Whatever stands in it and around it, a URL comes down to its origin, at any cut."""
    userinfo = f"{user}:PASSWORD@" if user else ""
    if start[0] not in "/?#\\":
        # What stands before an @ would be userinfo, and what stands behind it the host.
        rest = rest.replace("@", "")
    url = f"{scheme}://{userinfo}host.example{port}{start}{rest}SECRET"
    # A URL that is the end of another one goes with that one.
    text = error_text(ValueError(f"{before.replace('://', '')} {url}{after}"), length)
    assert "SECRET" not in text
    assert "PASSWORD" not in text
    assert len(text) <= length
    if length == 300 and not set("@:") & set(rest):
        assert f"{scheme}://host.example{port}" in text


@pytest.mark.parametrize("userinfo", ["me:pa/ss", "me:pa?ss", "me:pa#ss", "m'e:pa/s's"])
def test_a_password_that_breaks_the_url_is_not_kept(userinfo: str) -> None:
    """An unquoted slash makes a host of the user's name; then nothing but the scheme is kept."""
    text = error_text(ValueError(f"no route to https://{userinfo}@host.example/x now"), 200)
    assert text == "no route to https:// now"


@pytest.mark.parametrize(
    "host", ["[::1]:8080", "[fe80::1%25eth0]", "127.0.0.1:1", "b\u00fccher.example"]
)
def test_hosts_of_all_kinds_are_kept(host: str) -> None:
    """Addresses and names in any script stay whole."""
    assert error_text(ValueError(f"to http://{host}/p?q now"), 200) == f"to http://{host} now"


def test_origin_unavailable_makes_aiohttp_run_nothing_twice() -> None:
    """It is a ClientError, and none of those that start aiohttp's hidden retry."""
    assert issubclass(OriginUnavailable, aiohttp.ClientError)
    assert not issubclass(OriginUnavailable, aiohttp.ClientOSError)
    assert not issubclass(OriginUnavailable, aiohttp.ServerDisconnectedError)


def test_origin_unavailable_says_why() -> None:
    """The reason is there for programs, and in the text for people."""
    error = OriginUnavailable("congested")
    assert error.reason == "congested"
    assert str(error) == "not sent: congested"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ((), "not sent: origin_down"),
        (("limited",), "not sent: limited"),
        (
            ("origin_down", "https://a.example:443"),
            "https://a.example:443: not sent: origin_down",
        ),
        (
            ("origin_down", "https://a.example:443", 0.25),
            "https://a.example:443: not sent: origin_down; worth another try in 0.2 s",
        ),
    ],
)
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda error: pickle.loads(pickle.dumps(error)),  # noqa: S301
        lambda error: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(error)))),  # noqa: S301
    ],
    ids=["copy", "deepcopy", "pickle", "pickle twice"],
)
def test_origin_unavailable_can_be_copied_and_pickled(
    fields: tuple[Any, ...], text: str, duplicate: Callable[[Any], Any]
) -> None:
    """With its fields, its text and what was put on it; so it passes through processes."""
    error = OriginUnavailable(*fields)
    error.add_note("a note")
    again = duplicate(error)
    assert type(again) is OriginUnavailable
    assert str(again) == str(error) == text
    assert (again.reason, again.origin, again.retry_after) == (
        error.reason,
        error.origin,
        error.retry_after,
    )
    assert again.__notes__ == ["a note"]
