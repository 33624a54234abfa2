"""A picture of harm: all worlds of every policy, the worst on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

from ..registry import NONE
from .plan import LOOPS
from .policies import PURSES, judged
from .report import HARM, harm
from .results import Outcome

_DPI = 110
_BOLD = {
    "ours": "tab:blue",
    "ours_admit": "tab:green",
    "eight_lines": "tab:orange",
    "sixty_lines": "tab:red",
}


def draw_harm(path: Path, outcomes: Sequence[Outcome], policies: Sequence[str]) -> None:
    """Draw harm against the share of worlds that have no more of it, for each loop and purse."""
    loops = [loop for loop in LOOPS if any(one.loop == loop for one in outcomes)]
    size = (5.2 * len(PURSES), 3.8 * len(loops))
    figure, grid = plt.subplots(
        len(loops), len(PURSES), figsize=size, sharex=True, sharey=True, squeeze=False
    )
    for loop, line in zip(loops, grid, strict=True):
        mine = [one for one in outcomes if one.loop == loop]
        shares = [100.0 * (index + 1) / len(mine) for index in range(len(mine))]
        for purse, axes in zip(PURSES, line, strict=True):
            axes.set_yscale("symlog", linthresh=HARM)
            axes.axhspan(-HARM, HARM, color="0.94")
            axes.axhline(0.0, color="0.6", linewidth=0.8)
            axes.set_title(f"{loop} loops, waiting paid by the {purse}", fontsize=10)
            others = iter(plt.colormaps["tab20b"].colors)  # type: ignore[attr-defined]
            for policy in policies:
                if policy == NONE or not judged(policy, purse):
                    continue
                bold = _BOLD.get(policy)
                axes.plot(
                    shares,
                    sorted(harm(one, policy, purse) for one in mine),
                    color=bold or next(others),
                    linewidth=2.0 if bold else 0.8,
                    zorder=3 if bold else 2,
                    label=policy,
                )
    for axes in grid[-1]:
        axes.set_xlabel("% of worlds, by harm")
    for line in grid:
        line[0].set_ylabel("harm against never retrying, points")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=_DPI, bbox_inches="tight")
    plt.close(figure)
