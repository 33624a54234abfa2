"""The dashboard: made by its script, complete, and as an operator wants it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiohttp_adaptive_retry._telemetry import metrics
from tools import dashboard as script
from tools.panels import panels, queries

from .test_rules import ROOT, promtool

FOLDER = ROOT / "collector-config" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
PANELS = list(panels(DASHBOARD))
VARIABLES = {"job": ".*", "instance": ".*", "origin": ".*"}
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]

_UNITS = {"By": "_bytes", "s": "_seconds"}


def exported() -> Iterator[tuple[str, bool]]:
    """Every metric of ours by its name in Prometheus, and whether it only grows."""
    for name, metric in metrics.COUNTERS.items():
        yield f"adaptive_retry_{name.replace('.', '_')}_total", metric.unit != ""
    for name, metric in metrics.LEVELS.items():
        suffix = _UNITS.get(metric.unit, "")
        yield f"adaptive_retry_{name.replace('.', '_')}{suffix}", False
    yield "adaptive_retry_retry_delay_seconds_bucket", True


METRICS = dict(exported())


def test_it_is_what_the_script_makes() -> None:
    """Nobody has changed the one without the other: `make dashboard`."""
    assert (FOLDER / "dashboard.json").read_text(encoding="utf-8") == script.made()


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_is_on_it(metric: str) -> None:
    """What we emit an operator can see."""
    used = re.compile(rf"\b{metric}\b")
    assert any(used.search(expression) for expression in EXPRESSIONS), metric


def test_it_asks_for_no_metric_that_there_is_not() -> None:
    """Every name of ours in a query is emitted or recorded by a rule."""
    recorded = {
        rule["record"]
        for group in yaml.safe_load(
            (ROOT / "collector-config/prometheus/rules.yaml").read_text(encoding="utf-8")
        )["groups"]
        for rule in group["rules"]
    }
    asked = {
        name
        for expression in EXPRESSIONS
        for name in re.findall(r"[\w:]*adaptive_retry_[\w:]+(?=\{)", expression)
    }
    assert len(asked) > 20
    assert asked <= set(METRICS) | recorded


def test_every_query_is_one(tmp_path: Path) -> None:
    """Prometheus's own parser takes each, with the variables filled in."""
    found = queries(DASHBOARD, VARIABLES)
    assert len(found) == len(EXPRESSIONS) > 25
    rules = [{"record": f"panel:query:{n}", "expr": q.expr} for n, q in enumerate(found)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = promtool("check", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(found)} rules found" in done.stdout


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_can_be_read(panel: Mapping[str, Any]) -> None:
    """It has a title, a text, a unit, the data source that was chosen, and names for its lines."""
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["legendFormat"]
        assert target["datasource"] == panel["datasource"]
    letters = [target["refId"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)
    if panel["type"] == "heatmap":
        assert [target["format"] for target in panel["targets"]] == ["heatmap"]
        assert panel["options"]["calculate"] is False


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_query_asks_for_what_was_chosen(panel: Mapping[str, Any]) -> None:
    """Job, process and origin narrow each query of ours; labels in legends are those summed by."""
    for target in panel["targets"]:
        expression = target["expr"]
        for name, matchers in re.findall(r"(adaptive_retry_[\w:]+)\{([^}]*)\}", expression):
            assert 'job=~"$job"' in matchers
            if ":" not in name:
                assert 'instance=~"$instance"' in matchers
            per_origin = "server_address" in matchers
            labelled = re.search(
                r"memory_(usage|limit)|cleanups|evicted|origins|pressure|bypassed", name
            )
            assert (
                per_origin
                or labelled
                or "instance:" in expression
                or "faults" in name
                or ("threshold" in name)
            ), name
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            if ":adaptive_retry" not in expression:
                assert re.search(rf"by \([^)]*\b{label}\b", expression), (label, expression)


def test_rates_are_of_counters_and_follow_the_scrape_interval() -> None:
    """`rate` of a level is nonsense, and one over a fixed time shows gaps or smears."""
    rated = 0
    for expression in EXPRESSIONS:
        for function, name, span in re.findall(
            r"\b(rate|increase)\((\w*)\{.*?\}\[([^\]]+)\]", expression
        ):
            rated += 1
            assert span == "$__rate_interval", expression
            assert not name or METRICS[name], f"{function} of {name}"
        for name in re.findall(
            r"(?<!rate\()(?<!increase\()\b(adaptive_retry_\w+_total)", expression
        ):
            # A total since the process began makes sense for what should never happen only.
            assert name == "adaptive_retry_faults_total", expression
    assert rated > 12


def test_thresholds_are_those_of_the_alerts() -> None:
    """A panel turns red where the alert begins."""
    alerts = script.thresholds()
    shown = 0
    for panels_of_row in script.ROWS.values():
        for panel in panels_of_row:
            if panel.alert is None:
                continue
            shown += 1
            drawn = next(p for p in PANELS if p["title"] == panel.title)
            steps = drawn["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert steps[-1] == {"color": "red", "value": alerts[panel.alert]}
    assert shown >= 6


def test_variables_and_places() -> None:
    """Data source, job, process and origin can be chosen; no panel has another's number."""
    assert [v["name"] for v in DASHBOARD["templating"]["list"]] == [
        "datasource",
        "job",
        "instance",
        "origin",
    ]
    rows = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert len(rows) >= 8
    numbers = [panel["id"] for panel in (*PANELS, *rows)]
    assert len(set(numbers)) == len(numbers)


def test_provisioning_leads_to_it() -> None:
    """Data source and folder are those that the compose file mounts and the dashboard asks for."""
    folder = FOLDER / "provisioning"
    sources = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert [source["type"] for source in sources] == ["prometheus"]
    assert sources[0]["jsonData"]["timeInterval"] == "15s"
    providers = yaml.safe_load((folder / "dashboards/dashboards.yaml").read_text())["providers"]
    compose = yaml.safe_load((ROOT / "collector-config/compose.yaml").read_text())
    mounts = dict(
        volume.removesuffix(":ro").split(":")
        for volume in compose["services"]["grafana"]["volumes"]
    )
    assert mounts["./grafana/dashboard.json"].startswith(providers[0]["options"]["path"] + "/")
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    contact = yaml.safe_load((folder / "alerting/contact.yaml").read_text())
    receiver = contact["contactPoints"][0]["receivers"][0]
    # No secret in a file.
    assert receiver["settings"]["url"] == "${ALERT_WEBHOOK_URL}"
    assert contact["policies"][0]["receiver"] == contact["contactPoints"][0]["name"]
