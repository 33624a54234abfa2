"""Panels and queries as values, and their JSON, which Grafana's own Foundation SDK writes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, NamedTuple

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

_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


class Query(NamedTuple):
    """An expression of Prometheus, and the legend of its lines."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel: its queries, and what they are measured in.

    `alert` names the alert whose threshold is drawn. `width` is of 24. `most` ends the axis.
    """

    title: str
    text: str
    queries: tuple[Query, ...]
    kind: str
    unit: str
    width: int
    alert: str | None = None
    most: float | None = None


def encoded(
    name: str,
    description: str,
    *,
    variables: Mapping[str, str],
    rows: Mapping[str, Sequence[Panel]],
    thresholds: Mapping[str, float],
) -> str:
    """A dashboard as JSON.

    Args:
        variables: what can be chosen beside the data source, with the query for the choices.
        rows: the panels by the title of their row.
        thresholds: where each alert begins.
    """
    board = (
        d.Dashboard(name)
        .uid(name)
        .description(description)
        .tags(["aiohttp", "retry", "opentelemetry"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(d.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )
    for variable, query in variables.items():
        board.with_variable(_variable(variable, query))
    numbers = itertools.count(1)
    for title, panels in rows.items():
        board.with_row(d.Row(title).id(next(numbers)))
        for panel in panels:
            red = None if panel.alert is None else thresholds[panel.alert]
            board.with_panel(_panel(panel, red).id(next(numbers)))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _panel(panel: Panel, red: float | None) -> Any:
    """The panel for the SDK, red from a value on."""
    builder: Any
    if panel.kind == "stat":
        builder = stat.Panel().reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    elif panel.kind == "heatmap":
        builder = _heat_map().y_axis(heatmap.YAxisConfig().unit(panel.unit))
    else:
        builder = _time_series(panel)
    if panel.kind != "heatmap":
        steps = [Threshold(color="green")]
        if red is not None:
            steps.append(Threshold(value=red, color="red"))
        builder.thresholds(d.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.most is not None:
        builder.max(panel.most)
    for target in _targets(panel):
        builder.with_target(target)
    builder.title(panel.title).description(panel.text).unit(panel.unit).datasource(_SOURCE)
    return builder.span(panel.width).height(5 if panel.kind == "stat" else 8)


def _heat_map() -> heatmap.Panel:
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges")
    colours.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5).steps(64).reverse(False)
    return heatmap.Panel().calculate(False).color(colours)


def _time_series(panel: Panel) -> timeseries.Panel:
    legend = VizLegendOptions().show_legend(True).calcs(["lastNotNull", "max"])
    legend.display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.BOTTOM)
    builder = timeseries.Panel().fill_opacity(10).legend(legend).min(0)
    if panel.kind == "stacked":
        builder.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.alert is not None:
        dashed = GraphThresholdsStyleConfig().mode(common.GraphTresholdsStyleMode.DASHED)
        builder.thresholds_style(dashed)
    return builder


def _targets(panel: Panel) -> Iterator[prometheus.Dataquery]:
    for letter, (expression, legend) in zip(ascii_uppercase, panel.queries, strict=False):
        query = prometheus.Dataquery().expr(expression).legend_format(legend)
        if panel.kind == "heatmap":
            query.format(PromQueryFormat.HEATMAP)
        yield query.ref_id(letter).datasource(_SOURCE).range()


def _variable(name: str, query: str) -> d.QueryVariable:
    return (
        d.QueryVariable(name)
        .label(name.capitalize())
        .datasource(_SOURCE)
        .query(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )
