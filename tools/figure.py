"""Draws the dashboard's panels from a Prometheus: what Grafana would show, drawn by matplotlib.

The figure replaces a screenshot where no Grafana is at hand. The end-to-end test draws the figure
while its Prometheus runs: `make dashboard-figure`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from .panels import panels, queries

__all__ = ("draw",)

#: Gives the rows of a query over time, as Prometheus's API does.
Fetch = Callable[[str], Sequence[Mapping[str, Any]]]

_COLUMNS = 4
_MOST_LINES = 8


def draw(
    path: Path, dashboard: Mapping[str, Any], variables: Mapping[str, str], fetch: Fetch
) -> None:
    """Write a picture of all panels, in their order, with the data that `fetch` gives."""
    found = list(panels(dashboard))
    asked = queries(dashboard, variables)
    rows = -(-len(found) // _COLUMNS)
    figure, grid = plt.subplots(rows, _COLUMNS, figsize=(5.2 * _COLUMNS, 2.9 * rows))
    for axes, panel in zip(grid.flat, found, strict=False):
        mine = [query for query in asked if query.panel == panel["title"]]
        lines = [
            (_legend(query.legend, row["metric"]), row["values"])
            for query in mine
            for row in fetch(query.expr)
        ]
        if panel["type"] == "heatmap":
            _heat_map(axes, lines)
        else:
            _lines(axes, panel, lines)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        axes.set_title(f"{panel['title']} [{unit}]", fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in list(grid.flat)[len(found) :]:
        axes.axis("off")
    figure.suptitle(
        f"{dashboard['title']}: the panels' queries, drawn by matplotlib from the Prometheus of "
        "the end-to-end test (no Grafana)"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=70)
    plt.close(figure)


def _legend(template: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def _lines(
    axes: Axes, panel: Mapping[str, Any], lines: Sequence[tuple[str, list[list[Any]]]]
) -> None:
    begin = min((values[0][0] for _, values in lines), default=0.0)
    for name, values in lines[:_MOST_LINES]:
        axes.plot(
            [time - begin for time, _ in values], [float(v) for _, v in values], label=name[:40]
        )
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    for step in steps:
        if step["value"] is not None:
            axes.axhline(step["value"], color="red", linestyle="--", linewidth=0.8)
    if lines:
        axes.legend(fontsize=6, loc="best")


def _heat_map(axes: Axes, lines: Sequence[tuple[str, list[list[Any]]]]) -> None:
    """Buckets are cumulative over `le`; what is shown is what fell between two."""
    ordered = sorted(lines, key=lambda line: float(line[0].replace("+Inf", "inf")))
    times = sorted({time for _, values in ordered for time, _ in values})
    below = [0.0] * len(times)
    cells = []
    for _, values in ordered:
        known = {time: float(value) for time, value in values}
        row = [known.get(time, 0.0) for time in times]
        cells.append([max(0.0, now - before) for now, before in zip(row, below, strict=True)])
        below = row
    axes.imshow(cells, aspect="auto", origin="lower", cmap="Oranges")
    axes.set_yticks(range(len(ordered)), [f"≤ {name} s" for name, _ in ordered])
