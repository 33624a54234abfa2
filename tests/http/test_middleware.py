"""The loop itself, on a fake clock: outcomes, reasons, counts, and what a call leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientRequest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
from aiohttp_adaptive_retry._http import replay

from ..kit.clock import Clock
from ..kit.fakes import Request, Response, Rig, Upstream
from ..kit.metrics import by

UNREACHED = aiohttp.ConnectionTimeoutError()
REFUSED = aiohttp.ClientOSError(111, "refused")


@pytest.fixture(autouse=True)
def no_tracebacks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Errors among a module's values and a test's parameters live for ever; the calls that their
    tracebacks hold must not, as other tests of the process count those that are left."""
    yield
    parameters = getattr(request.node, "callspec", None)
    script = parameters.params.get("script", ()) if parameters is not None else ()
    for step in (REFUSED, *script):
        if isinstance(step, BaseException):
            step.__traceback__ = None


async def test_a_failure_is_mended() -> None:
    """503 and then 200: the caller sees 200, the first answer is released before the wait."""
    first = Response(503)
    rig = Rig([first, 200])
    response = await rig.call()
    assert response.status == 200
    assert first.released
    assert rig.upstream.hits == 2
    assert len(rig.clock.waits) == 1
    snapshot = rig.middleware.snapshot()
    assert snapshot.requests.retry_success == snapshot.requests.total == 1
    assert snapshot.attempts == {"original": 1, "retry": 1}
    assert snapshot.failures == {"503": 1}
    assert snapshot.suppressed == {}


async def test_the_last_answer_is_handed_back_unreleased() -> None:
    """When attempts run out, the caller gets the last response as it came."""
    answers = [Response(503) for _ in range(3)]
    rig = Rig(answers, max_attempts=3, budget_initial=2)
    response = await rig.call()
    assert response is cast(object, answers[2])
    assert [answer.released for answer in answers] == [True, True, False]
    snapshot = rig.middleware.snapshot()
    assert snapshot.requests.failed_after_retry == 1
    assert snapshot.suppressed == {"max_attempts": 1}


async def test_the_last_exception_is_raised_itself() -> None:
    """The very exception of the last attempt, without a chain of ours around it."""
    errors = [aiohttp.ServerDisconnectedError(str(n)) for n in range(2)]
    rig = Rig(errors, max_attempts=2)
    with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
        await rig.call()
    assert caught.value is errors[1]
    assert caught.value.__context__ is None


@pytest.mark.parametrize("attempts", [1, 2, 3, 7])
async def test_attempts_never_exceed_the_limit(attempts: int) -> None:
    """One call sends at most `max_attempts`, and exactly one reason is counted."""
    rig = Rig([503], max_attempts=attempts, budget_initial=10)
    await rig.call()
    assert rig.upstream.hits == attempts
    assert rig.middleware.snapshot().suppressed == {"max_attempts": 1}


