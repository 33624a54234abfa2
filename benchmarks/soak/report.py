"""The samples as a file and as a picture, and what they come to."""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from .driver import SERIES, Soak

__all__ = ("draw", "verdict", "write")


def verdict(result: Soak) -> str:
    """Each series, how much it grew after the warm-up, and whether that is growth."""
    seconds = result.samples["seconds"]
    lines = [
        f"{result.succeeded} calls succeeded, {result.failed} failed, {result.cancelled} were "
        f"cancelled; {result.exports} exports arrived; judged from "
        f"{seconds[result.measured]:.0f} to {seconds[-1]:.0f} s:"
    ]
    for name, found in result.trends().items():
        lines.append(
            f"  {name:<18}{found.growth:>+14.0f}  chance {found.chance:8.5f}  matters from "
            f"{found.least:>9.0f}  {'GROWS' if found.grows else 'flat'}"
        )
    return "\n".join(lines)


def write(path: Path, result: Soak) -> None:
    """All samples, a line each."""
    names = ["seconds", *SERIES]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*(result.samples[name] for name in names), strict=True))


def draw(path: Path, result: Soak) -> None:
    """Every series over time; what is not judged is grey."""
    seconds = result.samples["seconds"]
    figure, grid = plt.subplots(len(SERIES), sharex=True, figsize=(9, 1.7 * len(SERIES)))
    for axes, (name, found) in zip(grid, result.trends().items(), strict=True):
        axes.plot(seconds, result.samples[name], linewidth=0.8)
        axes.axvspan(0, seconds[result.measured], color="0.92")
        axes.set_ylabel(name, fontsize=8)
        axes.set_title(
            f"{found.growth:+.0f}, {'grows' if found.grows else 'flat'}", fontsize=8, loc="right"
        )
    grid[-1].set_xlabel("s")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)
