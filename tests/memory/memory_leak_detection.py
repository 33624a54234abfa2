"""A profiler for leak tests: what this process's Python objects take, above a baseline."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from types import TracebackType

import psutil

MIB = 1024 * 1024


class MemoryProfiler:
    """Measures growth from `start` on, in MiB of traced allocations.

    Traced allocations and not the resident size: they are exact, repeatable, and not shaken by
    what the allocator keeps. `resident_growth_mb` has the latter, for bounds that are wide.
    """

    def __init__(self) -> None:
        self._traced = 0
        self._resident = 0
        self._blocks = 0

    def start(self) -> None:
        """Take the baseline."""
        gc.collect()
        if not tracemalloc.is_tracing():
            tracemalloc.start()
        self._traced = tracemalloc.get_traced_memory()[0]
        self._resident = psutil.Process().memory_info().rss
        self._blocks = sys.getallocatedblocks()

    def get_current_memory_mb(self) -> float:
        """MiB allocated since `start` and still held."""
        gc.collect()
        return (tracemalloc.get_traced_memory()[0] - self._traced) / MIB

    def resident_growth_mb(self) -> float:
        """MiB by which the process has grown since `start`."""
        gc.collect()
        return float(psutil.Process().memory_info().rss - self._resident) / MIB

    def stop(self) -> None:
        """Stop tracing, which slows everything down."""
        tracemalloc.stop()

    def __enter__(self) -> MemoryProfiler:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
