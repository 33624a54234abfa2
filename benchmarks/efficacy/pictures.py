"""Two pictures: all regrets at a glance, and one outage over time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from .conditions import CONDITIONS, make_world
from .engine import simulate
from .registry import BOUND, FIXED, POLICIES
from .report import summaries
from .runner import Cell

_DPI = 110
_OUTAGE = "outage_refused"


def draw_regrets(path: Path, cells: Sequence[Cell]) -> None:
    """Conditions against policies, the darker the worse; policies ordered by their average."""
    summary = summaries(cells)
    averages = {name: row["average"] for name, row in summary.items() if name != BOUND}
    policies = sorted(averages, key=averages.__getitem__)
    conditions = [name for name in dict.fromkeys(c.condition for c in cells) if name in CONDITIONS]
    found = {(cell.condition, cell.policy): cell.regret for cell in cells}
    grid = [[found[condition, policy] for policy in policies] for condition in conditions]
    figure, axes = plt.subplots(figsize=(1.0 + 0.78 * len(policies), 1.6 + 0.36 * len(conditions)))
    axes.imshow(grid, cmap="RdYlGn_r", vmin=-0.2, vmax=1.2, aspect="auto")
    axes.set_xticks(
        range(len(policies)),
        [f"{name}\n{summary[name]['average']:.2f}" for name in policies],
        rotation=35,
        ha="left",
        rotation_mode="anchor",
    )
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(conditions)), conditions)
    for y, row in enumerate(grid):
        for x, value in enumerate(row):
            axes.text(x, y, f"{value:.2f}", ha="center", va="center", fontsize=7)
    axes.set_xlabel("regret: 0 clairvoyant retries, 1 worse of never and always; average on top")
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")
    plt.close(figure)


def draw_outage(path: Path, seed: int) -> None:
    """Attempts per second of the plain loop and of ours, and the calls that asked for them."""
    world = make_world(_OUTAGE, seed)
    start, end = world.faults[0]
    seconds = range(int(world.horizon) + 15)
    figure, (upper, lower) = plt.subplots(2, sharex=True, figsize=(9, 6))
    asked = Counter(int(arrival.time) for arrival in world.arrivals)
    for axes in (upper, lower):
        axes.axvspan(start, end, color="0.92", label="nobody answers")
        axes.step(seconds, [asked[s] for s in seconds], "k:", where="post", label="calls")
    looks = {FIXED: "tab:red", "ours": "tab:blue", "ours_admit": "tab:green"}
    for name, color in looks.items():
        run = simulate(make_world(_OUTAGE, seed), POLICIES[name])
        sent = Counter(int(time) for time in run.attempt_times)
        served = Counter(int(record.ended) for record in run.records if record.ok)
        label = "plain loop of three" if name == FIXED else name.replace("_", " + ")
        upper.step(seconds, [sent[s] for s in seconds], color, where="post", label=label)
        lower.step(seconds, [served[s] for s in seconds], color, where="post", label=label)
    upper.set_ylabel("attempts / s")
    lower.set_ylabel("calls that succeed / s")
    lower.set_xlabel("s")
    upper.legend(loc="upper right", fontsize=8)
    figure.suptitle(f"{_OUTAGE}, seed {seed}: {world.clients} clients, simulated")
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")
    plt.close(figure)
