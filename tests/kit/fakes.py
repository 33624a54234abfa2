"""Requests, responses and a server without a network, for thousands of calls or exact moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from aiohttp import ClientRequest, ClientResponse, ClientTimeout, HttpVersion11
from aiohttp.client_middlewares import build_client_middlewares
from multidict import CIMultiDict, CIMultiDictProxy
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from .clock import Clock
from .metrics import metrics_in

ORIGIN = URL("http://upstream.example:8080/")


class _Session:
    timeout = ClientTimeout(total=None)
    closed = False


class Request:
    """As much of a ClientRequest as the middleware looks at."""

    def __init__(self, url: URL = ORIGIN, method: str = "GET") -> None:
        self.url = self.original_url = url
        self.method = method
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.body = b""
        self.session = _Session()

    async def close(self) -> None:
        """No upload to wait for."""


class _Content:
    @staticmethod
    def is_eof() -> bool:
        return True


class Response:
    """As much of a ClientResponse as the middleware looks at."""

    content = _Content()
    content_length = 0
    version = HttpVersion11
    connection = None

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.status = status
        self.headers = CIMultiDictProxy(CIMultiDict(headers or {}))
        self.released = False

    def release(self) -> None:
        self.released = True


Step = int | BaseException | type[BaseException] | Response


class Upstream:
    """A handler that plays a script, then repeats its last step; counts what reaches it."""

    def __init__(self, script: Iterable[Step] = (200,)) -> None:
        self._script: Iterator[Step] = iter(script)
        self._step: Step = 200
        self.hits = 0

    async def __call__(self, request: ClientRequest) -> ClientResponse:
        self.hits += 1
        self._step = step = next(self._script, self._step)
        if isinstance(step, int):
            return cast(ClientResponse, Response(step))
        if isinstance(step, Response):
            return cast(ClientResponse, step)
        raise step


class Rig:
    """A middleware on a fake clock, a script behind it, and its metrics in memory."""

    def __init__(self, script: Iterable[Step] = (200,), chance: float = 0.5, **fields: Any) -> None:
        self.clock = Clock()
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.upstream = Upstream(script)
        self.middleware = AdaptiveRetryMiddleware(
            AdaptiveConfig(**fields),
            meter_provider=self.provider,
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: chance,
        )

    async def call(self, url: URL = ORIGIN, method: str = "GET") -> ClientResponse:
        """One call, as aiohttp makes it: the chain is built for each request."""
        chain = build_client_middlewares(self.upstream, (self.middleware,))
        return await chain(cast(ClientRequest, Request(url, method)))

    def metrics(self) -> dict[str, dict[frozenset[tuple[str, Any]], Any]]:
        return metrics_in(self.reader)
