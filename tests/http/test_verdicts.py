"""`classify`: what a user says of an answer, and that asking costs the caller nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestServer

from aiohttp_adaptive_retry import (
    AdaptiveConfig,
    AdaptiveRetryMiddleware,
    Verdict,
    call_options,
)
from aiohttp_adaptive_retry._http.verdict import Classify

from ..kit.clock import Clock
from ..kit.faults import hang, raw, redirect, reply
from ..kit.fixtures import Open, Serve

LOGGER = "aiohttp_adaptive_retry"


def judging(
    classify: Classify, clock: Clock | None = None, **fields: Any
) -> AdaptiveRetryMiddleware:
    """A middleware on a fake clock with this `classify`, and tokens enough."""
    clock = Clock() if clock is None else clock
    fields.setdefault("budget_initial", 4.0)
    return AdaptiveRetryMiddleware(
        AdaptiveConfig(**fields),
        classify=classify,
        clock=clock,
        sleep=clock.sleep,
        random=lambda: 0.5,
    )


def always(verdict: Verdict | None) -> Classify:
    return lambda response: verdict


# What the verdicts do.


async def test_a_200_that_is_a_failure_is_retried(serve: Serve, open_session: Open) -> None:
    """`Verdict.retry` makes a failure of any answer, under the name that was given."""
    server = await serve(reply(200, b"busy", headers="X-Busy: 1\r\n"), reply(200, b"done"))

    def classify(response: ClientResponse) -> Verdict | None:
        return Verdict.retry(name="busy") if "X-Busy" in response.headers else None

    retry = judging(classify)
    async with open_session(retry).get(server.url) as response:
        assert await response.text() == "done"
    snapshot = retry.snapshot()
    assert server.hits == 2
    assert snapshot.failures == {"busy": 1}
    assert snapshot.requests.retry_success == 1
    assert snapshot.faults == 0


async def test_a_503_that_is_an_answer_is_a_success(serve: Serve, open_session: Open) -> None:
    """`Verdict.success` takes an answer as what was asked for, whatever its status."""
    server = await serve(reply(503, b"closed for the night"))
    retry = judging(always(Verdict.success()))
    async with open_session(retry).get(server.url) as response:
        assert (response.status, await response.read()) == (503, b"closed for the night")
    assert server.hits == 1
    assert retry.snapshot().requests.first_success == 1
    assert retry.snapshot().failures == {}


async def test_a_failure_for_good_is_handed_back(serve: Serve, open_session: Open) -> None:
    """`Verdict.fail` counts a failure, retries nothing, and leaves the answer readable."""
    server = await serve(reply(200, b'{"error": "quota"}'))
    retry = judging(always(Verdict.fail(name="quota")))
    async with open_session(retry).get(server.url) as response:
        assert (await response.json(content_type=None)) == {"error": "quota"}
    snapshot = retry.snapshot()
    assert server.hits == 1
    assert snapshot.failures == {"quota": 1}
    assert snapshot.suppressed == {"not_retryable": 1}
    assert snapshot.requests.failed_without_retry == 1


async def test_no_evidence_is_handed_back(serve: Serve, open_session: Open) -> None:
    """`Verdict.ignore` retries nothing and teaches nothing, not even of a 503."""
    server = await serve(reply(503))
    retry = judging(always(Verdict.ignore()))
    async with open_session(retry).get(server.url) as response:
        assert (response.status, await response.read()) == (503, b"ok")
    snapshot = retry.snapshot()
    assert server.hits == 1
    assert snapshot.failures == {}
    assert snapshot.requests.ignored == 1
    assert snapshot.origins[0].window_length == 0


@pytest.mark.parametrize("status", [200, 204, 404, 500, 503])
async def test_none_leaves_it_to_the_rules(serve: Serve, open_session: Open, status: int) -> None:
    """Without a verdict each status means what it means without `classify`."""
    asked: list[int] = []

    def classify(response: ClientResponse) -> None:
        asked.append(response.status)

    server = await serve(reply(status, b""), reply(200))
    retry = judging(classify)
    async with open_session(retry).get(server.url) as response:
        retried = status in AdaptiveConfig().retry_statuses
        assert response.status == (200 if retried else status)
    assert asked == ([status, 200] if retried else [status])


async def test_each_hop_of_a_redirect_is_asked_about(serve: Serve, open_session: Open) -> None:
    """Every response head comes by, and a redirect without a verdict is followed."""
    asked: list[int] = []
    server = await serve(redirect("/there"), reply(200))
    retry = judging(lambda response: asked.append(response.status))
    async with open_session(retry).get(server.url) as response:
        assert response.url.path == "/there"
    assert asked == [302, 200]


async def test_a_post_is_not_sent_again_on_a_verdict_alone(
    serve: Serve, open_session: Open
) -> None:
    """`Verdict.retry` does not prove that nothing was processed; an Idempotency-Key vouches."""
    server = await serve(reply(200))
    retry = judging(always(Verdict.retry(name="busy")), max_attempts=2)
    session = open_session(retry)
    async with session.post(server.url, data=b"x") as response:
        assert await response.read() == b"ok"
    assert server.hits == 1
    assert retry.snapshot().suppressed == {"not_idempotent": 1}
    async with session.post(server.url, data=b"x", headers={"Idempotency-Key": "k"}):
        pass
    assert server.hits == 3


async def test_a_post_that_the_caller_vouches_for_is_sent_again(
    serve: Serve, open_session: Open
) -> None:
    """The verdict says that a retry may mend, and the caller that it does no harm."""
    server = await serve(reply(200, b"busy"), reply(200, b"done"))

    async def classify(response: ClientResponse) -> Verdict | None:
        return Verdict.retry() if await response.read() == b"busy" else None

    session = open_session(judging(classify))
    with call_options(idempotent=True):
        async with session.post(server.url, data=b"x") as response:
            assert await response.read() == b"done"
    assert [body.data for body in server.bodies] == [b"x", b"x"]


async def test_a_middleware_that_is_off_asks_nothing(serve: Serve, open_session: Open) -> None:
    """Nor does it retry; one that observes asks, and sends once."""
    asked: list[int] = []

    def classify(response: ClientResponse) -> Verdict:
        asked.append(response.status)
        return Verdict.retry(name="busy")

    server = await serve(reply(200))
    retry = judging(classify)
    session = open_session(retry)
    retry.mode = "off"
    async with session.get(server.url) as response:
        assert await response.read() == b"ok"
    assert asked == []
    retry.mode = "observe"
    async with session.get(server.url) as response:
        assert await response.read() == b"ok"
    assert (asked, server.hits) == ([200], 2)
    assert retry.snapshot().failures == {"busy": 1}


@pytest.mark.parametrize(
    ("header", "after", "waited"),
    [
        ("", 7, 7.0),
        ("", timedelta(seconds=7), 7.0),
        ("Retry-After: 3\r\n", 7, 7.0),
        ("Retry-After: 9\r\n", 7, 9.0),
        ("Retry-After: 9\r\n", None, 9.0),
    ],
)
async def test_the_wait_is_never_shorter_than_asked_for(
    serve: Serve,
    open_session: Open,
    header: str,
    after: float | timedelta | None,
    waited: float,
) -> None:
    """`after` and the server's Retry-After both hold: the longer one counts."""
    clock = Clock()
    server = await serve(reply(200, headers=f"X-Busy: 1\r\n{header}"), reply(200))

    def classify(response: ClientResponse) -> Verdict | None:
        return Verdict.retry(after=after) if "X-Busy" in response.headers else None

    async with open_session(judging(classify, clock)).get(server.url):
        pass
    assert server.hits == 2
    assert waited <= sum(clock.waits) <= 2 * waited


