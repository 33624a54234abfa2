"""Writes the dashboard of Grafana: `python -m tools.dashboard PATH`.

Top to bottom: the words of the queries, the kinds of panels, and the rows of the dashboard.
Thresholds are read from the alerts, so that a panel turns red where its alert begins.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from .grafana import Panel, Query, encoded

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "collector-config" / "prometheus" / "alerts.yaml"

NAME = "aiohttp-adaptive-retry"

# The words of the queries.

#: Selects the chosen processes, and the chosen origins of the chosen processes.
PROCESS = 'job=~"$job", instance=~"$instance"'
ORIGIN = PROCESS + ', server_address=~"$origin"'

SUCCEEDED = 'adaptive_retry_outcome=~"first_success|retry_success"'
NOT_CANCELLED = 'adaptive_retry_outcome!="ignored"'
DOWN = 'adaptive_retry_state="down"'
UNDER_PRESSURE = 'adaptive_retry_reason=~"memory|origin_limit"'

ORIGIN_LEGEND = "{{server_address}}:{{server_port}}"


def level(metric: str, *matchers: str) -> str:
    """A metric of ours as it is, of the chosen origins if nothing else is said."""
    return f"adaptive_retry_{metric}{{{', '.join(matchers or (ORIGIN,))}}}"


def rate(counter: str, *matchers: str) -> str:
    """A counter of ours, per second."""
    return f"rate({level(counter + '_total', *matchers)}[$__rate_interval])"


def ratio(above: str, below: str) -> str:
    """The sum of one expression over the sum of another one."""
    return f"sum({above}) / sum({below})"


def by(labels: str, expression: str, legend: str = "", *, how: str = "sum") -> Query:
    """An expression summed by labels. A single label is the legend if there is no other."""
    return Query(f"{how} by ({labels}) ({expression})", legend or f"{{{{{labels}}}}}")


def by_origin(metric: str, *matchers: str) -> Query:
    """A level of each origin, summed over processes."""
    return by("server_address, server_port", level(metric, ORIGIN, *matchers), ORIGIN_LEGEND)


def by_instance(metric: str, legend: str = "{{instance}}", *, how: str = "max") -> Query:
    """A level of each process."""
    return by("instance", level(metric, PROCESS), legend, how=how)


def by_reason(counter: str, selector: str = PROCESS, *, says: str = "") -> Query:
    """A counter per second, by reason."""
    return by("adaptive_retry_reason", rate(counter, selector), says + "{{adaptive_retry_reason}}")


def recorded_by_origin(rule: str) -> Query:
    """What a recording rule says of each origin."""
    selector = '{job=~"$job", server_address=~"$origin"}'
    return Query(f"job_origin:adaptive_retry_{rule}{selector}", ORIGIN_LEGEND)


def of_collector(metric: str) -> str:
    """A counter of the collector per second. Newer collectors add `_total` to its name."""
    return f'rate({{__name__=~"otelcol_{metric}_metric_points(_total)?"}}[$__rate_interval])'


# Panels.


def number(title: str, text: str, query: Query, unit: str = "short", **more: Any) -> Panel:
    """The newest value, large."""
    return Panel(title, text, (query,), "stat", unit, **{"width": 6, **more})


def lines(title: str, text: str, *queries: Query, unit: str = "short", **more: Any) -> Panel:
    """Lines over time."""
    return Panel(title, text, queries, "lines", unit, **{"width": 12, **more})


def stacked(title: str, text: str, *queries: Query, unit: str = "reqps", **more: Any) -> Panel:
    """Areas over time, one on the other."""
    return Panel(title, text, queries, "stacked", unit, **{"width": 12, **more})


def heat_map(title: str, text: str, query: Query, unit: str, **more: Any) -> Panel:
    """The buckets of a histogram over time."""
    return Panel(title, text, (query,), "heatmap", unit, **{"width": 12, **more})


# The dashboard.

ROWS: dict[str, list[Panel]] = {
    "At a glance": [
        number(
            "Success",
            "Share of calls that succeeded, at once or by a retry. Cancelled ones are left out.",
            Query(
                ratio(
                    rate("requests", ORIGIN, SUCCEEDED),
                    rate("requests", ORIGIN, NOT_CANCELLED),
                ),
                "success",
            ),
            unit="percentunit",
        ),
        number(
            "Amplification",
            "Attempts on the wire for each call; 1 is no retries. It turns red where the alert on retry storms begins.",
            Query(ratio(rate("attempts"), rate("requests")), "attempts per call"),
            alert="AdaptiveRetryStorm",
        ),
        number(
            "Origins down",
            "Origins that some process takes to be down now.",
            Query(
                f"count({by_origin('origin_state', DOWN).expression} > 0) or vector(0)", "origins"
            ),
            alert="AdaptiveRetryOriginDown",
        ),
        number(
            "Memory of windows",
            "All windows of all processes together.",
            by("", level("window_memory_usage_bytes"), "windows"),
            unit="bytes",
        ),
    ],
    "Requests and retries": [
        stacked(
            "Calls by outcome",
            "Calls that ended, per second.",
            by("adaptive_retry_outcome", rate("requests")),
        ),
        stacked(
            "Attempts by type",
            "Attempts on the wire, per second: first ones and retries.",
            by("adaptive_retry_attempt_type", rate("attempts")),
        ),
        stacked(
            "Failures by error",
            "Attempts that failed, per second, by status or exception.",
            by("error_type", rate("failures")),
        ),
        lines(
            "Amplification by origin",
            "Attempts for each call, by origin, over five minutes; the line is where the alert on retry storms begins.",
            recorded_by_origin("amplification:ratio_rate5m"),
            alert="AdaptiveRetryStorm",
        ),
    ],
    "Why retries were not made": [
        stacked(
            "Suppressed retries by reason",
            "Failed calls that were not retried (further), per second.",
            by_reason("retries_suppressed", ORIGIN),
        ),
        lines(
            "Wasted retries by origin",
            "Retries that mended nothing, per second, over five minutes.",
            recorded_by_origin("wasted_retries:rate5m"),
            unit="reqps",
        ),
    ],
    "Origins": [
        stacked(
            "Origins by state",
            "The state of each origin as its processes see it, summed over processes.",
            by("adaptive_retry_state", level("origin_state")),
            unit="short",
            width=8,
        ),
        lines(
            "Share of processes that see an origin down",
            "Above the line the alert fires.",
            recorded_by_origin("down:ratio"),
            unit="percentunit",
            alert="AdaptiveRetryOriginDown",
            width=8,
            most=1.0,
        ),
        lines(
            "Calls held",
            "Calls that wait for their origin to come back.",
            by_origin("calls_held"),
            width=8,
        ),
        lines(
            "Origins in the table",
            "Origins that are remembered, by process, against the most there can be.",
            by_instance("origins_active", how="sum"),
            by("job", level("origins_limit", PROCESS), "limit", how="max"),
        ),
        lines(
            "Origins let go",
            "Per second, by reason: idle, memory, or more than the table holds.",
            by_reason("origins_evicted"),
            unit="ops",
        ),
    ],
    "Windows": [
        lines(
            "Window length against limit",
            "Attempts in the windows, summed over processes, and what they can hold.",
            by_origin("window_length"),
            by("job", level("window_limit"), "limit of all"),
        ),
        lines(
            "Clean-ups and evictions",
            "Clean-up events, and attempts dropped from windows, per second, by reason.",
            by_reason("cleanups", says="clean-up: "),
            by_reason("window_evicted", says="evicted: "),
            unit="ops",
        ),
        lines(
            "Clean-ups under pressure",
            "Clean-ups a minute for memory or too many origins; above the line the alert fires.",
            Query(
                f"{by('instance', rate('cleanups', PROCESS, UNDER_PRESSURE)).expression} * 60",
                "{{instance}}",
            ),
            unit="opm",
            alert="AdaptiveRetryCleanupPressure",
        ),
        lines(
            "Window memory against its limit",
            "Share of what the windows may ever hold, by process; above the line the alert fires.",
            Query(f"instance:adaptive_retry_window_memory:ratio{{{PROCESS}}}", "{{instance}}"),
            Query(
                ratio(
                    level("window_memory_usage_bytes"), level("window_memory_limit_bytes", PROCESS)
                ),
                "all",
            ),
            unit="percentunit",
            alert="AdaptiveRetryWindowMemoryNearLimit",
            most=1.0,
        ),
    ],
    "Memory of the process": [
        lines(
            "Resident memory against threshold",
            "Memory of each process as last sampled, and where its pressure begins.",
            by_instance("memory_usage_bytes"),
            by_instance("memory_threshold_bytes", "threshold of {{instance}}", how="min"),
            unit="bytes",
        ),
        lines(
            "Under memory pressure",
            "1 while a process cuts its windows.",
            by_instance("memory_pressure"),
            most=1.0,
        ),
    ],
    "Budget and delays": [
        lines(
            "Retry budget",
            "Retries that could be paid for now, and what can be saved up.",
            by_origin("budget_available"),
            by("job", level("budget_limit"), "limit of all"),
            width=8,
        ),
        lines(
            "Failed for an empty budget",
            "Share of the calls that were not retried since nothing was left; above the line the alert fires.",
            recorded_by_origin("budget_exhausted:ratio_rate5m"),
            unit="percentunit",
            alert="AdaptiveRetryBudgetExhausted",
            width=8,
        ),
        heat_map(
            "Waits before retries",
            "How long retries waited, the time they were held included.",
            by("le", f"increase({level('retry_delay_seconds_bucket')}[$__rate_interval])"),
            unit="s",
            width=8,
        ),
    ],
    "Telemetry itself": [
        lines(
            "Scrapes",
            "Whether Prometheus gets an answer from the collector.",
            by("job", 'up{job=~"otel-collector.*"}', how="max"),
            most=1.0,
            width=8,
        ),
        lines(
            "Points through the collector",
            "Points that the collector took in per second, and points that it sent on.",
            by("receiver", of_collector("receiver_accepted"), "accepted by {{receiver}}"),
            by("exporter", of_collector("exporter_sent"), "sent by {{exporter}}"),
            Query(f"sum({of_collector('exporter_send_failed')}) or vector(0)", "failed"),
            unit="cps",
            alert="AdaptiveRetryCollectorExportFailing",
            width=8,
        ),
        number(
            "Faults of our own",
            "Errors of the middleware's own bookkeeping since the process began. No call suffered; please report them.",
            Query(f"sum({level('faults_total', PROCESS)}) or vector(0)", "faults"),
            width=8,
        ),
        lines(
            "Requests that left the middleware out",
            "Requests whose own list of middlewares has none of ours, per second; seen where `attach` or `instrument` is used.",
            Query(
                f"sum(rate({level('bypassed_total', PROCESS)}[$__rate_interval])) or vector(0)",
                "requests",
            ),
            unit="reqps",
            width=8,
        ),
    ],
}


def thresholds() -> dict[str, float]:
    """The threshold of each alert: the first number that its expression compares with."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    found = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        threshold = re.search(r"> ([\d.]+)", rule["expr"])
        if threshold is not None:
            found[rule["alert"]] = float(threshold[1])
    return found


def made() -> str:
    """The dashboard as JSON."""
    return encoded(
        NAME,
        "What retries, budgets, windows, clean-ups and memory do.",
        variables={
            "job": "label_values(adaptive_retry_origins_limit, job)",
            "instance": 'label_values(adaptive_retry_origins_limit{job=~"$job"}, instance)',
            "origin": 'label_values(adaptive_retry_requests_total{job=~"$job"}, server_address)',
        },
        rows=ROWS,
        thresholds=thresholds(),
    )


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(made(), encoding="utf-8")
