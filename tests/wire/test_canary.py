"""A secret that is everywhere in requests, answers and errors is in nothing that we say or keep.

What aiohttp raises is the caller's and stays as it is; looked at is what comes from us: events,
notes, reports, log lines, labels, spans, snapshots, and what our objects print of themselves.
"""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientTimeout
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from yarl import URL

from aiohttp_adaptive_retry import (
    AdaptiveConfig,
    AdaptiveRetryMiddleware,
    OriginUnavailable,
    RetryEvent,
    Verdict,
    policy,
    report,
)

from ..kit.clock import Clock
from ..kit.faults import Action, close, garbage, hang, raw, redirect, reset
from ..kit.fixtures import Open, Serve

LOGGER = "aiohttp_adaptive_retry"
SECRET = "c4n4ry"
#: In a head that aiohttp can't parse, and so puts into the text of its error.
BROKEN_HEAD = f"HTTP/1.1 200 OK\r\n{SECRET} {SECRET}\r\n\r\n".encode()

HEADERS = f"Set-Cookie: {SECRET}={SECRET}\r\nX-{SECRET}: {SECRET}\r\n"
BODY = f'{{"token": "{SECRET}"}}'.encode()


def answer(status: int, more: str = "") -> Action:
    """An answer with the secret in its reason phrase, its headers, its cookies and its body."""
    head = f"HTTP/1.1 {status} {SECRET}\r\nContent-Length: {len(BODY)}\r\n{HEADERS}{more}\r\n"
    return raw(head.encode() + BODY)


#: What the server does, until the call is over.
FAULTS: dict[str, Action] = {
    "answered 503": answer(503),
    "limited": answer(429, f"Retry-After: {SECRET}\r\nX-RateLimit-Reset: {SECRET}\r\n"),
    "too late": answer(503, "Retry-After: 9999\r\n"),
    "forbidden": answer(403, "Retry-After: 1\r\n"),
    "broken head": raw(BROKEN_HEAD, then="close"),
    "half a head": raw(BROKEN_HEAD[:30], then="close"),
    "garbage": garbage(),
    "closed": close(),
    "reset": reset(),
    "hangs": hang(),
    "half a body": raw(
        f"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n{HEADERS}\r\n{SECRET}".encode(), then="close"
    ),
    "redirects": redirect(f"/{SECRET}?{SECRET}={SECRET}#{SECRET}"),
    "redirects elsewhere": redirect(f"http://{SECRET}:{SECRET}@127.0.0.1:9/{SECRET}"),
    "succeeds": answer(200),
}


