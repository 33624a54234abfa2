"""A server in a process of its own, so that its time is not counted as the client's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Concatenate, ParamSpec

__all__ = ("child", "first_word")

_STARTS_WITHIN = 30.0
_ENDS_WITHIN = 5.0

_P = ParamSpec("_P")


@contextmanager
def child(
    main: Callable[Concatenate[Connection, _P], None], *args: _P.args, **kwargs: _P.kwargs
) -> Iterator[Connection]:
    """Run `main` in a child process; gives our end of the pipe to it.

    The pipe is closed when the body of the `with` ends, which `main` has to take for its own end.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=main, args=(theirs, *args), kwargs=kwargs, daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(_ENDS_WITHIN)
        if process.is_alive():
            process.terminate()
            process.join()


def first_word(pipe: Connection) -> Any:
    """What the child sends as soon as it serves.

    Raises:
        RuntimeError: the child did not start in time.
    """
    if not pipe.poll(_STARTS_WITHIN):
        raise RuntimeError("the server did not start")
    return pipe.recv()