async def test_a_wait_above_the_cap_hands_back(serve: Serve, open_session: Open) -> None:
    """`Verdict.retry(after=)` above `retry_after_cap` is not waited for, not even in part."""
    clock = Clock()
    server = await serve(reply(200))
    retry = judging(always(Verdict.retry(after=31)), clock)
    async with open_session(retry).get(server.url) as response:
        assert await response.read() == b"ok"
    assert (server.hits, clock.waits) == (1, [])
    assert retry.snapshot().suppressed == {"retry_after": 1}


async def test_a_name_goes_through_the_catalogue(serve: Serve, open_session: Open) -> None:
    """However many and long the names are, what is kept of them is bounded."""
    server = await serve(reply(200, b""))
    names = iter(range(1000))
    retry = judging(lambda response: Verdict.fail(name=f"{next(names)}" + "x" * 10_000))
    session = open_session(retry)
    for _ in range(300):
        async with session.get(server.url):
            pass
    failures = retry.snapshot().failures
    assert len(failures) <= 255
    assert failures["_OTHER"] == 46
    assert max(map(len, failures)) == 64


# Reading the body, and reading it again.

BODY = b"first\nsecond\n" + bytes(range(256)) * 300


async def iterated(chunks: Any) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def by_chunks(response: ClientResponse) -> bytes:
    """As the documentation of aiohttp puts HTTP chunks together."""
    whole, part = b"", b""
    async for data, ends in response.content.iter_chunks():
        part += data
        if ends:
            whole, part = whole + part, b""
    return whole + part


