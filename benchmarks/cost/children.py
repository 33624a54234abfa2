"""Work in a process of its own: fresh memory, fresh label bounds, no instrumentation left over."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

__all__ = ("in_child",)

P = ParamSpec("P")
T = TypeVar("T")


def in_child(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a module's function in a new interpreter and wait for what it gives back."""
    # Spawned and not forked: a fork would begin with our heap, and its memory would tell nothing.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *args, **kwargs).result()
