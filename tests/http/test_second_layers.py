"""Requests that another retry layer around us sends again."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiohttp import ClientRequest, ClientResponse
from aiohttp.client_middlewares import build_client_middlewares
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aiohttp_adaptive_retry._http import layers
from aiohttp_adaptive_retry._http.layers import MOST_IDS, Layers

from ..kit.fakes import ORIGIN, Request, Rig
from ..kit.policies import Listening
from .rigs import one, rig_with

AZURE = "x-ms-client-request-id"


class Calls:
    """A middleware that listens, and a server that fails each call (or one status for each)."""

    def __init__(self, *script: int, **fields: Any) -> None:
        self.policy = Listening()
        fields.setdefault("max_attempts", 1)
        self.rig: Rig = rig_with(script or (503,), {"policy": one(self.policy)}, **fields)

    async def send(
        self, headers: dict[str, str], url: URL = ORIGIN, method: str = "GET"
    ) -> ClientResponse:
        request = Request(url, method)
        request.headers.update(headers)
        chain = build_client_middlewares(self.rig.upstream, (self.rig.middleware,))
        return await chain(cast(ClientRequest, request))

    async def resent(self, headers: dict[str, str], url: URL = ORIGIN) -> bool:
        """What the policy is told of a call that fails."""
        await self.send(headers, url)
        return self.policy.resent[-1]


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("amz-sdk-request", "attempt=1", False),
        ("amz-sdk-request", "attempt=1; max=3", False),
        ("amz-sdk-request", "attempt=2; max=3", True),
        ("Amz-Sdk-Request", "ttl=20250101T000000Z; attempt=3; max=3", True),
        ("amz-sdk-request", "attempt=12;max=20", True),
        ("amz-sdk-request", "attempt=two", False),
        ("amz-sdk-request", "attempt=", False),
        ("amz-sdk-request", "reattempt=2", False),
        ("amz-sdk-request", f"attempt={'9' * 5000}", False),
        ("x-stainless-retry-count", "0", False),
        ("X-Stainless-Retry-Count", "1", True),
        ("x-stainless-retry-count", "-1", False),
        ("x-stainless-retry-count", "1.5", False),
        ("x-stainless-retry-count", "", False),
        ("x-stainless-retry-count", "²", False),
        ("x-request-id", "7", False),
    ],
)
async def test_a_count_says_so(header: str, value: str, expected: bool) -> None:
    """The library counts its attempts in a header: the first one is none of its retries."""
    calls = Calls()
    assert await calls.resent({header: value}) is expected
    assert calls.rig.middleware.snapshot().faults == 0


@pytest.mark.parametrize("header", ["x-ms-client-request-id", "Idempotency-Key"])
async def test_an_id_that_comes_again_says_so(header: str) -> None:
    """After a call with it has failed: not the first, not another id, not another header's."""
    calls = Calls()
    assert await calls.resent({header: "a"}) is False
    assert await calls.resent({header: "a"}) is True
    assert await calls.resent({header.upper(): "a"}) is True
    assert await calls.resent({header: "b"}) is False
    other = {"x-ms-client-request-id": "Idempotency-Key"}.get(header, "x-ms-client-request-id")
    assert await calls.resent({other: "a"}) is False
    assert await calls.resent({}) is False


async def test_another_origin_is_another_request() -> None:
    """The same id there was not sent before."""
    calls = Calls()
    assert await calls.resent({AZURE: "a"}) is False
    assert await calls.resent({AZURE: "a"}, URL("http://other.example:8080/")) is False
    assert await calls.resent({AZURE: "a"}, URL("https://upstream.example:8080/")) is False
    assert await calls.resent({AZURE: "a"}, URL("http://upstream.example:8080/else")) is True


