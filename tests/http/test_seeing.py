"""Seeing one call: events, log lines, notes on exceptions, and reports."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import pickle
import weakref
from collections.abc import Iterable
from dataclasses import FrozenInstanceError
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import ClientRequest, ClientResponse
from aiohttp.client_reqrep import ConnectionKey
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from aiohttp_adaptive_retry import (
    AdaptiveConfig,
    AdaptiveRetryMiddleware,
    CallReport,
    OriginUnavailable,
    RetryEvent,
    Verdict,
    report,
)
from aiohttp_adaptive_retry.policy import (
    SEND,
    Action,
    AttemptOutcome,
    CallView,
    FixedPolicy,
    Wait,
)

from ..kit.calls import retrying
from ..kit.fakes import Response, Rig, Step
from ..kit.faults import close, redirect, reply, reset
from ..kit.fixtures import Open, Serve
from .rigs import rig_with

LOGGER = "aiohttp_adaptive_retry"
NAME = "http://upstream.example:8080"


def refused() -> aiohttp.ClientConnectorError:
    """A connection that nobody accepted."""
    key = ConnectionKey("h", 80, False, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(111, "refused"))


class Heard(list[RetryEvent]):
    """What `on_event` was told."""

    def __call__(self, event: RetryEvent) -> None:
        self.append(event)

    def kinds(self) -> list[str]:
        return [event.kind for event in self]

    def of(self, kind: str) -> RetryEvent:
        (event,) = (event for event in self if event.kind == kind)
        return event


def heard(script: Iterable[Step], **fields: Any) -> tuple[Rig, Heard]:
    """A rig, and the events of its calls."""
    events = Heard()
    parts = {"on_event": events, **fields.pop("parts", {})}
    fields.setdefault("budget_initial", 4.0)
    return rig_with(script, parts, **fields), events


def fixed(attempts: int = 3) -> dict[str, Any]:
    """A policy that waits by the book, so that numbers can be told beforehand."""
    return {"policy": lambda origin: FixedPolicy(attempts, random=lambda: 0.5)}


# Events.


async def test_a_call_that_succeeds_at_once_tells_nothing() -> None:
    """Neither on the fast path nor beside it."""
    rig, events = heard([200])
    for _ in range(50):
        await rig.call()
        rig.clock.now += 0.005
    assert events == []


async def test_a_first_success_takes_the_same_way_with_on_event() -> None:
    """Successes are only written down, as many with `on_event` as without."""
    written = []
    for parts in ({}, {"on_event": Heard()}):
        rig = rig_with([200], parts)
        for _ in range(50):
            await rig.call()
            rig.clock.now += 0.001
        (origin,) = rig.middleware._registry.listed()
        written.append(origin.window.fast_total)
    assert written[0] == written[1] > 40


async def test_a_mended_call_tells_of_its_retries_and_its_end() -> None:
    """One event for each retry, before its wait, and one for the end."""
    rig, events = heard([503, aiohttp.ServerTimeoutError(), 200], parts=fixed())
    await rig.call(method="PUT")
    first, second = rig.clock.waits
    told = [event for event in events if event.kind != "state"]
    assert {(event.origin, event.method) for event in told} == {(NAME, "PUT")}
    assert [(event.kind, event.attempt, event.error_type) for event in told] == [
        ("retry", 1, "503"),
        ("retry", 2, "ServerTimeoutError"),
        ("mended", 3, "ServerTimeoutError"),
    ]
    assert [event.delay for event in told] == [first, second, 0.0]
    assert [event.elapsed for event in told] == pytest.approx([0.0, first, first + second])
    assert {event.reason for event in told} == {None}


async def test_a_retry_is_told_before_its_wait() -> None:
    """Whoever shows progress wants to know how long it will take."""
    rig, events = heard([503, 200], parts=fixed())
    told_in_the_wait: list[str] = []

    async def look() -> None:
        told_in_the_wait.extend(events.kinds())

    rig.clock.meanwhile = look
    await rig.call()
    assert told_in_the_wait == ["retry"]


@pytest.mark.parametrize(
    ("script", "method", "fields", "attempts", "reason", "error_type"),
    [
        ([503], "GET", {"max_attempts": 3}, 3, "max_attempts", "503"),
        ([503], "POST", {}, 1, "not_idempotent", "503"),
        ([503], "GET", {"max_attempts": 1}, 1, "max_attempts", "503"),
        (
            [Response(503, {"Retry-After": "99"})],
            "GET",
            {},
            1,
            "retry_after",
            "503",
        ),
    ],
    ids=range(4),
)
async def test_a_call_that_is_given_up_says_why(
    script: list[Step],
    method: str,
    fields: dict[str, Any],
    attempts: int,
    reason: str,
    error_type: str,
) -> None:
    """`give_up` has the reason that is counted, and the report has it too."""
    rig, events = heard(script, **fields)
    response = await rig.call(method=method)
    event = events.of("give_up")
    assert (event.attempt, event.reason, event.error_type) == (attempts, reason, error_type)
    assert (event.delay, event.elapsed) == (0.0, rig.clock.now - 1000.0)
    assert rig.middleware.snapshot().suppressed == {reason: 1}
    found = report(response)
    assert found is not None
    assert (found.attempts, found.reason) == (attempts, reason)
    assert found.error_types == (error_type,) * attempts
    assert events.kinds().count("retry") == attempts - 1


async def test_a_held_call_tells_of_the_hold_once_and_of_its_release() -> None:
    """`hold` when it begins, however often the call asks again; `retry` when it is let go."""
    rig, events = held_call()
    response = await rig.call()
    assert events.kinds() == ["hold", "retry", "mended"]
    hold, retry, mended = events
    assert (hold.attempt, retry.attempt, mended.attempt) == (1, 1, 2)
    assert hold.delay > 0.0
    assert retry.delay == 0.0
    found = report(response)
    assert found is not None
    assert found.held == pytest.approx(found.waited)
    assert found.held == pytest.approx(rig.clock.now - 1000.0)


class HoldsTwice(FixedPolicy):
    """Holds each failed call, lets it ask twice, and then sends it."""

    asked = 0

    def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
        return SEND if outcome.ok else Wait(1.5)

    def wake(self, now: float, call: CallView) -> Action:
        self.asked += 1
        return SEND if self.asked % 3 == 0 else Wait(0.5)


def held_call() -> tuple[Rig, Heard]:
    """A rig whose failed calls are held, and its events."""
    return heard([503, 200], parts={"policy": lambda origin: HoldsTwice()})


async def test_waits_that_are_no_holds_are_waited_and_not_held() -> None:
    """`waited` includes `held`, and a wait before a retry is none."""
    rig, _ = heard([503, 503, 200], parts=fixed())
    found = report(await rig.call())
    assert found is not None
    assert found.elapsed == pytest.approx(sum(rig.clock.waits))
    assert found.waited == found.elapsed > 0.0
    assert found == CallReport(3, found.elapsed, found.waited, 0.0, None, None, ("503", "503"))


async def test_what_the_server_asked_for_is_reported() -> None:
    """`retry_after` is the newest failure's, also where it is above the cap."""
    rig, _ = heard([Response(503, {"Retry-After": "99"})])
    found = report(await rig.call())
    assert found is not None
    assert found.retry_after == 99.0


