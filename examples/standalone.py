"""The deciding core without HTTP: `AdaptiveStrategy` around a small protocol over TCP.

    python examples/standalone.py

A server on loopback drops some connections, then goes away. The client asks the strategy after
every failure; while the server is flaky nearly all calls succeed, and when it is gone the budget
keeps the load close to one attempt per call.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp_adaptive_retry import AdaptiveStrategy

T = TypeVar("T")

CALLS = 60
#: What this protocol's network does to us. Anything else is a bug, and is not retried.
FAILURES = (OSError, asyncio.IncompleteReadError, TimeoutError)


async def with_retries(strategy: AdaptiveStrategy, work: Callable[[], Awaitable[T]]) -> T:
    """Run `work`, again where the strategy finds it worth it; the last error leaves as it is.

    `attempt` belongs to this one call, so it lives here and not in the strategy, which all calls
    share.
    """
    attempt = 1
    while True:
        try:
            result = await work()
        except FAILURES as error:
            if not await strategy.should_retry(error, attempt=attempt):
                raise
            # The budget has a token reserved for this retry, so that the wait is not in vain.
            await asyncio.sleep(strategy.delay(retry=attempt))
            attempt += 1
        else:
            strategy.record_success()
            return result


class FlakyServer:
    """Answers a line with the same line, or drops the connection: one in four."""

    def __init__(self) -> None:
        self.connections = 0
        # Seeded, so that every run of this example tells the same story.
        self._random = random.Random(4)
        self.gone = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            line = await reader.readline()
            if not self.gone and self._random.random() >= 0.25:
                writer.write(line)
                await writer.drain()
        finally:
            writer.close()


async def ask(port: int, word: str) -> str:
    """One attempt: connect, say a word, hear it back."""
    async with asyncio.timeout(2):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"{word}\n".encode())
            await writer.drain()
            return (await reader.readuntil(b"\n")).decode().strip()
        finally:
            writer.close()


async def calls(strategy: AdaptiveStrategy, port: int) -> int:
    """`CALLS` calls one after the other; how many succeeded."""
    succeeded = 0
    for number in range(CALLS):
        word = f"word-{number}"

        async def attempt(word: str = word) -> str:
            return await ask(port, word)

        with contextlib.suppress(*FAILURES):
            succeeded += await with_retries(strategy, attempt) == word
    return succeeded


async def main() -> int:
    """Flaky, then gone; the exit code is 1 if hardly anything got through while it was flaky."""
    # Short waits, as everything here is on loopback; three attempts at most for one call.
    strategy = AdaptiveStrategy(window_size=100, max_attempts=3, backoff_base=0.01, backoff_cap=0.1)
    upstream = FlakyServer()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        flaky = await calls(strategy, port)
        attempts = upstream.connections
        print(f"flaky: {flaky} of {CALLS} calls succeeded, {attempts} attempts")
        print(f"       success rate of single attempts: {strategy.success_rate:.0%}")

        upstream.gone = True
        gone = await calls(strategy, port)
        attempts = upstream.connections - attempts
        print(f"gone:  {gone} of {CALLS} calls succeeded, {attempts} attempts")
    newest = strategy.recent_attempts[-1]
    print(f"window: {len(strategy.recent_attempts)} of at most {strategy.window_size} attempts")
    print(f"newest: {newest.error_type} at {newest.timestamp:%H:%M:%S} UTC")
    return 0 if flaky > CALLS // 2 else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except KeyboardInterrupt:
        sys.exit(130)
