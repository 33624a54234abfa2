"""The servers, in a process of their own: queues, workers, scripted trouble, and exact counts.

Every policy has servers of its own, so that none suffers from another's load. A server goes on
working for a client that gave up, as most do; what it received is counted whatever came of it.
"""

from __future__ import annotations

import asyncio
import math
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

from aiohttp import web

from ..child import child, first_word
from .scenarios import Scenario

__all__ = ("CLIENT", "Upstreams", "upstreams")

#: Names the client, for the limiter.
CLIENT = "X-Client"

# Places in a server's queue, in seconds of work: longer than an attempt waits for its answer.
_QUEUE_SECONDS = 3.0


class _Server:
    """One server: workers, a queue in order of arrival, and what the scenario does to it."""

    def __init__(self, scenario: Scenario, bad: bool, seed: str, received: list[float]) -> None:
        self._scenario = scenario
        self._bad = bad
        self._random = random.Random(seed)
        self._received = received
        self._workers = asyncio.Semaphore(scenario.workers)
        self._waiting = 0
        self._most_waiting = int(_QUEUE_SECONDS * scenario.workers / scenario.service)
        self._windows: dict[str, tuple[int, int]] = {}
        self._began = math.inf
        self._web = web.Server(self._handle)
        # Keeps the port while nobody listens on it.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self._listener: asyncio.Server | None = None

    async def listen(self) -> None:
        self._listener = await asyncio.get_running_loop().create_server(
            self._web, "127.0.0.1", self.port, reuse_port=True
        )

    async def run(self, began: float) -> None:
        """Do what the scenario says; `began` is the run's zero on the monotonic clock."""
        self._began = began
        scenario = self._scenario
        if scenario.trouble != "refused":
            return
        await asyncio.sleep(began + scenario.lead - time.monotonic())
        self.vanish()
        await asyncio.sleep(began + scenario.over - time.monotonic())
        await self.listen()

    def vanish(self) -> None:
        """As if the process were gone: nobody listens, and connections are reset."""
        if self._listener is not None:
            self._listener.close()
        for connection in self._web.connections:
            transport = connection.transport
            if transport is not None:
                transport.abort()

    async def close(self) -> None:
        self.vanish()
        await self._web.shutdown(0.1)
        self._holder.close()

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        now = time.monotonic()
        self._received.append(now)
        scenario = self._scenario
        troubled = scenario.troubled(now - self._began)
        if troubled and scenario.trouble == "answers_503":
            return web.Response(status=503)
        if troubled and self._bad and self._random.random() < scenario.severity:
            return web.Response(status=503)
        if troubled and scenario.trouble == "limited":
            wait = self._limited(request.headers[CLIENT], now)
            if wait:
                return web.Response(status=429, headers={"Retry-After": str(wait)})
        if self._waiting >= self._most_waiting:
            return web.Response(status=503)
        self._waiting += 1
        try:
            async with self._workers:
                await asyncio.sleep(self._service(time.monotonic()))
        finally:
            self._waiting -= 1
        return web.Response(text="ok")

    def _service(self, now: float) -> float:
        scenario = self._scenario
        slow = scenario.trouble == "slow" and scenario.troubled(now - self._began)
        mean = scenario.service / (scenario.severity if slow else 1.0)
        return self._random.expovariate(1.0 / mean)

    def _limited(self, client: str, now: float) -> int:
        """Count a request; whole seconds until the window ends if it is one too many, else 0."""
        scenario = self._scenario
        window = scenario.window
        index = int((now - self._began) / window)
        seen, count = self._windows.get(client, (index, 0))
        count = count if seen == index else 0
        allowed = max(1, round(scenario.severity * scenario.rate / scenario.clients * window))
        if count >= allowed:
            return max(1, math.ceil((index + 1) * window - (now - self._began)))
        self._windows[client] = (index, count + 1)
        return 0


async def _serve(pipe: Connection, scenario: Scenario, policies: Sequence[str]) -> None:
    received: dict[str, list[float]] = {policy: [] for policy in policies}
    # The same luck for all: what differs is only what the policies make of it.
    servers = {
        policy: [
            _Server(
                scenario,
                scenario.trouble == "one_bad" and number == 0,
                f"{scenario.name}/{number}",
                received[policy],
            )
            for number in range(scenario.servers)
        ]
        for policy in policies
    }
    every = [server for group in servers.values() for server in group]
    for server in every:
        await server.listen()
    pipe.send({policy: [server.port for server in group] for policy, group in servers.items()})
    began = await asyncio.to_thread(pipe.recv)
    async with asyncio.TaskGroup() as tasks:
        for server in every:
            tasks.create_task(server.run(began))
        # The other end says that it is done, or is gone.
        await asyncio.to_thread(pipe.poll, None)
    pipe.send({policy: [t - began for t in times] for policy, times in received.items()})
    for server in every:
        await server.close()


def _main(pipe: Connection, scenario: Scenario, policies: Sequence[str]) -> None:
    asyncio.run(_serve(pipe, scenario, policies))


class Upstreams:
    """The running servers. `ports`: by policy, those behind its one name."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.ports: dict[str, list[int]] = first_word(pipe)

    def begin(self, moment: float) -> None:
        """Let the scenario's time start at this moment of the monotonic clock."""
        self._pipe.send(moment)

    def received(self) -> dict[str, list[float]]:
        """End; say when each request arrived, in seconds from the beginning, by policy."""
        self._pipe.send(None)
        received: dict[str, list[float]] = self._pipe.recv()
        return received


@contextmanager
def upstreams(scenario: Scenario, policies: Sequence[str]) -> Iterator[Upstreams]:
    """Servers for each policy, as long as the body of the `with` runs."""
    with child(_main, scenario, list(policies)) as pipe:
        yield Upstreams(pipe)