async def test_an_origin_that_goes_down_and_comes_back_is_told() -> None:
    """One event for each change of the state, with the state's name."""
    rig, events = heard([200])
    await goes_down(rig)
    changes = [event for event in events if event.kind == "state"]
    assert changes[-1].reason == "down"
    assert changes[-1].origin == NAME
    assert (changes[-1].method, changes[-1].attempt) == ("", 0)
    rig.clock.now += 7.0
    await comes_back(rig)
    last = [event for event in events if event.kind == "state"][-1]
    assert last.reason == rig.middleware.snapshot().origins[0].state == "healthy"
    assert last.elapsed >= 7.0


def with_failures(rig: Rig) -> None:
    rig.upstream._script = iter(())
    rig.upstream._step = aiohttp.ServerTimeoutError()


async def fails(rig: Rig) -> BaseException:
    try:
        await rig.call()
    except aiohttp.ServerTimeoutError as error:
        return error
    raise AssertionError("this was to fail")


async def test_a_call_that_admission_refuses_is_given_up() -> None:
    """No attempt has ended, so the number is 0; the exception carries the reason."""
    rig, events = heard([200], admission=True, hold_cap=0.0)
    with_failures(rig)
    for _ in range(60):
        try:
            await rig.call()
        except OriginUnavailable as error:
            refusal = error
            break
        except aiohttp.ServerTimeoutError:
            continue
    event = [event for event in events if event.kind == "give_up"][-1]
    assert (event.attempt, event.error_type, event.reason) == (0, None, refusal.reason)
    found = report(refusal)
    assert found is not None
    assert (found.attempts, found.reason, found.error_types) == (0, refusal.reason, ())
    assert refusal.origin == NAME
    assert refusal.retry_after is not None
    assert 0.0 <= refusal.retry_after <= 1.0
    assert str(refusal).startswith(f"{NAME}: not sent: {refusal.reason}; worth another try in ")
    rig.clock.now += refusal.retry_after
    with pytest.raises(aiohttp.ServerTimeoutError):
        await rig.call()
    assert refusal.__notes__ == [
        f"aiohttp_adaptive_retry: 0 attempts in 0.0 s; no further retry: {refusal.reason}"
    ]


