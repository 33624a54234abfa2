"""Against a server that nobody here wrote: httpbin under gunicorn, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from ..kit.clock import Clock

pytestmark = pytest.mark.wire


class Httpbin:
    """A running httpbin, and what its access log says it received."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log

    def received(self, path: str) -> list[int]:
        """The statuses of all requests to a path."""
        # The log's line comes after the response, by a moment.
        time.sleep(0.2)
        found = re.findall(rf'"[A-Z]+ {re.escape(path)}[^"]*" (\d+)', self._log.read_text())
        return [int(status) for status in found]


@pytest.fixture(scope="module")
def httpbin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Httpbin]:
    """gunicorn with four threads on a free port; ended with the module."""
    folder = tmp_path_factory.mktemp("httpbin")
    errors, access = folder / "error.log", folder / "access.log"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4"]
    command += ["--access-logfile", str(access), "--error-logfile", str(errors), "httpbin:app"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            for _ in range(200):
                text = errors.read_text() if errors.exists() else ""
                listening = re.search(r"Listening at: (http://127\.0\.0\.1:\d+)", text)
                if listening:
                    break
                assert process.poll() is None, text
                time.sleep(0.1)
            assert listening, text
            yield Httpbin(listening[1], access)
        finally:
            process.terminate()
            process.wait(20)


def middleware(**fields: object) -> AdaptiveRetryMiddleware:
    clock = Clock()
    return AdaptiveRetryMiddleware(AdaptiveConfig(**fields), clock=clock, sleep=clock.sleep)  # type: ignore[arg-type]


async def test_one_answer_in_five_is_503(httpbin: Httpbin) -> None:
    """503s by chance are mended, and we count what the server counted."""
    retry = middleware(budget_initial=4)
    path = "/status/200:0.8,503:0.2"
    statuses = []
    async with aiohttp.ClientSession(httpbin.url, middlewares=[retry]) as session:
        for _ in range(100):
            async with session.get(path) as response:
                statuses.append(response.status)
    received = httpbin.received("/status/")
    snapshot = retry.snapshot()
    assert sum(snapshot.attempts.values()) == len(received)
    assert snapshot.failures["503"] == received.count(503)
    requests = snapshot.requests
    assert statuses.count(503) == requests.failed_after_retry + requests.failed_without_retry
    # A fifth of the first attempts fail, and two in a row once in twenty-five.
    assert statuses.count(200) > 90
    assert snapshot.faults == 0


async def test_redirects_pass_hop_by_hop(httpbin: Httpbin) -> None:
    """Each hop is a call of its own to the middleware; the caller ends where it should."""
    retry = middleware()
    async with (
        aiohttp.ClientSession(httpbin.url, middlewares=[retry]) as session,
        session.get("/redirect/3") as response,
    ):
        assert (await response.json())["url"].endswith("/get")
        assert len(response.history) == 3
    assert retry.snapshot().requests.first_success == 4


async def test_a_stream_arrives_whole(httpbin: Httpbin) -> None:
    """A streamed body passes untouched, chunk by chunk."""
    retry = middleware(attempt_timeout=5)
    async with (
        aiohttp.ClientSession(httpbin.url, middlewares=[retry]) as session,
        session.get("/stream/20") as response,
    ):
        lines = [line async for line in response.content]
    assert len(lines) == 20
    assert retry.snapshot().requests.first_success == 1


async def test_a_slow_answer_times_out_attempt_by_attempt(httpbin: Httpbin) -> None:
    """`attempt_timeout` ends each of the attempts; the caller catches TimeoutError."""
    retry = middleware(attempt_timeout=0.2, max_attempts=2)
    async with aiohttp.ClientSession(httpbin.url, middlewares=[retry]) as session:
        with pytest.raises(TimeoutError):
            await session.get("/delay/3")
    assert retry.snapshot().attempts == {"original": 1, "retry": 1}


async def test_the_deadline_holds(httpbin: Httpbin) -> None:
    """`total` ends the call, and nothing is sent after it."""
    retry = middleware()
    timeout = aiohttp.ClientTimeout(total=0.3)
    async with aiohttp.ClientSession(httpbin.url, middlewares=[retry], timeout=timeout) as session:
        with pytest.raises(TimeoutError):
            await session.get("/delay/2?total")
    await asyncio.sleep(0.1)
    assert retry.snapshot().requests.ignored == 1
    assert retry.snapshot().attempts == {"original": 1, "retry": 0}


async def test_bodies_arrive_whole_again(httpbin: Httpbin) -> None:
    """PUT with a body, retried against a coin, echoes nothing but full bodies."""
    retry = middleware(max_attempts=5, budget_initial=10)
    body = b"x" * 100_000
    # gunicorn hangs up on connections whose request bodies the application left unread.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(
        httpbin.url, middlewares=[retry], connector=connector
    ) as session:
        for _ in range(10):
            async with session.put("/status/200:0.5,503:0.5", data=body) as response:
                await response.read()
        async with session.put("/put", data=body) as response:
            assert (await response.json())["data"] == body.decode()
    assert retry.snapshot().faults == 0
