"""One run: all policies beside each other, the same calls at the same moments."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from ..resolver import AnyName
from .policies import DEADLINE, POLICIES, TIMEOUT, Fetch
from .scenarios import Scenario, arrivals
from .upstream import upstreams

__all__ = ("Result", "run")

_NAME = "service.test"
# Until all processes have come to the start.
_RUN_UP = 0.5
_TICK = 0.1


@dataclass(frozen=True, slots=True)
class Record:
    """One call: when it began and ended, seconds from the beginning, and whether it succeeded."""

    began: float
    ended: float
    ok: bool


@dataclass(slots=True)
class Result:
    """What one policy did in one scenario.

    `received`: when each request arrived at a server. `sent`: when each attempt took a connection
    or tried to make one, as aiohttp's tracing tells; more than arrived only while connections are
    refused, since then nobody is there to count.
    """

    scenario: Scenario
    policy: str
    records: list[Record] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)

    @property
    def success(self) -> float:
        """Share of all calls that succeeded."""
        return sum(record.ok for record in self.records) / len(self.records)

    def success_of(self, begin: float, end: float) -> float:
        """Share of the calls begun in that time that succeeded."""
        oks = [record.ok for record in self.records if begin <= record.began < end]
        return sum(oks) / len(oks)

    @property
    def amplification(self) -> float:
        """Attempts for each call."""
        return len(self.sent) / len(self.records)

    def amplification_in(self, begin: float, end: float) -> float:
        """Attempts sent in that time for each call begun in it."""
        asked = sum(begin <= record.began < end for record in self.records)
        return sum(begin <= time < end for time in self.sent) / asked

    @property
    def slowest(self) -> float:
        """The time within which 95 % of the calls ended, seconds."""
        durations = sorted(record.ended - record.began for record in self.records)
        return durations[int(0.95 * (len(durations) - 1))]

    def peak(self, begin: float, end: float) -> int:
        """Most attempts sent in a tenth of a second of that time."""
        ticks = Counter(int((time - begin) / _TICK) for time in self.sent if begin <= time < end)
        return max(ticks.values(), default=0)


class _AnyServer(AnyName):
    """Resolves the one name to one of the servers, drawn anew for each connection."""

    def __init__(self, ports: Sequence[int], seed: str) -> None:
        self._ports = ports
        self._random = random.Random(seed)

    def choose(self, port: int) -> int:
        return self._random.choice(self._ports)


def run(
    scenario: Scenario, policies: Sequence[str] = tuple(POLICIES), seed: int = 0
) -> list[Result]:
    """Run one scenario with these policies at once; takes its length and up to ten seconds."""
    with upstreams(scenario, policies) as servers:
        began = time.monotonic() + _RUN_UP
        servers.begin(began)
        results = asyncio.run(_all(scenario, servers.ports, began, seed))
        received = servers.received()
    for result in results:
        result.received = received[result.policy]
    return results


async def _all(
    scenario: Scenario, ports: dict[str, list[int]], began: float, seed: int
) -> list[Result]:
    async with AsyncExitStack() as stack:
        results = [Result(scenario, policy) for policy in ports]
        fetchers = [
            await _clients(result, ports[result.policy], began, seed, stack) for result in results
        ]
        async with asyncio.TaskGroup() as tasks:
            for arrival in arrivals(scenario, seed):
                await asyncio.sleep(began + arrival.time - time.monotonic())
                for result, clients in zip(results, fetchers, strict=True):
                    tasks.create_task(_call(result, clients[arrival.client], began))
    return results


async def _clients(
    result: Result, ports: Sequence[int], began: float, seed: int, stack: AsyncExitStack
) -> list[Fetch]:
    """A way to fetch for each client, each over a session of its own, as in as many processes."""
    make, middlewares = POLICIES[result.policy]
    several = len(ports) > 1

    async def note(*_: object) -> None:
        result.sent.append(time.monotonic() - began)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(note)
    trace.on_connection_reuseconn.append(note)
    fetchers = []
    for client in range(result.scenario.clients):
        connector = aiohttp.TCPConnector(
            limit=0,
            resolver=_AnyServer(ports, f"{seed}/{client}"),
            use_dns_cache=False,
            # Each attempt meets a server by chance, as behind a balancer.
            force_close=several,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=TIMEOUT,
            trace_configs=[trace],
            middlewares=middlewares(),
        )
        fetchers.append(make(await stack.enter_async_context(session), f"http://{_NAME}/items"))
    return fetchers


async def _call(result: Result, fetch: Fetch, began: float) -> None:
    started = time.monotonic()
    try:
        async with asyncio.timeout(DEADLINE):
            ok = await fetch()
    except (aiohttp.ClientError, TimeoutError):
        ok = False
    result.records.append(Record(started - began, time.monotonic() - began, ok))
