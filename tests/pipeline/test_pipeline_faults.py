"""The collector stops, is absent, is mute; the process forks and ends: no call suffers."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..kit.processes import environment, free_port
from ..kit.waiting import eventually
from .parts import CONFIG, Collector, application, collector_binary, running
from .upstream import Upstream

pytestmark = [pytest.mark.wire, pytest.mark.timeout(180)]

ATTEMPTS = re.compile(r"adaptive_retry_attempts_total\{.*\}")


def attempts(collector: Collector) -> dict[str, float]:
    """What arrived of `adaptive_retry.attempts`, series by series."""
    return {name: value for name, value in collector.exported().items() if ATTEMPTS.match(name)}


def unhurt(seen: dict[str, Any]) -> None:
    """No call failed, though some of their attempts did."""
    assert seen["calls"] > 100
    assert seen["failed"] == 0


@pytest.mark.parametrize("config", ["otelcol.yaml", "otelcol-push.yaml"])
def test_the_configurations_are_valid(config: str, tmp_path: Path) -> None:
    """The collector itself says so."""
    done = subprocess.run(
        [str(collector_binary()), "validate", "--config", str(CONFIG / config)],
        env=environment(OTELCOL_STORAGE=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_configuration_is_not_valid(tmp_path: Path) -> None:
    """The check before can fail."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text((CONFIG / "otelcol.yaml").read_text().replace("without_scope", "with_scope"))
    done = subprocess.run(
        [str(collector_binary()), "validate", "--config", str(wrong)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0


def test_a_collector_that_is_away_for_20_seconds_costs_nothing(tmp_path: Path) -> None:
    """Under load it stops and comes back: no call fails, no count is lost, memory is flat."""
    with Upstream(0.05) as server, running(Collector(tmp_path)) as collector:
        with application(server.url, **collector.endpoint) as service:
            assert eventually(lambda: bool(attempts(collector)), 30)
            collector.stop()
            begun = server.received
            time.sleep(20)
            assert server.received - begun > 300
            collector.start()
            assert eventually(lambda: bool(attempts(collector)), 30)
            seen = service.finish()
        unhurt(seen)
        assert sum(attempts(collector).values()) == server.received
        retried = [value for name, value in attempts(collector).items() if '"retry"' in name]
        assert sum(retried) == server.answered_503 > 0
    # The first samples are of a process that still imports and warms up.
    memory = seen["memory"][4:]
    assert len(memory) > 15
    assert max(memory[-5:]) - max(memory[:5]) < 4_000_000


@contextmanager
def nobody() -> Iterator[int]:
    """A port that nobody listens on."""
    yield free_port()


@contextmanager
def mute() -> Iterator[int]:
    """A port where connections are taken and nothing is ever said."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        yield listener.getsockname()[1]


@pytest.mark.parametrize("receiver", [nobody, mute])
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_collector_is_no_trouble(receiver: Any, protocol: str) -> None:
    """Calls go on, and the program ends in time, if no collector is there or none answers."""
    with Upstream(0.05) as server, receiver() as port:
        with application(
            server.url,
            "--seconds=6",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        ) as service:
            seen = service.result()
        unhurt(seen)
        assert server.received >= seen["calls"]
    # close_timeout is 3 seconds; the SDK alone would take 10 or 20.
    assert seen["ended_in"] < 6.0


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_an_ordinary_end_delivers_what_was_counted(tmp_path: Path, protocol: str) -> None:
    """A process that never exported before its end has all its counts in the collector."""
    with Upstream(0.05) as server, running(Collector(tmp_path)) as collector:
        port = collector.ports["OTLP_GRPC_PORT" if protocol == "grpc" else "OTLP_HTTP_PORT"]
        with application(
            server.url,
            "--seconds=4",
            "--interval=3600",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}",
        ) as service:
            unhurt(service.result())
        assert sum(attempts(collector).values()) == server.received > 100


def test_parent_and_child_of_a_fork_count_their_own(tmp_path: Path) -> None:
    """A process forked after the set-up is an instance of its own; no count is lost or twice."""
    with Upstream(0.05) as server, running(Collector(tmp_path)) as collector:
        with application(server.url, "--seconds=5", "--fork", **collector.endpoint) as service:
            seen = service.result()
        unhurt(seen)
        assert seen["forked"] == 1
        found = attempts(collector)
        instances = {re.search(r'instance="([^"]+)"', name)[1] for name in found}  # type: ignore[index]
        assert len(instances) == 2
        assert sum(found.values()) == server.received > 200


def test_what_is_pushed_outlives_a_backend_that_is_away(tmp_path: Path) -> None:
    """The pushing configuration keeps what it could not send, on disk, over its own restart too."""
    (tmp_path / "push").mkdir()
    (tmp_path / "backend").mkdir()
    with Upstream(0.05) as server:
        backend = Collector(tmp_path / "backend")
        pushing = Collector(
            tmp_path / "push",
            "otelcol-push.yaml",
            OTLP_BACKEND=f"http://127.0.0.1:{backend.ports['OTLP_HTTP_PORT']}",
            OTELCOL_STORAGE=str(tmp_path / "queue"),
        )
        with (
            running(pushing),
            application(server.url, "--seconds=4", **pushing.endpoint) as service,
        ):
            unhurt(service.result())
        # Both the application and the collector are gone; what was counted is on disk.
        with running(backend), running(pushing):
            assert eventually(
                lambda: sum(attempts(backend).values()) == server.received > 100, 60
            ), (attempts(backend), server.received)
