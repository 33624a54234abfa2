"""Recording rules and alerts: well-formed, each with cases, and with a way out in README."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..pipeline.parts import prometheus_binary

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "collector-config" / "prometheus"
README = (ROOT / "README.md").read_text(encoding="utf-8")

WANTED = {
    "AdaptiveRetryStorm",
    "AdaptiveRetryBudgetExhausted",
    "AdaptiveRetryOriginDown",
    "AdaptiveRetryWindowMemoryNearLimit",
    "AdaptiveRetryProcessMemoryGrowth",
    "AdaptiveRetryCleanupPressure",
    "AdaptiveRetryTelemetryLost",
    "AdaptiveRetryCollectorExportFailing",
}


def rules(name: str) -> list[dict[str, Any]]:
    """All rules of a file."""
    groups = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yaml")}
CASES = yaml.safe_load((FOLDER / "rules_test.yaml").read_text(encoding="utf-8"))["tests"]


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool to its end."""
    return subprocess.run(
        [prometheus_binary("promtool"), *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", str(FOLDER / "prometheus.yaml")),
        ("check", "rules", str(FOLDER / "rules.yaml"), str(FOLDER / "alerts.yaml")),
        ("test", "rules", str(FOLDER / "rules_test.yaml")),
    ],
    ids=lambda arguments: "-".join(arguments[:2]),
)
def test_promtool_is_content(arguments: tuple[str, ...]) -> None:
    """Configuration, rules and their unit tests, as the tool of Prometheus itself sees them."""
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_the_unit_tests_can_fail(tmp_path: Path) -> None:
    """With another threshold they do."""
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("ratio > 0.5", "ratio > 1.5"))
    assert promtool("test", "rules", str(tmp_path / "rules_test.yaml")).returncode != 0


def test_there_is_an_alert_for_each_trouble() -> None:
    """All that were asked for, and no other."""
    assert set(ALERTS) == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_an_alert_names_the_cause_and_the_way_out(name: str) -> None:
    """Severity, summary, description, a time that it has to hold, and a section in README."""
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert {"summary", "description", "runbook_url"} <= set(rule["annotations"])
    assert re.fullmatch(r"\d+m", rule["for"])
    assert rule["annotations"]["runbook_url"] == f"README.md#{name.lower()}"
    section = re.search(rf"(?ms)^### {name}\n(.*?)(?=^##)", README)
    assert section is not None, f"no runbook for {name}"
    assert len(section[1].split()) > 25


@pytest.mark.parametrize("name", sorted(WANTED))
def test_an_alert_has_a_case_for_and_one_against_it(name: str) -> None:
    """In the unit tests it fires at least once, and at least once it does not."""
    expected = [
        bool(case.get("exp_alerts"))
        for test in CASES
        for case in test["alert_rule_test"]
        if case["alertname"] == name
    ]
    assert set(expected) == {True, False}


def test_every_recording_rule_has_a_value() -> None:
    """In the unit tests, against input that is worked out by hand."""
    valued = {case["expr"] for test in CASES for case in test.get("promql_expr_test", ())}
    recorded = {rule["record"] for rule in rules("rules.yaml")}
    assert recorded
    assert recorded <= valued


def test_no_rate_spans_less_than_four_scrapes() -> None:
    """One scrape that fails must leave every rate with a value."""
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    assert config["global"]["scrape_interval"] == "15s"
    spans = re.findall(
        r"\[(\d+)(m|h)\]",
        (FOLDER / "rules.yaml").read_text() + (FOLDER / "alerts.yaml").read_text(),
    )
    assert len(spans) > 8
    assert all(int(number) * {"m": 60, "h": 3600}[unit] >= 60 for number, unit in spans)
