"""An outage as an operator sees it: application, collector, Prometheus, rules and dashboard.

The rules are those of collector-config/ with their times divided by `HASTE`, mechanically, and
Prometheus asks every second: expressions and thresholds are what operators get.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tools.figure import draw
from tools.panels import queries

from .parts import (
    CONFIG,
    Collector,
    Prometheus,
    application,
    hastened,
    running,
    running_prometheus,
)
from .upstream import Upstream

pytestmark = [
    pytest.mark.wire,
    pytest.mark.timeout(300),
    # One run for all of them.
    pytest.mark.xdist_group("pipeline"),
]

HASTE = 15
ORIGIN_DOWN = "AdaptiveRetryOriginDown"
#: Nothing of this happens in the run.
QUIET = {
    "AdaptiveRetryStorm",
    "AdaptiveRetryWindowMemoryNearLimit",
    "AdaptiveRetryProcessMemoryGrowth",
    "AdaptiveRetryCleanupPressure",
    "AdaptiveRetryTelemetryLost",
    "AdaptiveRetryCollectorExportFailing",
}
VARIABLES = {"job": "shop", "instance": ".*", "origin": ".*"}
DASHBOARD: dict[str, Any] = json.loads(
    (CONFIG / "grafana" / "dashboard.json").read_text(encoding="utf-8")
)


@dataclass
class Run:
    """What is there after an outage: everything still runs, but the application."""

    collector: Collector
    prometheus: Prometheus
    good: Upstream
    bad: Upstream
    begun: float
    ended: float = 0.0
    seen: dict[str, Any] = field(default_factory=dict)
    #: Names of the alerts that fired, by the phase in which they did.
    fired: dict[str, set[str]] = field(default_factory=dict)

    def watch(self, phase: str, seconds: float, until: str | None = None) -> None:
        """Note which alerts fire for so long, or until one does."""
        fired = self.fired.setdefault(phase, set())
        end = time.monotonic() + seconds
        while time.monotonic() < end and until not in fired:
            states = self.prometheus.alerts()
            fired |= {name for name, state in states.items() if "firing" in state}
            time.sleep(0.5)


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Traffic to two origins, one of which fails for a while."""
    folder = tmp_path_factory.mktemp("pipeline")
    rules = {
        name: hastened((CONFIG / "prometheus" / name).read_text(encoding="utf-8"), HASTE)
        for name in ("rules.yaml", "alerts.yaml")
    }
    with (
        Upstream(0.05) as good,
        Upstream(0.02) as bad,
        running(Collector(folder)) as collector,
        running_prometheus(folder, collector, rules) as prometheus,
    ):
        run = Run(collector, prometheus, good, bad, time.time())
        with application(
            good.url, bad.url, "--rate=40", "--window=200", **collector.endpoint
        ) as service:
            run.watch("before", 12)
            bad.share = 1.0
            run.watch("outage", 30, until=ORIGIN_DOWN)
            run.watch("outage", 8)
            bad.share = 0.0
            run.watch("after", 25)
            run.seen = service.finish()
        # The last export came with the application's end; a scrape or two brings it here.
        time.sleep(3)
        run.ended = time.time()
        yield run


def test_counts_are_those_of_the_servers(outage: Run) -> None:
    """What Prometheus says of attempts, calls and failures is what was received and sent."""
    prometheus = outage.prometheus
    for server in (outage.good, outage.bad):
        origin = f'job="shop", server_port="{server.port}"'
        assert server.received > 100
        assert prometheus.value(f"sum(adaptive_retry_attempts_total{{{origin}}})") == (
            server.received
        )
        assert prometheus.value(f'adaptive_retry_failures_total{{{origin}, error_type="503"}}') == (
            server.answered_503
        )
    assert (
        prometheus.value('sum(adaptive_retry_requests_total{job="shop"})') == (outage.seen["calls"])
    )
    failed = prometheus.value(
        'sum(adaptive_retry_requests_total{job="shop", adaptive_retry_outcome=~"failed.*"})'
    )
    assert failed == outage.seen["failed"]


def test_no_series_has_a_secret_or_a_version(outage: Run) -> None:
    """Nothing of the URL's path and query, and no scope label that a release would change."""
    names = [name for name in outage.collector.exported() if name.startswith("adaptive_retry")]
    assert len(names) > 50
    for name in names:
        assert "secret" not in name
        assert "items" not in name
        assert "otel_scope" not in name


@pytest.mark.parametrize(
    "number", range(len(queries(DASHBOARD, VARIABLES))), ids=lambda number: f"query{number}"
)
def test_every_panel_shows_data(outage: Run, number: int) -> None:
    """The query of each panel, its variables filled in, has numbers over the run."""
    query = queries(DASHBOARD, VARIABLES)[number]
    assert outage.prometheus.query_range(query.expr, outage.begun, outage.ended), query


def test_a_query_for_another_job_shows_nothing(outage: Run) -> None:
    """The check before can fail."""
    query = queries(DASHBOARD, {**VARIABLES, "job": "another"})[0]
    assert not outage.prometheus.query_range(query.expr, outage.begun, outage.ended)


def test_the_outage_is_alerted_and_nothing_else(outage: Run) -> None:
    """The origin is said to be down while it is; what has not happened is not said."""
    assert outage.fired["before"] == set()
    assert ORIGIN_DOWN in outage.fired["outage"]
    for phase, fired in outage.fired.items():
        assert not fired & QUIET, (phase, fired)
    states = outage.prometheus.query_range(
        f'adaptive_retry_origin_state{{server_port="{outage.bad.port}", '
        'adaptive_retry_state="down"}',
        outage.begun,
        outage.ended,
    )
    values = [value for row in states for _, value in row["values"]]
    assert "1" in values
    assert values[-1] == "0"


def test_the_outage_was_not_made_worse(outage: Run) -> None:
    """Not even at its worst, when those who waited are sent, is a second attempt made for each."""
    rows = outage.prometheus.query_range(
        f'job_origin:adaptive_retry_amplification:ratio_rate5m{{server_port="{outage.bad.port}"}}',
        outage.begun,
        outage.ended,
    )
    values = [float(value) for row in rows for _, value in row["values"]]
    assert len(values) > 20
    assert 1.0 <= max(values) < 2.0


def test_the_figure_has_all_panels(outage: Run, tmp_path: Path) -> None:
    """What `make dashboard-figure` writes is drawn from this run."""
    path = Path(os.environ.get("DASHBOARD_FIGURE") or tmp_path / "dashboard.png")

    def fetch(expression: str) -> list[dict[str, Any]]:
        return outage.prometheus.query_range(expression, outage.begun, outage.ended)

    draw(path, DASHBOARD, VARIABLES, fetch)
    assert path.stat().st_size > 50_000


def test_a_collector_that_is_gone_is_alerted(outage: Run) -> None:
    """Last, as it takes the collector away: telemetry that is lost wakes somebody."""
    outage.collector.stop()
    outage.watch("lost", 60, until="AdaptiveRetryTelemetryLost")
    assert "AdaptiveRetryTelemetryLost" in outage.fired["lost"]