@pytest.mark.parametrize(
    ("script", "method", "fields", "outcome", "reason"),
    [
        ([200], "GET", {}, "first_success", None),
        ([404], "GET", {}, "first_success", None),
        ([301], "GET", {}, "first_success", None),
        ([503, 200], "GET", {}, "retry_success", None),
        ([503, 404], "GET", {}, "retry_success", None),
        ([503], "POST", {}, "failed_without_retry", "not_idempotent"),
        ([503], "POST", {"max_attempts": 1}, "failed_without_retry", "not_idempotent"),
        ([503], "GET", {"max_attempts": 1}, "failed_without_retry", "max_attempts"),
        ([503], "GET", {"retry_methods": ["POST"]}, "failed_without_retry", "not_idempotent"),
        ([503, 200], "POST", {"retry_methods": ["POST"]}, "retry_success", None),
        ([429], "GET", {"budget_initial": 0}, "failed_without_retry", "budget_exhausted"),
        ([429], "GET", {"budget_initial": 1}, "failed_after_retry", "budget_exhausted"),
        ([503, 200], "GET", {"budget_initial": 0}, "retry_success", None),
        ([503], "GET", {"retry_statuses": [429]}, "first_success", None),
        ([REFUSED], "GET", {"max_attempts": 2}, "failed_after_retry", "max_attempts"),
        ([aiohttp.SocketTimeoutError()], "GET", {}, "failed_after_retry", "origin_down"),
        (
            [aiohttp.SocketTimeoutError()],
            "GET",
            {"hold_cap": 0, "max_attempts": 3},
            "failed_after_retry",
            "max_attempts",
        ),
        ([ValueError()], "GET", {}, "ignored", None),
        ([TimeoutError()], "GET", {}, "ignored", None),
        ([asyncio.CancelledError()], "GET", {}, "ignored", None),
        ([aiohttp.ClientError()], "GET", {}, "ignored", None),
        ([aiohttp.ClientConnectionError(), 200], "GET", {}, "retry_success", None),
        ([UNREACHED, 200], "POST", {}, "retry_success", None),
        ([UNREACHED], "POST", {"resend": "never"}, "failed_without_retry", "not_idempotent"),
        ([429, 200], "POST", {}, "retry_success", None),
        ([503, TimeoutError()], "GET", {}, "ignored", None),
        (
            [aiohttp.ServerFingerprintMismatch(b"", b"", "h", 1)],
            "GET",
            {},
            "failed_without_retry",
            "not_retryable",
        ),
        (
            [aiohttp.ServerFingerprintMismatch(b"", b"", "h", 1)],
            "GET",
            {"max_attempts": 1},
            "failed_without_retry",
            "max_attempts",
        ),
    ],
)
async def test_outcomes_and_reasons(
    script: list[Any], method: str, fields: dict[str, Any], outcome: str, reason: str | None
) -> None:
    """Each call has exactly one outcome, and one reason exactly if it ended in failure."""
    fields.setdefault("budget_initial", 4)
    rig = Rig(script, **fields)
    raised: list[BaseException] = []
    try:
        await rig.call(method=method)
    except BaseException as error:
        raised.append(error)
    assert raised == [step for step in script[-1:] if isinstance(step, BaseException)]
    snapshot = rig.middleware.snapshot()
    assert getattr(snapshot.requests, outcome) == snapshot.requests.total == 1
    assert snapshot.suppressed == ({reason: 1} if reason else {})
    assert sum(snapshot.attempts.values()) == rig.upstream.hits
    assert snapshot.faults == 0
    assert snapshot.origins[0].in_flight == 0


async def test_ignored_attempts_are_no_evidence() -> None:
    """What says nothing about the server is not in the window and counts as no failure."""
    rig = Rig([TimeoutError(), asyncio.CancelledError(), KeyError()])
    for _ in range(3):
        with pytest.raises((TimeoutError, asyncio.CancelledError, KeyError)):
            await rig.call()
    snapshot = rig.middleware.snapshot()
    assert snapshot.origins[0].window_length == 0
    assert snapshot.failures == {}


async def test_idempotency_key_is_the_callers_word() -> None:
    """A POST that carries the header is retried."""
    rig = Rig([503, 200])
    request = Request(method="POST")
    request.headers["idempotency-key"] = "k"
    response = await rig.middleware(cast(ClientRequest, request), rig.upstream)
    assert response.status == 200


async def test_sixty_calls_into_a_dead_origin_cost_at_most_five_retries() -> None:
    """A fresh one affords one; after that calls look for themselves, and ever less often."""
    rig = Rig([REFUSED])
    for _ in range(60):
        with pytest.raises(aiohttp.ClientOSError):
            await rig.call()
    assert 60 + 1 <= rig.upstream.hits <= 60 + 5


async def test_a_mended_retry_gives_its_token_back() -> None:
    """Failures that retries mend never exhaust the budget."""
    rig = Rig([503, 200] * 500)
    for _ in range(500):
        assert (await rig.call()).status == 200
    assert rig.middleware.snapshot().origins[0].budget_available == 20.0


@pytest.mark.parametrize("moment", ["wait", "attempt"])
async def test_a_cancelled_call_gives_its_token_back(moment: str) -> None:
    """Cancelled in its wait or in its retry, a call leaves the budget as it was."""
    rig = Rig([503])
    entered = asyncio.Event()

    async def stay() -> Any:
        entered.set()
        await asyncio.sleep(3600)

    if moment == "wait":
        rig.clock.meanwhile = stay
        handler: Any = rig.upstream
    else:
        hits = 0

        async def handler(request: ClientRequest) -> Any:
            nonlocal hits
            hits += 1
            return await (stay() if hits == 2 else rig.upstream(request))

    task = asyncio.ensure_future(rig.middleware(cast(ClientRequest, Request()), handler))
    await entered.wait()
    before = rig.middleware.snapshot().origins[0]
    assert before.in_flight == 1
    assert before.budget_available == 0.0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    after = rig.middleware.snapshot()
    assert after.requests.ignored == 1
    assert after.origins[0].in_flight == 0
    assert after.origins[0].budget_available == 1.0
    assert after.suppressed == {}