async def test_an_id_is_forgotten_after_five_minutes() -> None:
    """Of the last failure with it."""
    calls = Calls()
    assert await calls.resent({AZURE: "a"}) is False
    for _ in range(3):
        calls.rig.clock.now += 299.0
        assert await calls.resent({AZURE: "a"}) is True
    calls.rig.clock.now += 301.0
    assert await calls.resent({AZURE: "a"}) is False
    # Nor does it matter that the clock was set back.
    calls.rig.clock.now -= 1000.0
    assert await calls.resent({AZURE: "a"}) is False


async def test_the_retries_of_one_call_are_no_other_layers() -> None:
    """Our own attempts have the same headers."""
    calls = Calls(503, max_attempts=4)
    await calls.send({AZURE: "a"})
    assert calls.policy.resent == [False] * 4
    await calls.send({AZURE: "a"})
    assert calls.policy.resent == [False] * 4 + [True] * 4


async def test_a_success_remembers_nothing() -> None:
    """Only calls that failed are sent again."""
    calls = Calls(200, 200, 503)
    for _ in range(2):
        await calls.send({AZURE: "a"})
    assert len(calls.rig.middleware._layers) == 0
    assert await calls.resent({AZURE: "a"}) is False
    assert len(calls.rig.middleware._layers) == 1


async def test_a_first_success_looks_at_no_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """The success path of the shipped policy asks nobody."""

    def asked(*_: object) -> None:
        raise AssertionError("nobody is to be asked")

    monkeypatch.setattr(Layers, "arrived", asked)
    monkeypatch.setattr(Layers, "failed", asked)
    rig = Rig()
    for _ in range(10):
        await rig.call()
    assert rig.middleware.snapshot().faults == 0


async def test_a_call_that_is_asked_about_first_is_told_before() -> None:
    """A policy that decides on first attempts knows by then that this is none."""
    seen: list[bool] = []

    class Asking(Listening):
        def arrive(self, now: float, call: Any) -> Any:
            seen.append(call.is_resend)
            return super().arrive(now, call)

    calls = Calls(503, 200)
    calls.rig = rig_with([503, 200, 200], {"policy": one(Asking())}, max_attempts=1)
    for headers in ({AZURE: "a"}, {AZURE: "a"}, {"x-stainless-retry-count": "2"}):
        await calls.send(headers)
    assert seen == [False, True, True]


async def test_memory_is_bounded() -> None:
    """However many ids fail; the newest ones are known."""
    calls = Calls()
    for number in range(MOST_IDS + 50):
        assert await calls.resent({AZURE: f"id-{number}"}) is False
    assert len(calls.rig.middleware._layers) == MOST_IDS
    assert await calls.resent({AZURE: f"id-{MOST_IDS + 49}"}) is True
    assert await calls.resent({AZURE: "id-0"}) is False
    # What is over goes with the next one that is remembered.
    calls.rig.clock.now += 1000.0
    await calls.resent({AZURE: "new"})
    assert len(calls.rig.middleware._layers) == 1


async def test_no_id_is_kept() -> None:
    """A hash with a key of this middleware's own says nothing about an id, and fits no other."""
    first, second = Calls(), Calls()
    for calls in (first, second):
        await calls.send({"Idempotency-Key": "secret-key", AZURE: "secret-id"})
    kept = [set(calls.rig.middleware._layers._failed) for calls in (first, second)]
    assert all(len(hashed) == 8 for hashes in kept for hashed in hashes)
    assert [len(hashes) for hashes in kept] == [2, 2]
    assert not kept[0] & kept[1]


@given(value=st.text(st.characters(exclude_characters="\r\n"), max_size=3000))
async def test_any_header_can_be_read(value: str) -> None:
    """What a library writes there breaks nothing."""
    calls = Calls()
    headers = dict.fromkeys((layers.OF_AWS, layers.OF_STAINLESS, layers.ID, layers.KEY), value)
    await calls.send(headers)
    await calls.send(headers)
    assert calls.rig.middleware.snapshot().faults == 0
    assert calls.policy.resent[1] is (value != "" or calls.policy.resent[0])