@pytest.mark.parametrize("times", [1, 3])
async def test_an_on_event_that_raises_fails_no_call(
    times: int, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once and counted each time."""

    def raises(event: RetryEvent) -> None:
        raise ValueError("secret")

    rig = rig_with([503, 200] * times, {"on_event": raises}, budget_initial=4.0)
    for _ in range(times):
        assert (await rig.call()).status == 200
    assert rig.middleware.snapshot().faults == 2 * times
    lines = [record.getMessage() for record in caplog.records if record.name == LOGGER]
    assert len(lines) == 1
    assert "on_event raised ValueError" in lines[0]
    assert "secret" not in lines[0]


def test_on_event_must_be_a_plain_function() -> None:
    """A coroutine function would never run."""

    async def tell(event: RetryEvent) -> None:
        """Never awaited."""

    with pytest.raises(TypeError, match="on_event must be a plain function"):
        AdaptiveRetryMiddleware(on_event=tell)
    with pytest.raises(TypeError, match="on_event must be callable, got 5"):
        AdaptiveRetryMiddleware(on_event=cast(Any, 5))


def test_events_are_frozen_values() -> None:
    """Slotted and frozen; equal events are equal."""
    event = RetryEvent(kind="retry", origin=NAME)
    with pytest.raises(FrozenInstanceError):
        event.kind = "hold"  # type: ignore[misc]
    assert not hasattr(event, "__dict__")
    assert event == pickle.loads(pickle.dumps(event))  # noqa: S301
    assert hash(event) == hash(copy.copy(event))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.example.com/a?b=c#d", "https://api.example.com:443"),
        ("http://me:pw@api.example.com:80/", "http://api.example.com:80"),
        ("http://API.example.com:8080/", "http://api.example.com:8080"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
async def test_the_origin_is_scheme_host_and_port(url: str, name: str) -> None:
    """The port is there also where it is the default one; nothing else of the URL is."""
    rig, events = heard([503, 200])
    await rig.call(URL(url))
    assert {event.origin for event in events} == {name}


# Log lines.


def lines(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == LOGGER and record.levelno == level
    ]


async def test_debug_has_each_retry_and_info_each_call_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line for each, with what is needed to understand it."""
    caplog.set_level(logging.DEBUG, LOGGER)
    rig = rig_with([503], fixed(2))
    await rig.call()
    (retry,) = lines(caplog, logging.DEBUG)
    (given_up,) = lines(caplog, logging.INFO)
    assert retry == (
        f"GET {NAME}: attempt 1 failed (503), the next one follows in {rig.clock.waits[0]:.2f} s"
    )
    assert given_up == (
        f"GET {NAME}: given up after attempt 2 (503) and {rig.clock.waits[0]:.1f} s: max_attempts"
    )


async def test_debug_has_each_hold(caplog: pytest.LogCaptureFixture) -> None:
    """A hold has one line, and the retry after it another one."""
    caplog.set_level(logging.DEBUG, LOGGER)
    rig, _ = held_call()
    await rig.call()
    assert lines(caplog, logging.DEBUG) == [
        f"GET {NAME}: held after attempt 1 (503) for news of the origin",
        f"GET {NAME}: attempt 1 failed (503), the next one follows in 0.00 s",
    ]


async def test_nothing_is_logged_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    """Where a level is off nothing is made for it; mended calls are no line at all."""
    caplog.set_level(logging.WARNING, LOGGER)
    rig = rig_with([503, 200, 503], fixed(2))
    for _ in range(4):
        await rig.call()
    assert caplog.records == []


async def goes_down(rig: Rig) -> None:
    with_failures(rig)
    for _ in range(100):
        await fails(rig)
        if rig.middleware.snapshot().origins[0].state == "down":
            return
    raise AssertionError("never down")


async def comes_back(rig: Rig) -> None:
    rig.upstream._step = 200
    await rig.call()


def impatient() -> Rig:
    """A rig whose failed calls end at once."""
    return rig_with([200], {}, budget_initial=0.0, hold_cap=0.0, max_attempts=1)


async def test_an_outage_is_a_warning_and_its_end_an_info(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The origin is named, and how long it was down."""
    caplog.set_level(logging.INFO, LOGGER)
    rig = impatient()
    await goes_down(rig)
    assert lines(caplog, logging.WARNING) == [f"{NAME} is down: nothing succeeds there"]
    caplog.clear()
    rig.clock.now += 90.0
    await comes_back(rig)
    assert lines(caplog, logging.INFO) == [f"{NAME} is back, 90 s after it went down"]


async def test_state_lines_are_at_most_one_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """An origin that flaps fills no log; what was left out comes when the minute is over."""
    caplog.set_level(logging.WARNING - 10, LOGGER)
    rig = impatient()
    began = rig.clock.now
    while rig.clock.now < began + 30.0:
        await goes_down(rig)
        rig.clock.now += 1.0
        await comes_back(rig)
        rig.clock.now += 1.0
    state_lines = [line for line in lines(caplog, logging.INFO) if " is " in line]
    assert (len(lines(caplog, logging.WARNING)), state_lines) == (1, [])
    rig.clock.now += 60.0
    await rig.call()
    assert len([line for line in lines(caplog, logging.INFO) if " is back" in line]) == 1


async def test_each_origin_has_its_own_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Two origins that go down are two lines."""
    rig = impatient()
    with_failures(rig)
    for host in ("a.example", "b.example"):
        for _ in range(40):
            with pytest.raises(aiohttp.ServerTimeoutError):
                await rig.call(URL(f"http://{host}/"))
    assert len(lines(caplog, logging.WARNING)) == 2


async def test_a_broken_log_handler_fails_no_call() -> None:
    """What a handler raises is counted as a fault."""

    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("disk full")

    logger, handler = logging.getLogger(LOGGER), Raises(logging.WARNING)
    rig = impatient()
    logger.addHandler(handler)
    try:
        with_failures(rig)
        for _ in range(40):
            await fails(rig)
    finally:
        logger.removeHandler(handler)
    assert rig.middleware.snapshot().faults > 0


# Notes and reports.


@pytest.mark.parametrize(
    ("attempts", "text"),
    [(1, "1 attempt in 0.0 s"), (3, "3 attempts in 0.4 s")],
)
async def test_a_failed_calls_exception_carries_a_note(attempts: int, text: str) -> None:
    """Attempts, time and the reason, readable in any traceback."""
    rig = rig_with([aiohttp.ClientOSError()], fixed(9), max_attempts=attempts)
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await rig.call()
    assert caught.value.__notes__ == [
        f"aiohttp_adaptive_retry: {text}; no further retry: max_attempts"
    ]


async def test_the_note_of_an_exception_that_is_raised_again_is_the_newest() -> None:
    """Notes of others stay, and ours don't pile up."""
    error = aiohttp.ClientOSError()
    error.add_note("of the application")
    rig = rig_with([error], {}, max_attempts=1)
    for _ in range(3):
        with pytest.raises(aiohttp.ClientOSError):
            await rig.call()
        rig.clock.now += 1.0
    assert error.__notes__ == [
        "of the application",
        "aiohttp_adaptive_retry: 1 attempt in 0.0 s; no further retry: max_attempts",
    ]


async def test_an_exception_that_takes_no_note_passes_all_the_same() -> None:
    """A class of the user's may forbid attributes."""

    class Sealed(aiohttp.ClientOSError):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(name)

    rig = rig_with([Sealed()], {}, max_attempts=1)
    with pytest.raises(Sealed):
        await rig.call()
    assert rig.middleware.snapshot().faults == 0


async def test_a_foreign_exception_gets_no_note() -> None:
    """What is not the network's passes unchanged."""
    rig = rig_with([KeyError("x")], {})
    with pytest.raises(KeyError) as caught:
        await rig.call()
    assert not hasattr(caught.value, "__notes__")
    assert report(caught.value) is None


async def test_a_deadline_after_a_retry_says_so() -> None:
    """A bare TimeoutError after failed attempts is told from one of a first attempt."""
    rig = rig_with([503, TimeoutError()], fixed())
    with pytest.raises(TimeoutError) as caught:
        await rig.call()
    found = report(caught.value)
    assert found is not None
    assert (found.attempts, found.reason, found.error_types) == (2, "deadline", ("503",))
    first = rig_with([TimeoutError()], fixed())
    with pytest.raises(TimeoutError) as caught:
        await first.call()
    assert report(caught.value) is None


@pytest.mark.parametrize("result", [None, 5, "text", ValueError(), object()], ids=range(5))
def test_what_is_not_ours_has_no_report(result: object) -> None:
    """None, whatever is asked about."""
    assert report(result) is None


async def test_a_first_success_has_no_report(serve: Serve, open_session: Open) -> None:
    """It costs nothing, and so nothing is known of it."""
    server = await serve(reply(200))
    async with open_session(retrying()).get(server.url) as response:
        assert report(response) is None


async def test_reports_hold_nothing_alive(serve: Serve, open_session: Open) -> None:
    """A response and an exception are collected as without us."""
    server = await serve(reply(503), reply(200))
    async with open_session(retrying()).get(server.url) as response:
        found = report(response)
        await response.read()
    gone = weakref.ref(response)
    del response
    gc.collect()
    assert gone() is None
    assert found is not None
    assert (found.attempts, found.error_types) == (2, ("503",))


async def test_the_exception_of_aiohttps_hidden_run_has_note_and_report(
    serve: Serve, open_session: Open
) -> None:
    """aiohttp runs the chain again, and what is raised then is a copy: it tells the same."""
    server = await serve(close())
    session = open_session(retrying(max_attempts=3))
    with pytest.raises(aiohttp.ServerDisconnectedError) as caught:
        await session.get(server.url)
    found = report(caught.value)
    assert server.hits == 3
    assert found is not None
    assert (found.attempts, found.reason) == (3, "max_attempts")
    assert caught.value.__notes__ == [str(found)]


async def test_the_report_is_found_below_an_exception_of_aiohttps(
    serve: Serve, open_session: Open
) -> None:
    """Where aiohttp wraps ours in a new exception, the report is found by its cause."""

    async def raises(request: ClientRequest, handler: Any) -> ClientResponse:
        raise ConnectionResetError("lost")

    server = await serve(reply(200))
    session = open_session(retrying(max_attempts=2), raises)
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await session.get(server.url)
    found = report(caught.value)
    assert found is not None
    assert (found.attempts, found.error_types) == (2, ("ConnectionResetError",) * 2)


async def test_a_failed_exception_can_be_pickled() -> None:
    """With its note and its report, which are plain values."""
    rig = rig_with([aiohttp.ClientOSError(111, "refused")], {}, max_attempts=1)
    with pytest.raises(aiohttp.ClientOSError) as caught:
        await rig.call()
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert report(again) == report(caught.value)
    assert again.__notes__ == caught.value.__notes__


async def test_the_user_sees_a_retry_over_the_wire(serve: Serve, open_session: Open) -> None:
    """The same on a real connection, with a redirect before."""
    server = await serve(redirect("/there"), reply(503), reset(), reply(200))
    events = Heard()
    config = AdaptiveConfig(budget_initial=4.0, backoff_base=0.01)
    retry = AdaptiveRetryMiddleware(config, on_event=events)
    async with open_session(retry).get(server.url) as response:
        found = report(response)
    assert found is not None
    assert (found.attempts, found.error_types) == (3, ("503", "ClientOSError"))
    assert [event.kind for event in events if event.kind != "state"] == ["retry", "retry", "mended"]
    assert {event.origin for event in events} == {str(server.url.origin())}


async def test_a_verdict_is_seen_like_any_failure() -> None:
    """Its name is the error type of events and reports."""
    rig, events = heard([200], parts={"classify": lambda response: Verdict.fail(name="quota")})
    found = report(await rig.call())
    assert found is not None
    assert (found.reason, found.error_types) == ("not_retryable", ("quota",))
    assert events.of("give_up").error_type == "quota"


STEPS: list[Step] = [
    200,
    404,
    500,
    503,
    Response(429, {"Retry-After": "2"}),
    Response(503, {"Retry-After": "500"}),
    aiohttp.ServerDisconnectedError(),
    aiohttp.ServerTimeoutError(),
    aiohttp.ClientPayloadError(),
    refused(),
    TimeoutError(),
    KeyError("not ours"),
]


@settings(max_examples=50)
@given(
    script=st.lists(st.tuples(st.sampled_from(range(len(STEPS))), st.integers(1, 6)), max_size=12),
    methods=st.lists(st.sampled_from(["GET", "POST"]), min_size=1, max_size=8),
    gap=st.sampled_from([0.0, 0.5, 40.0]),
    fields=st.sampled_from([{}, {"admission": True}, {"hold_cap": 0.0}, {"max_attempts": 2}]),
    chance=st.sampled_from([0.0, 0.5, 0.99]),
)
def test_events_reports_and_counts_agree(
    script: list[tuple[int, int]],
    methods: list[str],
    gap: float,
    fields: dict[str, Any],
    chance: float,
) -> None:
    """Whatever happens: what is told of calls, reported of them and counted is one story."""
    asyncio.run(one_story(script, methods, gap, fields, chance))


async def one_story(
    script: list[tuple[int, int]],
    methods: list[str],
    gap: float,
    fields: dict[str, Any],
    chance: float,
) -> None:
    steps = [STEPS[kind] for kind, times in script for _ in range(times)]
    rig, events = heard([*steps, 200], parts={"random": lambda: chance}, **fields)
    given_up = 0
    for method in methods:
        rig.clock.now += gap
        del events[:]
        began, hits = rig.clock.now, rig.upstream.hits
        try:
            result: Any = await rig.call(method=method)
        except Exception as error:
            result = error
        sent = rig.upstream.hits - hits
        of_call = [event for event in events if event.kind != "state"]
        found = report(result)
        ends = [event for event in of_call if event.kind in ("mended", "give_up")]
        assert len(ends) <= 1
        assert [event.kind for event in of_call].count("retry") == max(0, sent - 1)
        assert all(event.elapsed <= rig.clock.now - began + 1e-6 for event in of_call)
        if not ends:
            # It succeeded at once, or its end says nothing about the origin.
            assert sent == 1 or isinstance(result, TimeoutError | KeyError)
            continue
        assert of_call[-1] == ends[0]
        given_up += ends[0].kind == "give_up"
        assert found is not None
        assert (found.attempts, found.reason) == (sent, ends[0].reason)
        assert len(found.error_types) == sent - (ends[0].kind == "mended")
        assert ends[0].error_type == (found.error_types[-1] if found.error_types else None)
        assert 0.0 <= found.held <= found.waited <= found.elapsed + 1e-6
        assert found.elapsed == pytest.approx(rig.clock.now - began, abs=1e-6)
        held = any(event.kind == "hold" for event in of_call)
        assert held or found.held == 0.0
        if isinstance(result, BaseException):
            assert result.__notes__.count(str(found)) == 1
    snapshot = rig.middleware.snapshot()
    assert snapshot.faults == 0
    assert sum(snapshot.suppressed.values()) == given_up
    assert sum(sum(origin.suppressed.values()) for origin in snapshot.origins) == given_up


async def test_a_call_that_is_only_observed_tells_that_it_was() -> None:
    """Nothing is sent again, and the reason says why."""
    rig, events = heard([503], mode="observe")
    found = report(await rig.call())
    assert events.of("give_up").reason == "observed"
    assert found is not None
    assert (found.attempts, found.reason) == (1, "observed")
    assert "retry" not in events.kinds()
