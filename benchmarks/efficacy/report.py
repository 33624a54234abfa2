"""Tables for people and JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .conditions import CONDITIONS
from .registry import BOUND
from .runner import METRICS, Cell

_HEADINGS = {
    "success": "success",
    "attempts": "attempts",
    "fault_attempts": "in fault",
    "wasted": "wasted",
    "waiting": "waiting s",
    "recovery": "recovery s",
    "value": "value",
}

_BEATEN = -0.01


def _names(cells: Sequence[Cell], attribute: str) -> list[str]:
    return list(dict.fromkeys(getattr(cell, attribute) for cell in cells))


def regret_table(cells: Sequence[Cell]) -> str:
    """Return conditions x policies: pooled regret and its spread; averages and worsts below."""
    conditions = _names(cells, "condition")
    policies = [name for name in _names(cells, "policy") if name != BOUND]
    by_key = {(cell.condition, cell.policy): cell for cell in cells}
    width = max(11, *(len(name) + 1 for name in policies))
    first = max(len(name) for name in conditions)
    lines = [" " * first + "".join(name.rjust(width) for name in policies)]

    def row(condition: str) -> str:
        found = [by_key[condition, policy] for policy in policies]
        texts = "".join(f"{c.regret:.2f}±{c.spread:.2f}".rjust(width) for c in found)
        return condition.ljust(first) + texts

    lines += [row(condition) for condition in conditions if condition in CONDITIONS]
    summary = summaries(cells)
    if summary:
        for label in ("average", "worst", "against_admit"):
            values = "".join(f"{summary[name][label]:.2f}".rjust(width) for name in policies)
            lines.append(label.ljust(first) + values)
        worst = "  ".join(f"{name}: {summary[name]['worst_in']}" for name in policies)
        lines += ["", f"worst in  {worst}"]
    others = [condition for condition in conditions if condition not in CONDITIONS]
    if others:
        lines += ["", "shown, not averaged:", *map(row, others)]
    lines += [
        f"note: {c.policy} is above the bound in {c.condition}: regret {c.regret_admit:.3f}"
        for c in cells
        if c.regret_admit < _BEATEN
    ]
    return "\n".join(lines)


def details(cells: Sequence[Cell]) -> str:
    """Return one table per condition: all metrics of all policies, mean ± deviation."""
    lines = []
    width = 15
    for condition in _names(cells, "condition"):
        lines.append(condition)
        lines.append(" " * 14 + "".join(h.rjust(width) for h in _HEADINGS.values()))
        for cell in (c for c in cells if c.condition == condition):
            texts = [
                "-" if math.isnan(cell.mean(m)) else f"{cell.mean(m):.3f}±{cell.deviation(m):.3f}"
                for m in _HEADINGS
            ]
            lines.append(cell.policy.ljust(14) + "".join(text.rjust(width) for text in texts))
        lines.append("")
    return "\n".join(lines)


def summaries(cells: Sequence[Cell]) -> dict[str, dict[str, Any]]:
    """Return each policy's average and worst regret over the conditions, and where that was.

    In the average what is below 0 counts as 0; ``against_admit`` is the average against the client
    that also chooses when to send first attempts.
    """
    summary: dict[str, dict[str, Any]] = {}
    for policy in _names(cells, "policy"):
        mine = [cell for cell in cells if cell.policy == policy and cell.condition in CONDITIONS]
        if not mine:
            continue
        worst = max(mine, key=lambda cell: cell.regret)
        summary[policy] = {
            "average": sum(max(0.0, cell.regret) for cell in mine) / len(mine),
            "against_admit": sum(cell.regret_admit for cell in mine) / len(mine),
            "worst": worst.regret,
            "worst_in": worst.condition,
        }
    return summary


def as_json(cells: Sequence[Cell], seeds: Sequence[int]) -> dict[str, Any]:
    """Return all results as plain values; what is not defined is None."""
    conditions: dict[str, Any] = {}
    for cell in cells:
        entry: dict[str, Any] = {
            "regret": cell.regret,
            "regret_admit": cell.regret_admit,
            "regret_spread": cell.spread,
        }
        for metric in METRICS:
            mean = cell.mean(metric)
            entry[metric] = {
                "mean": None if math.isnan(mean) else mean,
                "spread": cell.deviation(metric),
                "by_seed": [_plain(getattr(one, metric)) for one in cell.scores],
            }
        conditions.setdefault(cell.condition, {})[cell.policy] = entry
    return {"seeds": list(seeds), "conditions": conditions, "policies": summaries(cells)}


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value
