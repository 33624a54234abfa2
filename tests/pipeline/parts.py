"""The real parts as processes: the collector of builder.yaml, Prometheus, and an application."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tools.collector import ADVICE, find

from ..kit.processes import environment, free_port
from ..kit.waiting import eventually

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "collector-config"
#: Start-up on a cold, busy machine, seconds.
PATIENCE = 60.0


def collector_binary() -> Path:
    """The collector's program; a skip with the way to it where there is none."""
    found = find()
    if found is None:
        pytest.skip(f"no collector here: {ADVICE}")
    return found


def prometheus_binary(name: str = "prometheus") -> str:
    """A program of Prometheus's; a skip with the way to it where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here: apt-get install prometheus")
    return found


class Collector:
    """A collector on free ports. It can be stopped and started again where it was."""

    def __init__(self, folder: Path, config: str = "otelcol.yaml", **variables: str) -> None:
        self._program = collector_binary()
        self._config = CONFIG / config
        self._log = folder / "otelcol.log"
        self.ports = {
            name: free_port()
            for name in (
                "OTLP_GRPC_PORT",
                "OTLP_HTTP_PORT",
                "PROMETHEUS_EXPORTER_PORT",
                "HEALTH_CHECK_PORT",
                "OTELCOL_METRICS_PORT",
            )
        }
        self._variables = {name: str(port) for name, port in self.ports.items()} | variables
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it says that it is well."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._program), "--config", str(self._config)],
                env=environment(**self._variables),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        health = f"http://127.0.0.1:{self.ports['HEALTH_CHECK_PORT']}/"
        assert eventually(lambda: reachable(health), PATIENCE), self._log.read_text()[-2000:]

    def stop(self) -> None:
        """Stop it as a service manager would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    @property
    def endpoint(self) -> dict[str, str]:
        """The environment that sends an application's telemetry here."""
        return {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.ports['OTLP_HTTP_PORT']}",
        }

    def exported(self) -> dict[str, float]:
        """What its Prometheus exporter shows: every series as text, and its value."""
        page = get(f"http://127.0.0.1:{self.ports['PROMETHEUS_EXPORTER_PORT']}/metrics")
        return dict(series(page))


@contextmanager
def running(collector: Collector) -> Iterator[Collector]:
    """The collector, started, and gone afterwards."""
    try:
        collector.start()
        yield collector
    finally:
        collector.stop()


class Prometheus:
    """A Prometheus with our rules, which asks the collector every second."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def query(self, expression: str, **parameters: float) -> list[dict[str, Any]]:
        """The result of an instant query."""
        found: list[dict[str, Any]] = self._get("query", query=expression, **parameters)["result"]
        return found

    def query_range(
        self, expression: str, start: float, end: float, step: float = 1.0
    ) -> list[dict[str, Any]]:
        """The result of a query over time; points that are no numbers are left out."""
        data = self._get("query_range", query=expression, start=start, end=end, step=step)
        found: list[dict[str, Any]] = data["result"]
        for row in found:
            row["values"] = [pair for pair in row["values"] if pair[1] != "NaN"]
        return [row for row in found if row["values"]]

    def value(self, expression: str) -> float:
        """The sum over the series of an instant query, 0 where there are none."""
        return sum(float(row["value"][1]) for row in self.query(expression))

    def alerts(self) -> dict[str, set[str]]:
        """The alerts that are pending or firing, by name: their states."""
        states: dict[str, set[str]] = {}
        for alert in self._get("alerts")["alerts"]:
            states.setdefault(alert["labels"]["alertname"], set()).add(alert["state"])
        return states

    def _get(self, path: str, **parameters: object) -> Any:
        page = get(self._url + path + "?" + urllib.parse.urlencode(parameters))
        return json.loads(page)["data"]


@contextmanager
def running_prometheus(
    folder: Path, collector: Collector, rules: Mapping[str, str]
) -> Iterator[Prometheus]:
    """A Prometheus on the collector's ports, with `rules` (file name: text) beside its config."""
    program, port = prometheus_binary(), free_port()
    text = (CONFIG / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8")
    for usual, actual in (
        ("127.0.0.1:8889", f"127.0.0.1:{collector.ports['PROMETHEUS_EXPORTER_PORT']}"),
        ("127.0.0.1:8888", f"127.0.0.1:{collector.ports['OTELCOL_METRICS_PORT']}"),
    ):
        assert usual in text, f"prometheus.yaml does not scrape {usual}"
        text = text.replace(usual, actual)
    text = re.sub(r"(scrape_interval|evaluation_interval): \S+", r"\1: 1s", text)
    text = re.sub(r"scrape_timeout: \S+", "scrape_timeout: 1s", text)
    (folder / "prometheus.yaml").write_text(text, encoding="utf-8")
    for name, rule in rules.items():
        (folder / name).write_text(rule, encoding="utf-8")
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        ready = f"http://127.0.0.1:{port}/-/ready"
        assert eventually(lambda: reachable(ready), PATIENCE), log.read_text()[-2000:]
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30)


_DURATION = re.compile(r"\b(\d+)([smh])\b")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def hastened(rules: str, factor: int) -> str:
    """The same rules in less time: every duration in `for:` and `[...]` divided by `factor`.

    At least two seconds, as Prometheus asks every second here. Nothing else is changed, so what is
    tested are the expressions and thresholds that operators get.
    """

    def shorter(found: re.Match[str]) -> str:
        seconds = int(found[1]) * _SECONDS[found[2]]
        return f"{max(2, seconds // factor)}s"

    lines = []
    for line in rules.splitlines():
        if re.match(r"\s*(-\s*)?(for|keep_firing_for|interval):", line):
            line = _DURATION.sub(shorter, line)
        line = re.sub(r"\[[^\]]*\]", lambda found: _DURATION.sub(shorter, found[0]), line)
        lines.append(line)
    return "\n".join(lines) + "\n"


class Application:
    """tests/pipeline/application.py as a process, under traffic."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def finish(self, seconds: float = 60.0) -> dict[str, Any]:
        """Ask it to end as a service does (SIGTERM); what it says of itself."""
        self._process.send_signal(signal.SIGTERM)
        return self.result(seconds)

    def result(self, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for its end; what it says of itself."""
        output, errors = self._process.communicate(timeout=seconds)
        assert self._process.returncode == 0, errors[-3000:]
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found


@contextmanager
def application(*arguments: str, **variables: str) -> Iterator[Application]:
    """The application with these arguments; it is gone afterwards."""
    variables = {"PYTHONPATH": os.pathsep.join(sys.path)} | variables
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("application.py")), *arguments],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield Application(process)
        finally:
            if process.poll() is None:
                process.kill()


def get(url: str) -> str:
    """The page there."""
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  (http, our own)
        text: str = answer.read().decode()
    return text


def reachable(url: str) -> bool:
    """Whether a page is there."""
    try:
        get(url)
    except OSError:
        return False
    return True


def series(page: str) -> Iterator[tuple[str, float]]:
    """The series of a page in Prometheus's text format, and their values."""
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            yield name, float(value)
