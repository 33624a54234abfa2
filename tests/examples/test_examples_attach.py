"""examples/attach.py, as a process, against servers on loopback."""

from __future__ import annotations

import pytest

from ..kit.http_server import ScriptedServer
from ..kit.processes import free_port
from .runs import run

pytestmark = pytest.mark.wire


def test_a_failure_is_mended_and_shown() -> None:
    """A 503 is followed by a second attempt; what is printed is what the server received."""
    with ScriptedServer(503) as server:
        done = run("attach.py", f"{server.url}/page")
        received = [path for path, _ in server.received]
    assert (done.returncode, done.stderr) == (0, "")
    assert received == ["/page", "/page"]
    assert f"   200           11 bytes  {server.url}/page\n" in done.stdout
    assert "requests  1: 0 at once, 1 by a retry, 0 failed" in done.stdout
    assert "attempts  1 original, 1 retries" in done.stdout
    assert "failures  503 1" in done.stdout
    assert f"origin    http://127.0.0.1:{server.server_port}" in done.stdout


def test_a_dead_address_and_nonsense_stop_nobody_else() -> None:
    """URLs that fail are named with their error's type, the others are fetched; exit code 1.

    The log tells once that the dead address is down.
    """
    origin = f"http://127.0.0.1:{free_port()}"
    dead = f"{origin}/"
    with ScriptedServer() as server:
        done = run("attach.py", dead, "no url", server.url, "http://[broken")
    assert (done.returncode, done.stderr) == (1, f"{origin} is down: nothing succeeds there\n")
    assert f"failed  ClientConnectorError  {dead}\n" in done.stdout
    assert "failed  InvalidUrlClientError  no url\n" in done.stdout
    assert "http://[broken\n" in done.stdout
    assert f"   200           11 bytes  {server.url}\n" in done.stdout


def test_an_error_that_is_an_answer_is_handed_over() -> None:
    """A 404 is an answer: one attempt, no failure, exit code 0."""
    with ScriptedServer(404) as server:
        done = run("attach.py", server.url)
        assert len(server.received) == 1
    assert (done.returncode, done.stderr) == (0, "")
    assert "   404 " in done.stdout
    assert "1 at once" in done.stdout


def test_without_urls_it_says_how_it_is_used() -> None:
    """No URL: a usage line and exit code 2."""
    done = run("attach.py")
    assert done.returncode == 2
    assert done.stderr.startswith("usage: attach.py")
    assert "URL" in done.stderr