async def by_lines(response: ClientResponse) -> bytes:
    assert await response.content.readline() == b"first\n"
    assert await response.content.readline() == b"second\n"
    return b"first\nsecond\n" + await response.content.read()


async def until_the_end(response: ClientResponse) -> bytes:
    blocks = []
    while not response.content.at_eof():
        blocks.append(await response.content.read(1000))
    return b"".join(blocks)


async def by_text(response: ClientResponse) -> bytes:
    return (await response.text("latin-1")).encode("latin-1")


async def twice(response: ClientResponse) -> bytes:
    assert await response.read() == BODY
    return await response.read()


WAYS: dict[str, Callable[[ClientResponse], Awaitable[bytes]]] = {
    "read": lambda response: response.read(),
    "read twice": twice,
    "text": by_text,
    "content.read": lambda response: response.content.read(),
    "read(n)": until_the_end,
    "readexactly": lambda response: response.content.readexactly(len(BODY)),
    "readany": lambda response: iterated(response.content.iter_any()),
    "readline": by_lines,
    "lines": lambda response: iterated(response.content),
    "iter_chunked": lambda response: iterated(response.content.iter_chunked(7)),
    "iter_chunks": by_chunks,
}


async def read_it_all(response: ClientResponse) -> None:
    assert await response.read() == BODY


async def read_as_a_stream(response: ClientResponse) -> None:
    assert await iterated(response.content.iter_chunked(999)) == BODY


async def look_at_the_beginning(response: ClientResponse) -> None:
    assert await response.content.readexactly(3) == b"fir"
    assert await response.content.readline() == b"st\n"


async def read_nothing(response: ClientResponse) -> None:
    """An async function that needs the head alone."""


PLAIN = reply(200, BODY)
LATE = reply(200, BODY, split=0.02)
CHUNKED = raw(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"".join(
        f"{len(part):x}\r\n".encode() + part + b"\r\n"
        for part in (BODY[:5], BODY[5:70_000], BODY[70_000:])
    )
    + b"0\r\n\r\n"
)


GZIPPED = reply(200, gzip.compress(BODY), headers="Content-Encoding: gzip\r\n")


@pytest.mark.parametrize(
    "answer", [PLAIN, LATE, CHUNKED, GZIPPED], ids=["plain", "late", "chunked", "gzipped"]
)
@pytest.mark.parametrize(
    "classify", [read_it_all, read_as_a_stream, look_at_the_beginning, read_nothing]
)
async def test_every_way_of_reading_works_afterwards(
    serve: Serve, open_session: Open, classify: Any, answer: Any
) -> None:
    """Whatever `classify` has read, the caller reads the whole body, in whichever way."""
    server = await serve(answer)
    session = open_session(retry := judging(classify), limit=1)
    for way, read in WAYS.items():
        async with session.get(server.url) as response:
            assert await read(response) == BODY, way
            if not way.startswith(("read", "text")) or way == "read(n)":
                assert response.content.at_eof(), way
    assert retry.snapshot().faults == 0
    assert server.connections == 1


async def test_json_can_be_read_twice(serve: Serve, open_session: Open) -> None:
    """The case that all of this is for: a 200 with an error in its body."""
    bodies = [{"errors": ["busy"]}, {"data": 1}]
    server = await serve(
        *(
            reply(200, json.dumps(body).encode(), headers="Content-Type: application/json\r\n")
            for body in bodies
        )
    )

    async def classify(response: ClientResponse) -> Verdict | None:
        answer = await response.json()
        return Verdict.retry(name="busy") if "errors" in answer else None

    retry = judging(classify)
    async with open_session(retry).get(server.url) as response:
        assert await response.json() == {"data": 1}
    assert (server.hits, retry.snapshot().faults) == (2, 0)


async def test_the_last_answer_of_a_call_that_failed_can_be_read(
    serve: Serve, open_session: Open
) -> None:
    """A body that `classify` has read is there when retries end, too."""
    server = await serve(reply(200, BODY))

    async def classify(response: ClientResponse) -> Verdict:
        await response.read()
        return Verdict.retry(name="busy")

    async with open_session(judging(classify, max_attempts=3)).get(server.url) as response:
        assert await response.content.read() == BODY
    assert server.hits == 3


