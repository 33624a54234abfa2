"""What the dashboard's panels ask of Prometheus, with the variables filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ("Query", "panels", "queries")

#: What Grafana fills in by itself, for a scrape a second.
_BUILT_IN = {"__rate_interval": "5s", "__interval": "1s", "__range": "60s"}


class Query(NamedTuple):
    """One target of a panel."""

    panel: str
    expr: str
    legend: str


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The panels of a dashboard, those in rows included, the rows themselves not."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panels(panel)
        else:
            yield panel


def queries(dashboard: Mapping[str, Any], variables: Mapping[str, str]) -> list[Query]:
    """All queries in the order of the panels.

    Args:
        variables: the dashboard's own (`job`, `instance`, `origin`), as regular expressions; what
            Grafana fills in by itself has a value that suits a scrape a second, if none is given.

    Raises:
        KeyError: a query has a variable that has no value.
    """
    values = {**_BUILT_IN, **variables}

    def filled(text: str) -> str:
        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: values[found[1] or found[2]], text)

    return [
        Query(panel["title"], filled(target["expr"]), target.get("legendFormat", ""))
        for panel in panels(dashboard)
        for target in panel["targets"]
    ]
