"""examples/otlp.py, as a process that exports to a real agent, to nobody, and to a mute one."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from ..kit.agent import running_agent
from ..kit.http_server import ScriptedServer
from ..kit.processes import free_port
from ..kit.waiting import eventually
from .runs import run

pytestmark = pytest.mark.wire

PROTOCOLS = ("grpc", "http/protobuf")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metrics_arrive_at_a_real_agent(protocol: str, tmp_path: Path) -> None:
    """The counts that the agent receives are those of the server, whatever the protocol."""
    with running_agent(tmp_path) as agent, ScriptedServer(200, 503) as server:
        done = run("otlp.py", server.url, **agent.variables(protocol))
        assert (done.returncode, done.stderr) == (0, "")
        assert f"metrics: {protocol} to http://127.0.0.1:" in done.stdout
        attempts = ("adaptive_retry.attempts", "adaptive_retry.attempt.type")
        assert eventually(lambda: sum(agent.values(*attempts).values()) > 0), agent.log
        assert agent.values(*attempts) == {"original": 3, "retry": 1}
        assert len(server.received) == 4
        log = agent.log
    assert "AGGREGATION_TEMPORALITY_CUMULATIVE" in log
    assert "AGGREGATION_TEMPORALITY_DELTA" not in log
    assert "service.name: Str(adaptive-retry-example)" in log
    assert "service.instance.id: Str(" in log


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_spans_of_attempts_arrive_at_a_real_agent(protocol: str, tmp_path: Path) -> None:
    """With `--traces` every request that the server received is a span there."""
    with running_agent(tmp_path, "traces") as agent, ScriptedServer(200, 503) as server:
        done = run("otlp.py", "--traces", f"{server.url}/private", **agent.variables(protocol))
        assert (done.returncode, done.stderr) == (0, "")
        assert eventually(lambda: "http.request.resend_count" in agent.log), agent.log
        assert len(server.received) == 4
        log = agent.log
    assert len(re.findall(r"-> http.request.method: Str\(GET\)", log)) == 4
    assert len(re.findall(r"-> error.type: Str\(503\)", log)) == 1
    assert len(re.findall(r"-> http.request.resend_count: Int\(1\)", log)) == 1
    assert "aiohttp_adaptive_retry" in log
    assert "private" not in log


def test_the_environment_names_the_service(tmp_path: Path) -> None:
    """Standard variables win over the example's own words, and those for metrics over the rest."""
    with running_agent(tmp_path) as agent:
        variables = agent.variables("grpc")
        done = run(
            "otlp.py",
            OTEL_SERVICE_NAME="shop",
            OTEL_RESOURCE_ATTRIBUTES="team=blue,service.instance.id=one",
            # Wrong for all signals, right for metrics.
            OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=variables["OTEL_EXPORTER_OTLP_ENDPOINT"],
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert eventually(lambda: "adaptive_retry.requests" in agent.log)
        log = agent.log
    assert "service.name: Str(shop)" in log
    assert "team: Str(blue)" in log
    assert "service.instance.id: Str(one)" in log
    assert "adaptive-retry-example" not in log


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("collector", ["dead", "mute"])
def test_no_collector_holds_up_the_end(protocol: str, collector: str) -> None:
    """With a collector that refuses, or never answers, the requests succeed and the end is near."""
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        if collector == "mute":
            mute.listen()
        done = run(
            "otlp.py",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{mute.getsockname()[1]}",
        )
    assert done.returncode == 0
    # The SDK writes what it could not deliver, older ones with a traceback; we write one line.
    assert done.stdout.splitlines()[-1].startswith("last export and shutdown: ")
    took = re.search(r"last export and shutdown: ([\d.]+) s", done.stdout)
    assert took
    # Its limit is 3 s. Without one it would be the exporter's 5.
    assert float(took[1]) < 4.5


def test_without_urls_it_serves_itself() -> None:
    """Nothing given: nine calls to its own flaky server, all of them mended."""
    done = run("otlp.py", OTEL_SDK_DISABLED="true")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(re.findall(r"(?m)^200  http://127", done.stdout)) == 9
    assert "attempts: 9 original, 4 retries" in done.stdout


def test_nothing_answered_is_a_failure() -> None:
    """Exit code 1, and the error's type for every call."""
    dead = f"http://127.0.0.1:{free_port()}/"
    done = run("otlp.py", dead, OTEL_SDK_DISABLED="true")
    assert done.returncode == 1
    assert done.stdout.count(f"ClientConnectorError  {dead}") == 3


def test_an_unknown_protocol_is_named() -> None:
    """A protocol without an exporter ends it with the variable and the value."""
    done = run("otlp.py", OTEL_EXPORTER_OTLP_PROTOCOL="carrier-pigeon")
    assert done.returncode == 2
    assert "OTEL_EXPORTER_OTLP_PROTOCOL" in done.stderr
    assert "'carrier-pigeon'" in done.stderr
