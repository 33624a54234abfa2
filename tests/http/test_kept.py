"""What a waiting call keeps is measured as it is in memory, whatever a header says."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientResponse, payload
from aiohttp.http import RawResponseMessage
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from aiohttp_adaptive_retry._http.kept import KEPT_BYTES, answer_bytes, body_bytes, error_bytes

INFO = aiohttp.RequestInfo(
    URL("https://h.example/"), "GET", CIMultiDictProxy(CIMultiDict()), URL("https://h.example/")
)
TEXTS = st.text(max_size=50).map(lambda text: text * 20)


@given(
    decoded=st.integers(0, 10**9),
    headers=st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=200)), max_size=20),
    length=st.one_of(st.none(), st.integers(0, 10**9)),
)
def test_an_answer_is_its_decoded_body_and_its_head(
    decoded: int, headers: list[tuple[bytes, bytes]], length: int | None
) -> None:
    """Its Content-Length says nothing: it may be compressed, or that of a HEAD."""
    answer = SimpleNamespace(
        content=SimpleNamespace(total_bytes=decoded),
        content_length=length,
        raw_headers=tuple(headers),
    )
    head = sum(len(name) + len(value) for name, value in headers)
    assert answer_bytes(cast(ClientResponse, answer)) == decoded + head


def test_a_stand_in_for_an_answer_is_empty() -> None:
    """What has no such names is measured without an error."""
    assert answer_bytes(cast(ClientResponse, SimpleNamespace(content=None))) == 0


@given(st.binary(max_size=500))
def test_a_body_is_what_stands_in_memory(data: bytes) -> None:
    """Bytes, texts, buffers and forms of them count; what is read from elsewhere does not."""
    size = len(data)
    assert body_bytes(data) == size
    assert body_bytes(payload.BytesPayload(data)) == size
    assert body_bytes(payload.BytesIOPayload(io.BytesIO(data))) == size
    assert body_bytes(payload.StringPayload("ä" * size)) == 2 * size
    form = aiohttp.MultipartWriter()
    form.append(data)
    form.append(data)
    assert body_bytes(form) == 2 * size


async def test_a_body_from_elsewhere_takes_no_memory() -> None:
    """A file or a generator is read piece by piece."""

    async def pieces() -> Any:
        yield b"x" * 10_000

    assert body_bytes(payload.AsyncIterablePayload(pieces())) == 0
    file = io.BufferedReader(io.FileIO(__file__))
    assert body_bytes(payload.BufferedReaderPayload(file)) == 0
    file.close()


@given(st.lists(st.one_of(TEXTS, st.integers(), st.none()), max_size=5))
def test_an_exception_is_its_texts(values: list[Any]) -> None:
    """Those of its arguments and attributes, and of its causes."""
    size = sum(len(value) for value in values if isinstance(value, str))
    error = aiohttp.ClientPayloadError(*values)
    assert error_bytes(error) == size
    error.__cause__ = ValueError(*values)
    assert error_bytes(error) == 2 * size
    assert error_bytes(aiohttp.ClientPayloadError()) == 0


def head(size: int) -> Any:
    """A response head as aiohttp's parser gives it."""
    raw = ((b"Set-Cookie", b"c" * size),)
    headers = CIMultiDictProxy(CIMultiDict({"Set-Cookie": "c" * size}))
    version = aiohttp.HttpVersion11
    return RawResponseMessage(version, 200, "OK", headers, raw, False, None, False, False)


@pytest.mark.parametrize("size", [1, 10, 400_000])
def test_a_raw_head_in_an_exception_is_always_too_large(size: int) -> None:
    """`ServerDisconnectedError` holds a broken answer's whole head, with its cookies."""
    error = aiohttp.ServerDisconnectedError(head(size))
    assert error_bytes(error) > KEPT_BYTES
    outer = aiohttp.ClientConnectionError("no answer")
    outer.__context__ = error
    assert error_bytes(outer) > KEPT_BYTES
    assert error_bytes(aiohttp.ServerDisconnectedError()) < 100


@pytest.mark.parametrize(("size", "is_small"), [(100, True), (KEPT_BYTES + 1, False)])
def test_headers_in_an_exception_count(size: int, is_small: bool) -> None:
    """A proxy's refusal has its headers, a parse error its text."""
    headers = CIMultiDict({"Retry-After": "1", "X": "y" * size})
    refusal = aiohttp.ClientHttpProxyError(INFO, (), status=503, headers=headers)
    broken = aiohttp.ClientResponseError(INFO, (), status=400, message="m" * size)
    for error in (refusal, broken):
        assert (error_bytes(error) <= KEPT_BYTES) is is_small


def test_a_loop_of_causes_ends() -> None:
    """However exceptions are chained, the measuring ends."""
    one, two = ValueError("x"), ValueError("x")
    one.__cause__, two.__cause__ = two, one
    assert 0 < error_bytes(one) < 100