async def raises(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """A middleware after ours whose errors hold the secret."""
    await handler(request)
    raise aiohttp.ClientOSError(5, f"lost http://u:{SECRET}@h.example:80/{SECRET}?q={SECRET}")


def classify_raises(response: ClientResponse) -> None:
    raise ValueError(f"{SECRET} {response.url}")


async def classify_reads(response: ClientResponse) -> Verdict | None:
    body = await response.text()
    return Verdict.retry(name="in the body") if SECRET in body else None


class Everything:
    """All that a middleware says, with every switch on."""

    def __init__(self, caplog: pytest.LogCaptureFixture, **arguments: Any) -> None:
        caplog.set_level(logging.DEBUG, LOGGER)
        self._caplog = caplog
        self.events: list[RetryEvent] = []
        self.said: list[object] = []
        self.reader, self.spans = InMemoryMetricReader(), InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.clock = Clock()
        self.retry = AdaptiveRetryMiddleware(
            AdaptiveConfig(
                max_attempts=3,
                budget_initial=20.0,
                attempt_timeout=0.05,
                attempt_spans=True,
                record_error_messages=True,
                admission=True,
            ),
            **{"on_event": self.events.append, **arguments},
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: 0.5,
            meter_provider=MeterProvider([self.reader]),
            tracer_provider=tracers,
        )

    def heard(self, result: ClientResponse | BaseException) -> None:
        """What was put on what a call ended with."""
        self.said += [report(result), getattr(result, "__notes__", None)]
        if isinstance(result, OriginUnavailable):
            self.said += [str(result), repr(result), result.args]

    def texts(self) -> list[str]:
        """All of it, as texts."""
        retry = self.retry
        said = [*self.said, *self.events, retry, retry.config, retry.snapshot()]
        said += [vars(record) for record in self._caplog.records if record.name == LOGGER]
        said += [record.getMessage() for record in self._caplog.records if record.name == LOGGER]
        said.append(self.reader.get_metrics_data())
        said += [span.to_json() for span in self.spans.get_finished_spans()]
        said.append(retry.snapshot().origins)
        return [repr(thing) for thing in said]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("method", "arguments", "after"),
    [
        ("GET", {}, None),
        ("POST", {"classify": classify_reads}, None),
        ("POST", {"classify": classify_raises}, raises),
    ],
    ids=["plain", "a classify that reads", "all that raises"],
)
async def test_a_secret_is_said_nowhere(
    serve: Serve,
    open_session: Open,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    method: str,
    arguments: dict[str, Any],
    after: Any,
) -> None:
    """Path, query, userinfo, fragment, headers, cookies, bodies and reason phrases stay secret."""
    server = await serve(FAULTS[fault])
    seen = Everything(caplog, **arguments)
    chain = [seen.retry] if after is None else [seen.retry, after]
    session = open_session(*chain, timeout=ClientTimeout(total=5), cookies={SECRET: SECRET})
    url = URL(f"{server.url}{SECRET}/{SECRET}?{SECRET}={SECRET}#{SECRET}").with_user(SECRET)
    for _ in range(3):
        try:
            async with session.request(
                method,
                url.with_password(SECRET),
                data=BODY if method == "POST" else None,
                headers={f"X-{SECRET}": SECRET, "Idempotency-Key": SECRET},
            ) as response:
                seen.heard(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            seen.heard(error)
    assert server.hits > 0
    assert server.requests == [] or SECRET in server.requests[0].path
    texts = seen.texts()
    assert [text for text in texts if SECRET in text] == []
    if fault not in ("succeeds", "redirects", "redirects elsewhere", "half a body") or after:
        assert seen.events
    # The texts are those of this call: its origin is in them.
    assert any("127.0.0.1" in text for text in texts)


async def test_callbacks_that_raise_the_secret_are_logged_without(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Of what users' functions raise, type and place are logged."""

    def on_event(event: RetryEvent) -> None:
        raise LookupError(SECRET)

    server = await serve(answer(503))
    seen = Everything(caplog, classify=classify_raises, on_event=on_event)
    async with open_session(seen.retry).get(server.url) as response:
        seen.heard(response)
    texts = seen.texts()
    assert [text for text in texts if SECRET in text] == []
    assert any("LookupError" in text for text in texts)
    assert any("ValueError" in text for text in texts)


async def test_what_a_users_policy_gets_shows_no_secret(
    serve: Serve, open_session: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """A policy that logs its arguments logs neither requests nor bodies."""
    shown: list[str] = []

    class Logging(policy.FixedPolicy):
        def arrive(self, now: float, call: policy.CallView) -> policy.Action:
            shown.append(f"{call!r} {call}")
            return super().arrive(now, call)

        def outcome(
            self, now: float, call: policy.CallView, outcome: policy.AttemptOutcome
        ) -> policy.Action:
            shown.append(f"{call!r} {outcome!r}")
            return super().outcome(now, call, outcome)

    server = await serve(answer(503), answer(200))
    seen = Everything(caplog, policy=lambda origin: Logging())
    url = f"{server.url}{SECRET}?{SECRET}"
    headers = {"Idempotency-Key": SECRET}
    async with open_session(seen.retry).post(url, data=BODY, headers=headers):
        pass
    assert len(shown) == 3
    assert [text for text in [*shown, *seen.texts()] if SECRET in text] == []
    assert f"POST {str(server.url).rstrip('/')} attempts=1" in shown[1]
