"""Makes collector-config/grafana/dashboard.json: `make dashboard`.

Over Grafana's own Foundation SDK, so that what it writes is of the schema that Grafana reads. The
layout is the table at the end; thresholds are read from the alerts, so that both say the same.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import dashboard as d
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "collector-config" / "prometheus" / "alerts.yaml"
OUTPUT = ROOT / "collector-config" / "grafana" / "dashboard.json"

UID = "aiohttp-adaptive-retry"
TITLE = "aiohttp-adaptive-retry"

# What every query selects by. J: a process; O: an origin of it.
J = 'job=~"$job", instance=~"$instance"'
O = J + ', server_address=~"$origin"'  # noqa: E741  (as README's table has it)
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel: its queries with their legends, and what they are measured in.

    `alert` names the alert whose threshold is drawn. `width` is of 24.
    """

    title: str
    text: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    alert: str | None = None
    kind: str = "timeseries"
    stacked: bool = False
    width: int = 12
    most: float | None = None


@dataclass(frozen=True)
class Row:
    """A concern, and its panels."""

    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, matchers: str, *by: str) -> str:
    """Per second, of a counter, summed by labels."""
    return (
        f"sum by ({', '.join(by)}) (rate(adaptive_retry_{metric}{{{matchers}}}[$__rate_interval]))"
    )


def level(metric: str, matchers: str, *by: str, how: str = "sum") -> str:
    """A level as it is, summed by labels (or `how` else)."""
    return f"{how} by ({', '.join(by)}) (adaptive_retry_{metric}{{{matchers}}})"


