"""Prints the way of one call through the package: its files, its Python calls, and the call tree.

A real session calls a real server on loopback. A profile function sees each Python function of the
package that is entered. A coroutine counts once, and not each time it is resumed. The number of
calls is a measure of how much a reader has to follow; it says nothing about time.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import aiohttp
from aiohttp import web
from opentelemetry.sdk.metrics import MeterProvider

import aiohttp_adaptive_retry
from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

__all__ = ("SCENARIOS", "Scenario", "Step", "Walk", "walk")

PACKAGE: Final = aiohttp_adaptive_retry.__name__
FOLDER: Final = Path(aiohttp_adaptive_retry.__file__).parent
# A sweep that falls into a walk, or a pause of the machine that outlasts the quiet moment, only
# adds calls. So the shortest of some walks is the undisturbed one.
_TRIES: Final = 5


class Step(NamedTuple):
    """One Python call: how many of the package's frames are on the stack, its own included."""

    depth: int
    file: str
    function: str
    #: A constructor that `dataclass` wrote: it has no lines in the file.
    generated: bool = False


class Scenario(NamedTuple):
    """What the server answers to the call that is looked at; the last status is repeated."""

    title: str
    statuses: tuple[int, ...]


@dataclass(frozen=True)
class Walk:
    """What one call passed through."""

    scenario: Scenario
    steps: tuple[Step, ...]
    #: Requests that the server received for the call, and the status that the caller got.
    requests: int
    status: int

    @property
    def files(self) -> tuple[str, ...]:
        """The files passed through, in the order in which each was first entered.

        A file of which only a generated constructor ran has no line that a reader steps through,
        and does not count. The constructor counts as a call.
        """
        return tuple(dict.fromkeys(step.file for step in self.steps if not step.generated))

    @property
    def depth(self) -> int:
        """The most frames of the package on the stack at once."""
        return max((step.depth for step in self.steps), default=0)

    def __str__(self) -> str:
        lines = [
            f"{self.scenario.title}: {len(self.files)} files, {len(self.steps)} calls, "
            f"{self.depth} deep; {self.requests} requests, status {self.status}",
            f"  {', '.join(self.files)}",
        ]
        for step in self.steps:
            note = ", generated" if step.generated else ""
            lines.append(f"{'  ' * step.depth}{step.function}  ({step.file}{note})")
        return "\n".join(lines)


SCENARIOS: Final = (
    Scenario("a first success at a quiet moment", (200,)),
    Scenario("a 503, then a 200", (503, 200)),
    Scenario("a 503 for ever", (503,)),
)


async def walk(scenario: Scenario) -> Walk:
    """Follow one call to an origin that has had one success: the shortest of some walks."""
    walks = [await _walked(scenario) for _ in range(_TRIES)]
    return min(walks, key=lambda found: len(found.steps))


async def _walked(scenario: Scenario) -> Walk:
    received: list[int] = []
    statuses: tuple[int, ...] = (200,)

    async def answer(request: web.Request) -> web.Response:
        received.append(statuses[min(len(received), len(statuses) - 1)])
        return web.Response(status=received[-1], text="x")

    async def no_wait(seconds: float) -> None:
        """Chance decides how long a wait is; the way through the code is the same."""

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        url = f"http://{host}:{port}/"
        middleware = AdaptiveRetryMiddleware(
            meter_provider=MeterProvider(), sleep=no_wait, random=lambda: 0.5
        )
        async with aiohttp.ClientSession(middlewares=[middleware]) as session:
            async with session.get(url) as response:
                await response.read()
            received.clear()
            statuses = scenario.statuses
            recorder = _Recorder()
            sys.setprofile(recorder)
            try:
                response = await session.get(url)
            finally:
                sys.setprofile(None)
            async with response:
                return Walk(scenario, tuple(recorder.steps), len(received), response.status)
    finally:
        await runner.cleanup()


class _Recorder:
    """A profile function that notes each frame of the package once."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        # The frames themselves: a number from `id` is used again when its frame is gone.
        self._seen: dict[int, FrameType] = {}

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or not _ours(frame) or id(frame) in self._seen:
            return
        self._seen[id(frame)] = frame
        depth = 0
        above: FrameType | None = frame
        while above is not None:
            depth += _ours(above)
            above = above.f_back
        code = frame.f_code
        generated = code.co_filename.startswith("<")
        name = code.co_qualname
        if generated:
            name = f"{type(frame.f_locals['self']).__name__}.{code.co_name}"
        self.steps.append(Step(depth, _file(frame), name, generated))


def _ours(frame: FrameType) -> bool:
    """Whether a frame runs code of the package, generated code (a dataclass) included."""
    name = str(frame.f_globals.get("__name__", ""))
    return name == PACKAGE or name.startswith(PACKAGE + ".")


def _file(frame: FrameType) -> str:
    """The file of a frame's module, from the package's folder."""
    return Path(frame.f_globals["__file__"]).relative_to(FOLDER).as_posix()


def main() -> None:
    """Print the walk of each scenario."""
    print("\n\n".join(str(asyncio.run(walk(scenario))) for scenario in SCENARIOS))


if __name__ == "__main__":
    main()
