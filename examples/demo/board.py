"""The demo's numbers: read from the load, the middleware and the upstream, made ready to show."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware, Snapshot
from load import Calls, Load
from phases import ADAPTIVE, LIVE

#: Attempts by (client, phase in which its call began, phase in which it arrived).
Received = Counter[tuple[str, str, str]]
Receiver = Callable[[], Awaitable[Received]]

#: How many bars the history of the load has.
BARS = 48


@dataclass(frozen=True)
class Row:
    """One kind of client in one phase, as the table shows it."""

    requests: int
    succeeded: int
    #: Shares and means are of what has ended; None while nothing has.
    success: float | None
    attempts_per_request: float | None
    attempts_per_second: float
    latency: float | None


@dataclass(frozen=True)
class Now:
    """One kind of client over the last moments."""

    success: float | None
    requests_per_second: float
    attempts_per_second: float


def at_server(session: aiohttp.ClientSession, base: str) -> Receiver:
    """Ask the demo's upstream what it received."""

    async def receive() -> Received:
        async with session.get(f"{base}/stats") as response:
            rows: list[tuple[str, str, str, int]] = await response.json()
        return Counter({(client, called, arrived): n for client, called, arrived, n in rows})

    return receive


def at_client(middleware: AdaptiveRetryMiddleware) -> Receiver:
    """A real address tells nobody what it received: take the middleware's own count."""

    async def receive() -> Received:
        attempts = middleware.snapshot().attempts
        phase = LIVE[0].name
        return Counter({(ADAPTIVE, phase, phase): attempts["original"] + attempts["retry"]})

    return receive


@dataclass(frozen=True)
class _Sample:
    at: float
    begun: dict[str, int]
    ended: dict[str, int]
    succeeded: dict[str, int]
    attempts: dict[str, int]


class Board:
    """Collects the numbers with `update` and answers what the views ask."""

    def __init__(self, load: Load, middleware: AdaptiveRetryMiddleware, receive: Receiver) -> None:
        self.load = load
        self.schedule = load.schedule
        self.clients = tuple(load.clients)
        self.snapshot: Snapshot = middleware.snapshot()
        self.elapsed = 0.0
        self._middleware = middleware
        self._receive = receive
        self._received: Received = Counter()
        self._recent: deque[_Sample] = deque()
        #: What "now" means, in seconds.
        self._span = min(2.0, self.schedule.seconds / 10)
        self._bars = {client: [0.0] * BARS for client in self.clients}

    async def update(self) -> None:
        """Read all numbers once."""
        self._received = await self._receive()
        self.snapshot = self._middleware.snapshot()
        self.elapsed = self.load.elapsed
        sample = _Sample(
            self.elapsed,
            begun={client: self._sum(client, "begun") for client in self.clients},
            ended={client: self._sum(client, "ended") for client in self.clients},
            succeeded={client: self._sum(client, "succeeded") for client in self.clients},
            attempts={client: self._attempts(client) for client in self.clients},
        )
        if self._recent:
            self._draw(self._recent[-1], sample)
        self._recent.append(sample)
        while len(self._recent) > 2 and self._recent[1].at <= self.elapsed - self._span:
            self._recent.popleft()

    def now(self, client: str) -> Now:
        """The last moments of one kind of client."""
        if len(self._recent) < 2:
            return Now(None, 0.0, 0.0)
        first, last = self._recent[0], self._recent[-1]
        seconds = max(last.at - first.at, 1e-3)
        ended = last.ended[client] - first.ended[client]
        return Now(
            (last.succeeded[client] - first.succeeded[client]) / ended if ended else None,
            (last.begun[client] - first.begun[client]) / seconds,
            (last.attempts[client] - first.attempts[client]) / seconds,
        )

    def row(self, client: str, phase: str) -> Row:
        """One kind of client in one phase, so far."""
        calls = self.load.calls.get((client, phase), Calls())
        attempts = sum(
            count
            for (whose, called_in, _), count in self._received.items()
            if (whose, called_in) == (client, phase)
        )
        arrived = sum(
            count
            for (whose, _, arrived_in), count in self._received.items()
            if (whose, arrived_in) == (client, phase)
        )
        return Row(
            calls.begun,
            calls.succeeded,
            calls.succeeded / calls.ended if calls.ended else None,
            attempts / calls.begun if calls.begun else None,
            arrived / max(self._lasted(phase), 1e-3),
            calls.seconds / calls.ended if calls.ended else None,
        )

    def bars(self, client: str) -> list[float]:
        """Attempts over the whole time, 0 to 1 of the most that any client sent at a time."""
        most = max((max(bars) for bars in self._bars.values()), default=0)
        return [bar / most if most else 0.0 for bar in self._bars[client]]

    @property
    def cleanups(self) -> int:
        """Sweeps of any reason."""
        return sum(self.snapshot.cleanups.values())

    @property
    def window_length(self) -> int:
        """Attempts that are remembered at this moment."""
        return sum(origin.window_length for origin in self.snapshot.origins)

    @property
    def window_limit(self) -> int:
        """Attempts that one origin's window may hold."""
        return self._middleware.config.window_size

    @property
    def budget(self) -> tuple[float, float]:
        """Retries that can be afforded now, and at most: of the origin used last."""
        if not self.snapshot.origins:
            config = self._middleware.config
            return config.budget_initial, config.budget_capacity
        origin = self.snapshot.origins[-1]
        return origin.budget_available, origin.budget_limit

    def _draw(self, before: _Sample, after: _Sample) -> None:
        """Spread what arrived between two readings over the bars that they span."""
        wide = self.schedule.seconds / BARS
        # What arrives when the time is over belongs to the last bar.
        begin, end = (min(at, self.schedule.seconds * 0.9999) for at in (before.at, after.at))
        span = max(end - begin, 1e-6)
        for bar in range(int(begin / wide), int(end / wide) + 1):
            inside = min(end, (bar + 1) * wide) - max(begin, bar * wide)
            for client, bars in self._bars.items():
                arrived = after.attempts[client] - before.attempts[client]
                bars[bar] += arrived * max(0.0, inside) / span

    def _lasted(self, name: str) -> float:
        phase = next(phase for phase in self.schedule.phases if phase.name == name)
        begun = self.elapsed - self.schedule.begin(phase)
        return min(max(begun, 0.0), self.schedule.length(phase))

    def _sum(self, client: str, field: str) -> int:
        return sum(
            int(getattr(calls, field))
            for (whose, _), calls in self.load.calls.items()
            if whose == client
        )

    def _attempts(self, client: str) -> int:
        return sum(count for (whose, _, _), count in self._received.items() if whose == client)
