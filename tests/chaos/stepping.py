"""Cancelling a task at the n-th point at which it waits, and finding what it left behind."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Generator
from typing import Any, Final, Literal, TypeVar, cast

__all__ = ("Complaints", "Moment", "cancelled_at")

_T = TypeVar("_T")

#: "waiting": what the call waits for has not come. "come": it has come in the same turn of the
#: loop, and the call has not been told yet; what it was to get must not be lost.
Moment = Literal["waiting", "come"]


class _Stepped:
    """Awaits a coroutine, and has its own task cancelled at the n-th wait."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: int, moment: Moment) -> None:
        self._work = work
        self._at = at
        self._moment = moment
        self.waits = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                awaited = self._work.send(value) if error is None else self._work.throw(error)
            except StopIteration as end:
                return end.value
            self.waits += 1
            if self.waits == self._at:
                self._cancel(awaited)
            value, error = None, None
            try:
                value = yield awaited
            except BaseException as thrown:
                error = thrown

    def _cancel(self, awaited: Any) -> None:
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        if awaited is None or self._moment == "waiting":
            # Thrown in as soon as it waits.
            task.cancel()
        else:
            # Called before the task is woken, and after what it waits for is done.
            awaited.add_done_callback(lambda _: task.cancel())


async def cancelled_at(
    work: Coroutine[Any, Any, _T], at: int, moment: Moment
) -> tuple[bool, int, _T | None]:
    """Run it in a task of its own: whether it was cancelled, how often it waited, and its result.

    A call that waits fewer than `at` times comes to its end.
    """
    stepped = _Stepped(work, at, moment)

    async def run() -> Any:
        return await stepped

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if task.cancelled():
        return True, stepped.waits, None
    return False, stepped.waits, task.result()


_TURNS: Final = 5


class Complaints:
    """What the loop, or the collector, complains of; and tasks that are left."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_debug(True)
        # Debug mode is here for what it finds, and not for the slowness of a busy machine.
        self._loop.slow_callback_duration = 60.0
        self.heard: list[str] = []
        self._loop.set_exception_handler(
            lambda _, context: self.heard.append(f"{context['message']}: {context}")
        )
        self._before = asyncio.all_tasks()

    async def settle(self, *, collect: bool = False) -> list[str]:
        """All complaints once everything that has ended has had its say, the collector too."""
        if collect:
            gc.collect()
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - self._before
        return self.heard + [f"left: {task!r}" for task in left]
