"""Section 5: what trouble costs: calls that fail, calls that are held, and letting go of them."""

from __future__ import annotations

import asyncio

from .effort import Effort
from .failing import failing
from .parked import parked
from .result import Section

__all__ = ("trouble",)


def trouble(effort: Effort) -> Section:
    """Measure, and judge."""
    section = Section(
        title="Trouble",
        text=(
            "Calls through the whole middleware, with handlers that answer or fail at once. The "
            "first table is microseconds of process time above the bare attempts that a call "
            f"makes, in {effort.failing_rounds} interleaved rounds in rotating order; waits end at "
            "once. The no-op middleware tells how fast the machine is. Calls are held because "
            "their origin refuses connections; they have a minute and may be held for all of it "
            "(`hold_cap=60`, `hold_share=1`). Clock, waits and loop are real, and the process does "
            "nothing else. The processor's share is the median of "
            f"{effort.parked_windows} windows of {effort.parked_window:g} s, without the share of "
            "the idle loop. Bare wakes are those of as many tasks that only sleep, and wake as "
            "often. Bytes are counted by tracemalloc, the task and not the request among them; a "
            "bare task only waits. Lag is how late a tick of one millisecond comes. "
            f"{effort.let_go_rounds} rounds."
        ),
    )
    table, goals = asyncio.run(failing(effort))
    section.tables.append(table)
    section.goals += goals
    parked(effort, section)
    return section
