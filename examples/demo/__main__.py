"""A minute with the middleware: faults, an outage, recovery, live in the terminal.

    python examples/demo [--seconds 60] [--url URL]

A fault-prone server runs in a process of its own; clients with the middleware and clients with the
plain three-attempt loop send it the same traffic, and the server counts what it receives. With
`--url` the clients with the middleware ask a real address instead, a few times a second.

With OTEL_EXPORTER_OTLP_ENDPOINT set the metrics go there too (see examples/otlp.py). The exit
code is 1 if the demo itself failed: the server did not start, or nothing got through while all was
healthy.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import math
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
from opentelemetry.sdk.metrics import MeterProvider
from rich.console import Console
from rich.live import Live
from yarl import URL

import view
from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, otlp
from board import Board, Receiver, at_client, at_server
from load import CALL_TIMEOUT, Load, Send, adaptive_client, plain_client
from phases import ADAPTIVE, LIVE, PHASES, PLAIN, Schedule
from upstream import running

#: Calls a second for each kind of client.
RATE = 40.0
#: The same against a real address, which is not ours to load.
GENTLE_RATE = 3.0

_TIMEOUT = aiohttp.ClientTimeout(total=CALL_TIMEOUT)


@dataclass(frozen=True)
class Options:
    """The command line."""

    seconds: float
    url: str | None


def demo_config(seconds: float, rate: float) -> AdaptiveConfig:
    """The defaults, but with a window and clean-ups that can be watched within the demo."""
    duration = max(0.5, seconds / 12)
    return AdaptiveConfig(
        # A little over what healthy traffic fills: retries then reach the bound.
        window_size=max(5, round(rate * duration * 1.1)),
        window_duration=timedelta(seconds=duration),
        cleanup_interval=timedelta(seconds=duration / 2),
        # The interval brings the sweeps in quiet moments, the count of operations under load.
        cleanup_frequency=max(10, round(rate * duration)),
    )


def settings(config: AdaptiveConfig) -> str:
    """What `demo_config` changed, for the screen."""
    return (
        f"Shortened for the demo: window {config.window_size} attempts or "
        f"{config.window_duration.total_seconds():.1f} s, "
        f"swept every {config.cleanup_interval.total_seconds():.1f} s."
    )


@dataclass(frozen=True)
class Stage:
    """Who takes part: the clients, their traffic, and who counts."""

    load: Load
    receive: Receiver


@contextlib.asynccontextmanager
async def staged(options: Options, middleware: AdaptiveRetryMiddleware) -> AsyncIterator[Stage]:
    """Our own upstream with both kinds of clients, or a real address with one."""
    async with contextlib.AsyncExitStack() as stack:

        async def session(*middlewares: AdaptiveRetryMiddleware) -> aiohttp.ClientSession:
            # No limit on connections: a queue for them would close the open loop.
            return await stack.enter_async_context(
                aiohttp.ClientSession(
                    middlewares=middlewares,
                    timeout=_TIMEOUT,
                    connector=aiohttp.TCPConnector(limit=0),
                )
            )

        clients: dict[str, Send]
        if options.url is not None:
            clients = {
                ADAPTIVE: adaptive_client(await session(middleware), options.url, marked=False)
            }
            schedule = Schedule(LIVE, options.seconds)
            yield Stage(Load(clients, schedule, GENTLE_RATE), at_client(middleware))
            return
        base = await stack.enter_async_context(running(options.seconds))
        observer = await session()
        clients = {
            ADAPTIVE: adaptive_client(await session(middleware), f"{base}/work"),
            PLAIN: plain_client(await session(), f"{base}/work"),
        }
        async with observer.post(f"{base}/start"):
            load = Load(clients, Schedule(PHASES, options.seconds), RATE)
        yield Stage(load, at_server(observer, base))


async def perform(board: Board, console: Console, stop: asyncio.Event, notice: str) -> None:
    """Run the load and show the numbers, until the time is over or `stop` is set."""
    load = board.load
    running_load = asyncio.create_task(load.run())
    stopped = asyncio.create_task(stop.wait())
    interactive = console.is_terminal and not console.is_dumb_terminal
    shown = (
        Live(view.panel(board, notice), console=console, auto_refresh=False)
        if interactive
        else contextlib.nullcontext()
    )
    try:
        with shown as live:
            await board.update()
            if live is None:
                console.print(notice, soft_wrap=True)
            while not (running_load.done() or stopped.done()):
                await asyncio.wait(
                    (running_load, stopped),
                    timeout=0.25 if interactive else 1.0,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                await board.update()
                if live is None:
                    console.print(view.line(board), soft_wrap=True)
                else:
                    live.update(view.panel(board, notice), refresh=True)
        if running_load.done():
            await running_load
    finally:
        for task in (running_load, stopped):
            task.cancel()
        await asyncio.gather(running_load, stopped, return_exceptions=True)
        # Calls of an outage that was interrupted are not worth waiting for.
        await load.drain(0.0 if stop.is_set() else CALL_TIMEOUT + 0.5)
    # Once more, for what arrived meanwhile.
    await board.update()


def failure(board: Board, options: Options, *, interrupted: bool) -> str | None:
    """Why the demo failed, if it did."""
    first = board.schedule.phases[0].name
    row = board.row(ADAPTIVE, first)
    if row.success or (interrupted and not row.requests):
        return None
    error = f" (last error: {board.load.newest_error})" if board.load.newest_error else ""
    if options.url is not None:
        # The origin only: the rest of a URL may hold what should not be in a log.
        return f"no request to {URL(options.url).origin()} got through{error}"
    return f"no request got through in the {first} phase{error}"


async def run(options: Options, console: Console, provider: MeterProvider | None) -> int:
    """The whole demo; its exit code."""
    rate = RATE if options.url is None else GENTLE_RATE
    config = demo_config(options.seconds, rate)
    middleware = AdaptiveRetryMiddleware(config, meter_provider=provider)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Loops on Windows can't do this; there Ctrl-C ends the demo without its table.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    try:
        async with staged(options, middleware) as stage:
            board = Board(stage.load, middleware, stage.receive)
            await perform(board, console, stop, settings(config))
            console.print()
            console.print(view.table(board))
            for sentence in view.summary(board):
                console.print(sentence)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        print(f"The demo failed: {error or type(error).__name__}", file=sys.stderr)
        return 1
    reason = failure(board, options, interrupted=stop.is_set())
    if reason is not None:
        print(f"The demo failed: {reason}", file=sys.stderr)
        return 1
    return 0


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 5 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be from 5 to 86400 seconds, got {text}")
    return value


def _url(text: str) -> str:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise argparse.ArgumentTypeError(f"must be an http:// or https:// URL, got {text!r}")
    return text


def parse(arguments: list[str] | None = None) -> Options:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        prog="examples/demo",
        description="Adaptive retries, live: faults, outage, recovery.",
    )
    parser.add_argument(
        "--seconds", type=_seconds, default=60.0, help="how long, 5 or more (default: 60)"
    )
    parser.add_argument("--url", type=_url, help="ask a real address instead, gently")
    parsed = parser.parse_args(arguments)
    return Options(parsed.seconds, parsed.url)


def main() -> int:
    """Run the demo with what the command line and the environment say."""
    options = parse()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    # That the origin is down is what the display shows.
    logging.getLogger("aiohttp_adaptive_retry").setLevel(logging.ERROR)
    console = view.make_console(interactive=sys.stdout.isatty())
    export = None
    try:
        protocol, endpoint, chosen = otlp.destination()
        if chosen:
            interval = min(5.0, options.seconds / 10)
            export = otlp.configure("adaptive-retry-demo", export_interval=interval)
            console.print(f"Metrics go to {endpoint} ({protocol}).", soft_wrap=True)
    except ValueError as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    try:
        return asyncio.run(run(options, console, export.meter_provider if export else None))
    finally:
        if export is not None:
            export.close()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has left, as `| head` does. The interpreter's last flush must not
        # fail for that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