async def test_a_body_that_breaks_off_is_a_failed_attempt(serve: Serve, open_session: Open) -> None:
    """What breaks while `classify` reads is the network's fault and no fault of `classify`."""
    cut = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf", then="close")
    server = await serve(cut, reply(200, BODY))
    retry = judging(read_it_all)
    async with open_session(retry).get(server.url) as response:
        assert await response.read() == BODY
    assert retry.snapshot().failures == {"ClientPayloadError": 1}
    assert retry.snapshot().faults == 0
    assert server.hits == 2


async def test_a_body_that_always_breaks_off_is_handed_back(
    serve: Serve, open_session: Open
) -> None:
    """The caller meets what it would meet without us: an answer that can't be read."""
    server = await serve(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf", then="close"))
    retry = judging(read_it_all, max_attempts=2)
    async with open_session(retry).get(server.url) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert server.hits == 2
    assert retry.snapshot().requests.failed_after_retry == 1


async def test_reading_ends_at_the_calls_deadline(serve: Serve, open_session: Open) -> None:
    """`total` ends a call whose `classify` waits for a body that does not come."""
    server = await serve(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf", then="hang"))
    retry = judging(read_it_all)
    session = open_session(retry, timeout=aiohttp.ClientTimeout(total=0.2))
    with pytest.raises(TimeoutError):
        await session.get(server.url)
    assert retry.snapshot().requests.ignored == 1
    assert (server.hits, retry.snapshot().faults) == (1, 0)


async def test_a_limit_of_its_own_is_its_own(serve: Serve, open_session: Open) -> None:
    """A `classify` that gives up on a slow body by itself leaves the call alive."""
    server = await serve(reply(200, BODY, split=0.3))

    async def classify(response: ClientResponse) -> None:
        async with asyncio.timeout(0.05):
            await response.content.read(1)

    retry = judging(classify)
    session = open_session(retry, timeout=aiohttp.ClientTimeout(total=5))
    async with session.get(server.url) as response:
        assert await response.content.read() == BODY
    assert retry.snapshot().faults == 1


async def test_a_cancelled_call_lets_go_of_its_answer(serve: Serve, open_session: Open) -> None:
    """Cancelled while `classify` reads: no connection is left, and nothing is learnt."""
    server = await serve(hang())
    entered = asyncio.Event()

    async def classify(response: ClientResponse) -> None:
        entered.set()
        await asyncio.Event().wait()

    server = await serve(reply(200))
    session = open_session(retry := judging(classify), limit=1)
    call = asyncio.create_task(session.get(server.url).__aenter__())
    await entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert retry.snapshot().requests.ignored == 1
    async with asyncio.timeout(5), session.get(server.url, middlewares=()) as response:
        assert response.status == 200


# A `classify` that is wrong.


def raises(response: ClientResponse) -> None:
    raise RuntimeError(f"secret {response.url}")


async def raises_later(response: ClientResponse) -> None:
    await response.read()
    raise KeyError("secret")


@pytest.mark.parametrize(
    "classify",
    [raises, raises_later, lambda response: True, lambda response: "retry"],
    ids=["raises", "raises_later", "a bool", "a str"],
)
async def test_a_wrong_classify_changes_nothing(
    serve: Serve, open_session: Open, classify: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once and counted each time, and the built-in rules hold."""
    server = await serve(reply(503), reply(200, BODY))
    session = open_session(retry := judging(classify))
    for _ in range(2):
        async with session.get(f"{server.url}?token=secret") as response:
            assert (response.status, await response.content.read()) == (200, BODY)
    assert server.hits == 3
    assert retry.snapshot().faults == 3
    (record,) = (record for record in caplog.records if record.name == LOGGER)
    assert record.levelno == logging.ERROR
    text = record.getMessage()
    assert "classify" in text
    assert "secret" not in text
    if classify in (raises, raises_later):
        assert f"{__file__}:" in text


async def test_a_fault_of_ours_does_not_hide_one_of_classify(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each user's function is logged once, whatever was logged before."""
    retry = judging(raises)
    retry._faults(RuntimeError())
    for name in ("classify", "on_event", "classify"):
        retry._faults.of_callback(name, ValueError())
    texts = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(texts) == 3
    assert retry.snapshot().faults == 4


@pytest.mark.parametrize("wrong", [5, "classify", Verdict.ignore()])
def test_classify_must_be_callable(wrong: Any) -> None:
    """What can't be called is refused when the middleware is made."""
    with pytest.raises(TypeError, match="classify must be callable"):
        AdaptiveRetryMiddleware(classify=wrong)


@pytest.mark.parametrize(
    ("make", "kind", "text"),
    [
        (lambda: Verdict.retry(after=-1), ValueError, "after must be >= 0"),
        (lambda: Verdict.retry(after=float("nan")), ValueError, "after must be .* got nan"),
        (lambda: Verdict.retry(after=float("inf")), ValueError, "after must be .* got inf"),
        (lambda: Verdict.retry(after=timedelta(seconds=-1)), ValueError, "after must be >= 0"),
        (lambda: Verdict.retry(after=True), TypeError, "after must be a number"),
        (lambda: Verdict.retry(after="1"), TypeError, "after must be a number"),  # type: ignore[arg-type]
        (lambda: Verdict.retry(name=""), ValueError, "name must not be empty"),
        (lambda: Verdict.fail(name=5), TypeError, "name must be a str"),  # type: ignore[arg-type]
        (lambda: Verdict("maybe"), ValueError, "kind must be one of"),  # type: ignore[arg-type]
        (lambda: Verdict("fail", 5.0), ValueError, "after is for retry"),
        (lambda: Verdict("ignore", name="x"), ValueError, "name is for retry and fail"),
    ],
    ids=range(11),
)
def test_a_wrong_verdict_is_refused(
    make: Callable[[], Verdict], kind: type[Exception], text: str
) -> None:
    """The text names the field and its value, where the verdict is made."""
    with pytest.raises(kind, match=text):
        make()


def test_verdicts_are_values() -> None:
    """Equal verdicts are equal, and seconds may be a timedelta."""
    assert Verdict.retry(after=timedelta(seconds=2)) == Verdict.retry(after=2.0)
    assert Verdict("retry", timedelta(seconds=2)) == Verdict.retry(2)  # type: ignore[arg-type]
    assert hash(Verdict.success()) == hash(Verdict.success())
    assert Verdict.fail() != Verdict.ignore()


async def test_a_post_whose_answer_breaks_off_is_not_sent_again(
    serve: Serve, open_session: Open
) -> None:
    """An answer that began was processed, however much `classify` saw of it."""
    cut = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf", then="close")
    server = await serve(cut, reply(200))
    async with open_session(retry := judging(read_it_all)).post(server.url, data=b"x") as response:
        assert response.status == 200
    assert server.hits == 1
    assert retry.snapshot().suppressed == {"not_idempotent": 1}


@pytest.mark.parametrize(
    "answer",
    [
        reply(403),
        reply(403, headers="X-RateLimit-Remaining: 0\r\n"),
        reply(503, headers="x-should-retry: false\r\n"),
        reply(200, headers="grpc-retry-pushback-ms: -1\r\n"),
    ],
    ids=["403", "403 without a moment", "the server says no", "pushback"],
)
async def test_the_users_word_goes_over_the_servers(
    serve: Serve, open_session: Open, answer: Any
) -> None:
    """`Verdict.retry` retries what the server's status and headers would hand back."""
    server = await serve(answer, reply(200, b"done"))

    async def classify(response: ClientResponse) -> Verdict | None:
        return None if await response.read() == b"done" else Verdict.retry(name="again")

    async with open_session(judging(classify)).get(server.url) as response:
        assert await response.read() == b"done"
    assert server.hits == 2


@pytest.mark.parametrize("classify", [read_nothing, lambda response: None], ids=["async", "sync"])
@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_without_a_body_stays_one(
    serve: Serve, open_session: Open, classify: Any, method: str, status: int
) -> None:
    """Where there is nothing to read nothing is put back."""

    async def reads(response: ClientResponse) -> None:
        assert await response.read() == b""

    server = await serve(reply(status, b""))
    for judge in (classify, reads):
        retry = judging(judge)
        async with open_session(retry).request(method, server.url) as response:
            assert await response.content.read() == await response.read() == b""
        assert retry.snapshot().faults == 0


async def test_a_websocket_is_asked_about_and_works(open_session: Open) -> None:
    """Its handshake is an answer like any other."""

    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    app = web.Application()
    app.router.add_get("/", echo)
    async with TestServer(app) as server:
        asked: list[int] = []

        async def classify(response: ClientResponse) -> None:
            asked.append(response.status)

        retry = judging(classify)
        async with open_session(retry).ws_connect(server.make_url("/")) as socket:
            await socket.send_str("hello")
            assert await socket.receive_str() == "hello"
    assert asked == [101]
    assert retry.snapshot().requests.first_success == 1