async def test_no_wait_is_begun_for_a_retry_that_cannot_be_paid() -> None:
    """The token is reserved before the wait: calls that wait together can't share one."""
    rig = Rig([429], budget_initial=1, budget_floor=0, max_attempts=2, hold_cap=0)
    await asyncio.gather(*(rig.call() for _ in range(10)))
    assert rig.upstream.hits == 11
    assert len(rig.clock.waits) == 1


@pytest.mark.parametrize(
    ("header", "waits"),
    [
        ("7", (7.0, 14.0)),
        ("0", (0.0, 0.2)),
        ("soon", (0.0, 0.2)),
        ("-5", (0.0, 0.2)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", (0.0, 0.2)),
    ],
)
async def test_retry_after_is_heeded(header: str, waits: tuple[float, float]) -> None:
    """What the server asks for is the least that is waited; nonsense means the usual pace."""
    rig = Rig([Response(503, {"Retry-After": header}), 200])
    assert (await rig.call()).status == 200
    assert waits[0] <= rig.clock.waits[0] <= waits[1]


async def test_a_retry_after_beyond_the_cap_is_handed_back() -> None:
    """Nobody waits for an hour; the caller sees what the server said."""
    answer = Response(429, {"Retry-After": "3600"})
    rig = Rig([answer])
    assert await rig.call() is cast(object, answer)
    assert not answer.released
    assert rig.clock.waits == []
    assert rig.middleware.snapshot().suppressed == {"retry_after": 1}


async def test_attempt_timeout_ends_one_attempt() -> None:
    """Each attempt has its own time; when all time out, the caller catches TimeoutError."""
    rig = Rig(attempt_timeout=0.01, max_attempts=3, budget_initial=2)
    hits = 0

    async def hang(_: ClientRequest) -> Any:
        nonlocal hits
        hits += 1
        await asyncio.sleep(3600)

    with pytest.raises(TimeoutError) as caught:
        await rig.middleware(cast(ClientRequest, Request()), hang)
    assert isinstance(caught.value, aiohttp.ServerTimeoutError)
    assert hits == 3
    assert rig.middleware.snapshot().failures == {"ServerTimeoutError": 3}


async def test_a_bare_timeout_inside_attempt_timeout_is_still_the_callers() -> None:
    """`total` firing within an attempt is final also where attempts have a limit of their own."""
    rig = Rig([TimeoutError()], attempt_timeout=60)
    with pytest.raises(TimeoutError) as caught:
        await rig.call()
    assert type(caught.value) is TimeoutError
    assert rig.upstream.hits == 1
    assert rig.middleware.snapshot().requests.ignored == 1


@pytest.mark.parametrize("reading", [math.nan, math.inf, -math.inf, -1.0, 1e300])
async def test_a_clock_that_leaps_breaks_no_call(reading: float) -> None:
    """Whatever the clock says next, calls are made, retried and counted."""
    rig = Rig([200, 503, 200])
    await rig.call()
    rig.clock.now = reading
    assert (await rig.call()).status == 200
    rig.clock.now = 2000.0
    assert (await rig.call()).status == 200
    assert rig.middleware.snapshot().requests.total == 3
    assert rig.middleware.snapshot().faults == 0


async def test_nothing_of_a_call_outlives_it() -> None:
    """Request, response and exception are collectable as soon as the call is over."""

    class Marker(Exception):
        pass

    rig = Rig([503, REFUSED, aiohttp.ServerDisconnectedError(), ValueError()])
    refs: list[weakref.ref[Any]] = []

    async def call() -> None:
        request, answer = Request(), Response(503)
        error = aiohttp.ServerDisconnectedError()
        error.marker = Marker()  # type: ignore[attr-defined]
        refs.extend(map(weakref.ref, (request, answer, error, error.marker)))  # type: ignore[attr-defined]
        handler = Upstream([answer, error])
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await rig.middleware(cast(ClientRequest, request), handler)

    gc.collect()
    gc.disable()  # by reference counts alone: a cycle of ours would keep them until some collection
    try:
        await call()
    finally:
        gc.enable()
    gc.collect()
    assert [ref() for ref in refs] == [None] * 4


@pytest.mark.parametrize(("size", "kept"), [(16 * 1024, True), (16 * 1024 + 1, False)])
async def test_what_is_held_during_the_wait(size: int, kept: bool) -> None:
    """A small answer, as the session may be closed meanwhile; afterwards it is collectable."""
    rig, alive = Rig(), []
    answers = [Response(200), Response(503)]
    content: Any = SimpleNamespace(is_eof=lambda: True, total_bytes=size)
    answers[-1].content = content
    failed = weakref.ref(answers[-1])

    async def handler(request: ClientRequest) -> Any:
        return answers.pop()

    async def look() -> None:
        alive.append(failed() is not None)

    rig.clock.meanwhile = look
    gc.disable()
    try:
        response = await rig.middleware(cast(ClientRequest, Request()), handler)
    finally:
        gc.enable()
    assert response.status == 200
    assert alive == [kept]
    assert failed() is None


async def test_middlewares_are_hashable_and_plain() -> None:
    """aiohttp caches chains by middleware; making one starts no task and no thread."""
    import threading

    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    middleware = AdaptiveRetryMiddleware(meter_provider=NoOpMeterProvider())
    assert {middleware: 1}[middleware] == 1
    assert len(asyncio.all_tasks()) == tasks
    assert threading.active_count() == threads
    assert not asyncio.iscoroutine(middleware)


async def test_the_resend_count_is_on_the_current_span() -> None:
    """A recording span learns how often the request was sent again."""
    tracer = TracerProvider().get_tracer("test")
    rig = Rig([503, 503, 200], budget_initial=2)
    with tracer.start_as_current_span("call") as span:
        await rig.call()
    assert (span.attributes or {})["http.request.resend_count"] == 2  # type: ignore[attr-defined]
    with tracer.start_as_current_span("call") as span:
        await rig.call()
    assert "http.request.resend_count" not in (span.attributes or {})  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(
    scripts=st.lists(
        st.lists(st.sampled_from([200, 404, 503, 429, "refused", "timeout", "bug"]), max_size=6),
        min_size=1,
        max_size=12,
    ),
    attempts=st.integers(1, 5),
    initial=st.integers(0, 10),
)
def test_books_balance(scripts: list[list[Any]], attempts: int, initial: int) -> None:
    """Attempts are what was sent, outcomes are the calls, one reason each failure."""
    table: dict[Any, Any] = {
        "refused": REFUSED,
        "timeout": aiohttp.SocketTimeoutError(),
        "bug": RuntimeError(),
    }

    async def run() -> None:
        rig = Rig([200], max_attempts=attempts, budget_initial=initial, budget_floor=0)
        for script in scripts:
            rig.upstream._script = iter([table.get(step, step) for step in script])
            rig.upstream._step = 200
            before = rig.upstream.hits
            with contextlib.suppress(Exception):
                await rig.call()
            assert rig.upstream.hits - before <= attempts
        snapshot = rig.middleware.snapshot()
        assert sum(snapshot.attempts.values()) == rig.upstream.hits
        assert snapshot.attempts["original"] == snapshot.requests.total == len(scripts)
        failed = snapshot.requests.failed_after_retry + snapshot.requests.failed_without_retry
        assert sum(snapshot.suppressed.values()) == failed
        assert 0 <= snapshot.origins[0].budget_available <= snapshot.origins[0].budget_limit
        assert snapshot.origins[0].in_flight == 0
        metrics = rig.metrics()
        assert by(metrics["adaptive_retry.attempts"], "adaptive_retry.attempt.type") == dict(
            snapshot.attempts
        )

    asyncio.run(run())


def test_one_object_serves_two_loops_one_after_the_other() -> None:
    """Nothing is bound to the loop on which it was made or first used."""
    rig = Rig([503, 200, 503, 200])
    assert asyncio.run(rig.call()).status == 200
    assert asyncio.run(rig.call()).status == 200
    assert rig.middleware.snapshot().requests.retry_success == 2


def test_it_can_be_made_without_a_loop() -> None:
    """At import time, in a module's globals, where most people make it."""
    assert AdaptiveRetryMiddleware(clock=Clock()).snapshot().requests.total == 0


async def test_a_session_at_the_address_of_an_earlier_one_is_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A program that makes a session for each call gets its own errors, and all calls are sent."""
    # Everything stands at one address.
    monkeypatch.setattr(replay, "id", lambda value: 1, raising=False)
    rig = Rig([REFUSED, 200], max_attempts=1)
    with pytest.raises(aiohttp.ClientOSError):
        await rig.call()
    response = await rig.call()
    assert response.status == 200
    assert rig.upstream.hits == 2