def thresholds() -> dict[str, float]:
    """The threshold of each alert: the first number that its expression compares with."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    found = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        number = re.search(r"> ([\d.]+)", rule["expr"])
        if number is not None:
            found[rule["alert"]] = float(number[1])
    return found


_SUCCESSES = 'adaptive_retry_outcome=~"first_success|retry_success"'
_COLLECTOR = 'job=~"otel-collector.*"'

ROWS = (
    Row(
        "At a glance",
        (
            Panel(
                title="Success",
                text="Share of calls that succeeded, at once or by a retry. Cancelled ones are left out.",
                queries=(
                    (
                        f"sum(rate(adaptive_retry_requests_total{{{O}, {_SUCCESSES}}}[$__rate_interval])) / "
                        f'sum(rate(adaptive_retry_requests_total{{{O}, adaptive_retry_outcome!="ignored"}}'
                        "[$__rate_interval]))",
                        "success",
                    ),
                ),
                unit="percentunit",
                kind="stat",
                width=6,
            ),
            Panel(
                title="Amplification",
                text="Attempts on the wire for each call; 1 is no retries. Where the alert on retry "
                "storms begins it turns red.",
                queries=(
                    (
                        f"sum(rate(adaptive_retry_attempts_total{{{O}}}[$__rate_interval])) / "
                        f"sum(rate(adaptive_retry_requests_total{{{O}}}[$__rate_interval]))",
                        "attempts per call",
                    ),
                ),
                alert="AdaptiveRetryStorm",
                kind="stat",
                width=6,
            ),
            Panel(
                title="Origins down",
                text="Origins that some process takes to be down now.",
                queries=(
                    (
                        "count(sum by (server_address, server_port) "
                        f'(adaptive_retry_origin_state{{{O}, adaptive_retry_state="down"}}) > 0) '
                        "or vector(0)",
                        "origins",
                    ),
                ),
                alert="AdaptiveRetryOriginDown",
                kind="stat",
                width=6,
            ),
            Panel(
                title="Memory of windows",
                text="All windows of all processes together.",
                queries=((level("window_memory_usage_bytes", O, how="sum"), "windows"),),
                unit="bytes",
                kind="stat",
                width=6,
            ),
        ),
    ),
    Row(
        "Requests and retries",
        (
            Panel(
                title="Calls by outcome",
                text="Calls that ended, per second.",
                queries=(
                    (
                        rate("requests_total", O, "adaptive_retry_outcome"),
                        "{{adaptive_retry_outcome}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                title="Attempts by type",
                text="Attempts on the wire, per second: first ones and retries.",
                queries=(
                    (
                        rate("attempts_total", O, "adaptive_retry_attempt_type"),
                        "{{adaptive_retry_attempt_type}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                title="Failures by error",
                text="Attempts that failed, per second, by status or exception.",
                queries=((rate("failures_total", O, "error_type"), "{{error_type}}"),),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                title="Amplification by origin",
                text="Attempts for each call, by origin, over five minutes; the line is where the "
                "alert on retry storms begins.",
                queries=(
                    (
                        'job_origin:adaptive_retry_amplification:ratio_rate5m{job=~"$job", '
                        'server_address=~"$origin"}',
                        "{{server_address}}:{{server_port}}",
                    ),
                ),
                alert="AdaptiveRetryStorm",
            ),
        ),
    ),
    Row(
        "Why retries were not made",
        (
            Panel(
                title="Suppressed retries by reason",
                text="Failed calls that were not retried (further), per second.",
                queries=(
                    (
                        rate("retries_suppressed_total", O, "adaptive_retry_reason"),
                        "{{adaptive_retry_reason}}",
                    ),
                ),
                unit="reqps",
                stacked=True,
            ),
            Panel(
                title="Wasted retries by origin",
                text="Retries that mended nothing, per second, over five minutes.",
                queries=(
                    (
                        'job_origin:adaptive_retry_wasted_retries:rate5m{job=~"$job", '
                        'server_address=~"$origin"}',
                        "{{server_address}}:{{server_port}}",
                    ),
                ),
                unit="reqps",
            ),
        ),
    ),
    Row(
        "Origins",
        (
            Panel(
                title="Origins by state",
                text="What the processes take their origins to be, summed over processes.",
                queries=(
                    (level("origin_state", O, "adaptive_retry_state"), "{{adaptive_retry_state}}"),
                ),
                stacked=True,
                width=8,
            ),
            Panel(
                title="Share of processes that see an origin down",
                text="Above the line the alert fires.",
                queries=(
                    (
                        'job_origin:adaptive_retry_down:ratio{job=~"$job", server_address=~"$origin"}',
                        "{{server_address}}:{{server_port}}",
                    ),
                ),
                unit="percentunit",
                alert="AdaptiveRetryOriginDown",
                width=8,
                most=1.0,
            ),
            Panel(
                title="Calls held",
                text="Calls that wait for their origin to come back, or for the moment it named.",
                queries=(
                    (
                        level("calls_held", O, "server_address", "server_port"),
                        "{{server_address}}:{{server_port}}",
                    ),
                ),
                width=8,
            ),
            Panel(
                title="Origins in the table",
                text="Origins that are remembered, by process, against the most there can be.",
                queries=(
                    (level("origins_active", J, "instance"), "{{instance}}"),
                    (level("origins_limit", J, "job", how="max"), "limit"),
                ),
            ),
            Panel(
                title="Origins let go",
                text="Per second, by reason: idle, memory, or more than the table holds.",
                queries=(
                    (
                        rate("origins_evicted_total", J, "adaptive_retry_reason"),
                        "{{adaptive_retry_reason}}",
                    ),
                ),
                unit="ops",
            ),
        ),
    ),
    Row(
        "Windows",
        (
            Panel(
                title="Window length against limit",
                text="Attempts in the windows, summed over processes, and what they can hold.",
                queries=(
                    (
                        level("window_length", O, "server_address", "server_port"),
                        "{{server_address}}:{{server_port}}",
                    ),
                    (level("window_limit", O, "job"), "limit of all"),
                ),
            ),
            Panel(
                title="Clean-ups and evictions",
                text="Clean-up events, and attempts dropped from windows, per second, by reason.",
                queries=(
                    (
                        rate("cleanups_total", J, "adaptive_retry_reason"),
                        "clean-up: {{adaptive_retry_reason}}",
                    ),
                    (
                        rate("window_evicted_total", J, "adaptive_retry_reason"),
                        "evicted: {{adaptive_retry_reason}}",
                    ),
                ),
                unit="ops",
            ),
            Panel(
                title="Clean-ups under pressure",
                text="Clean-ups a minute for memory or too many origins; above the line the alert "
                "fires.",
                queries=(
                    (
                        "sum by (instance) (rate(adaptive_retry_cleanups_total{"
                        f'{J}, adaptive_retry_reason=~"memory|origin_limit"}}[$__rate_interval])) * 60',
                        "{{instance}}",
                    ),
                ),
                unit="opm",
                alert="AdaptiveRetryCleanupPressure",
            ),
            Panel(
                title="Window memory against its limit",
                text="Share of what the windows may ever hold, by process; above the line the alert "
                "fires.",
                queries=(
                    (
                        'instance:adaptive_retry_window_memory:ratio{job=~"$job", '
                        'instance=~"$instance"}',
                        "{{instance}}",
                    ),
                    (
                        f"sum(adaptive_retry_window_memory_usage_bytes{{{O}}}) / "
                        f"sum(adaptive_retry_window_memory_limit_bytes{{{J}}})",
                        "all",
                    ),
                ),
                unit="percentunit",
                alert="AdaptiveRetryWindowMemoryNearLimit",
                most=1.0,
            ),
        ),
    ),
    Row(
        "Memory of the process",
        (
            Panel(
                title="Resident memory against threshold",
                text="Memory of each process as last sampled, and where its pressure begins.",
                queries=(
                    (level("memory_usage_bytes", J, "instance", how="max"), "{{instance}}"),
                    (
                        level("memory_threshold_bytes", J, "instance", how="min"),
                        "threshold of {{instance}}",
                    ),
                ),
                unit="bytes",
            ),
            Panel(
                title="Under memory pressure",
                text="1 while a process cuts its windows.",
                queries=((level("memory_pressure", J, "instance", how="max"), "{{instance}}"),),
                most=1.0,
            ),
        ),
    ),
    Row(
        "Budget and delays",
        (
            Panel(
                title="Retry budget",
                text="Retries that could be paid for now, and what can be saved up.",
                queries=(
                    (
                        level("budget_available", O, "server_address", "server_port"),
                        "{{server_address}}:{{server_port}}",
                    ),
                    (level("budget_limit", O, "job"), "limit of all"),
                ),
                width=8,
            ),
            Panel(
                title="Failed for an empty budget",
                text="Share of the calls that were not retried since nothing was left; above the "
                "line the alert fires.",
                queries=(
                    (
                        'job_origin:adaptive_retry_budget_exhausted:ratio_rate5m{job=~"$job", '
                        'server_address=~"$origin"}',
                        "{{server_address}}:{{server_port}}",
                    ),
                ),
                unit="percentunit",
                alert="AdaptiveRetryBudgetExhausted",
                width=8,
            ),
            Panel(
                title="Waits before retries",
                text="How long retries waited, holds included.",
                queries=(
                    (
                        "sum by (le) (increase(adaptive_retry_retry_delay_seconds_bucket{"
                        f"{O}}}[$__rate_interval]))",
                        "{{le}}",
                    ),
                ),
                unit="s",
                kind="heatmap",
                width=8,
            ),
        ),
    ),
    Row(
        "Telemetry itself",
        (
            Panel(
                title="Scrapes",
                text="Whether Prometheus gets an answer from the collector.",
                queries=((f"max by (job) (up{{{_COLLECTOR}}})", "{{job}}"),),
                most=1.0,
                width=8,
            ),
            Panel(
                title="Points through the collector",
                text="Points that the collector took in per second, and points that it sent on.",
                queries=(
                    (
                        "sum by (receiver) (rate({__name__=~"
                        '"otelcol_receiver_accepted_metric_points(_total)?"}[$__rate_interval]))',
                        "accepted by {{receiver}}",
                    ),
                    (
                        "sum by (exporter) (rate({__name__=~"
                        '"otelcol_exporter_sent_metric_points(_total)?"}[$__rate_interval]))',
                        "sent by {{exporter}}",
                    ),
                    (
                        "sum(rate({__name__=~"
                        '"otelcol_exporter_send_failed_metric_points(_total)?"}[$__rate_interval])) '
                        "or vector(0)",
                        "failed",
                    ),
                ),
                unit="cps",
                alert="AdaptiveRetryCollectorExportFailing",
                width=8,
            ),
            Panel(
                title="Faults of our own",
                text="Errors of the middleware's own bookkeeping since the process began. No call "
                "suffered; please report them.",
                queries=((f"sum(adaptive_retry_faults_total{{{J}}}) or vector(0)", "faults"),),
                kind="stat",
                width=8,
            ),
        ),
    ),
)


def _thresholds(alert: str | None) -> d.ThresholdsConfig:
    """Green, and red from where the alert begins; Origins down, a count, is red from 1 on."""
    steps = [Threshold(color="green")]
    if alert is not None:
        steps.append(Threshold(value=thresholds()[alert], color="red"))
    return d.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _built(panel: Panel) -> Any:
    builder: Any
    if panel.kind == "stat":
        builder = stat.Panel().reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    elif panel.kind == "heatmap":
        scheme = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges")
        builder = (
            heatmap.Panel()
            .calculate(False)
            .color(
                scheme.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5).steps(64).reverse(False)
            )
        )
        builder = builder.y_axis(heatmap.YAxisConfig().unit("s"))
    else:
        legend = (
            VizLegendOptions()
            .show_legend(True)
            .display_mode(common.LegendDisplayMode.TABLE)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs(["lastNotNull", "max"])
        )
        builder = timeseries.Panel().fill_opacity(10).legend(legend).min(0)
        if panel.stacked:
            builder = builder.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
        if panel.alert is not None:
            builder = builder.thresholds_style(
                GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED)
            )
    builder = builder.title(panel.title).description(panel.text).unit(panel.unit)
    builder = builder.datasource(_SOURCE).span(panel.width).height(8 if panel.kind != "stat" else 5)
    if panel.kind != "heatmap":
        builder = builder.thresholds(_thresholds(panel.alert))
    if panel.most is not None:
        builder = builder.max(panel.most)
    for letter, (expression, legend_format) in zip("ABCD", panel.queries, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend_format)
        query = query.ref_id(letter).datasource(_SOURCE)
        if panel.kind == "heatmap":
            query = query.format(PromQueryFormat.HEATMAP)
        builder = builder.with_target(query.range())
    return builder


def _variable(name: str, label: str, query: str) -> d.QueryVariable:
    return (
        d.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def made() -> str:
    """The dashboard as JSON."""
    board = (
        d.Dashboard(TITLE)
        .uid(UID)
        .description("What retries, budgets, windows, clean-ups and memory do.")
        .tags(["aiohttp", "retry", "opentelemetry"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(d.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "Job", "label_values(adaptive_retry_origins_limit, job)"))
        .with_variable(
            _variable(
                "instance",
                "Instance",
                'label_values(adaptive_retry_origins_limit{job=~"$job"}, instance)',
            )
        )
        .with_variable(
            _variable(
                "origin",
                "Origin",
                'label_values(adaptive_retry_requests_total{job=~"$job"}, server_address)',
            )
        )
    )
    numbers = itertools.count(1)
    for row in ROWS:
        board = board.with_row(d.Row(row.title).id(next(numbers)))
        for panel in row.panels:
            board = board.with_panel(_built(panel).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(made(), encoding="utf-8")
