"""examples/aiohttp_app.py, as a process between a client and an upstream."""

from __future__ import annotations

import http.client
import json
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from ..kit.http_server import ScriptedServer
from ..kit.processes import accepts, free_port
from ..kit.waiting import eventually
from .runs import run, started

pytestmark = pytest.mark.wire


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body of one request."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


@contextmanager
def application(upstream: str, *, complains: str = "") -> Iterator[int]:
    """The example on a port of its own; it must end well when it is interrupted.

    `complains` is all that it may write to stderr.
    """
    port = free_port()
    with started("aiohttp_app.py", upstream, "--port", str(port)) as process:
        assert eventually(lambda: accepts(port))
        yield port
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        assert (process.returncode, errors) == (0, complains)


def test_requests_are_proxied_retried_and_counted() -> None:
    """Path and query reach the upstream, a 503 is mended, /stats says so, and SIGINT ends it."""
    with ScriptedServer(503) as upstream, application(f"{upstream.url}/base") as port:
        assert get(port, "/proxy/some/path?and=query") == (200, "answer 200\n")
        assert [path for path, _ in upstream.received] == ["/base/some/path?and=query"] * 2
        status, body = get(port, "/stats")
    stats = json.loads(body)
    assert status == 200
    assert stats["requests"]["retry_success"] == 1
    assert stats["attempts"] == {"original": 1, "retry": 1}
    assert stats["failures"] == {"503": 1}
    assert stats["origins"][0]["window_length"] == 2


def test_one_session_serves_all_requests() -> None:
    """The middleware outlives a request: the counts of two requests add up."""
    with ScriptedServer() as upstream, application(upstream.url) as port:
        get(port, "/proxy/a")
        get(port, "/proxy/b")
        stats = json.loads(get(port, "/stats")[1])
    assert stats["requests"]["first_success"] == 2


def test_a_dead_upstream_is_a_bad_gateway() -> None:
    """The client of the proxy gets 502 and the kind of error. The log has a line, no traceback."""
    upstream = f"http://127.0.0.1:{free_port()}"
    told = f"{upstream} is down: nothing succeeds there\n"
    with application(upstream, complains=told) as port:
        assert get(port, "/proxy/") == (502, "upstream: ClientConnectorError\n")


def test_nobody_climbs_out_of_the_upstreams_path() -> None:
    """A path with '..' in it, spelt out or escaped, reaches no upstream."""
    with ScriptedServer() as upstream, application(f"{upstream.url}/base") as port:
        assert get(port, "/proxy/%2e%2e/secret")[0] == 404
        assert get(port, "/proxy/x/../../../secret")[0] == 404
        assert upstream.received == []


@pytest.mark.parametrize("url", ["ftp://example.org", "example.org", "http://[x"])
def test_an_upstream_that_is_no_url_is_refused(url: str) -> None:
    """Wrong usage is told before anything is served."""
    done = run("aiohttp_app.py", url)
    assert done.returncode == 2
    assert "must be an http:// or https:// URL" in done.stderr
