"""A server that redirects to names of its own gains nothing: no label, place, or further load."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

from ..kit.clock import Clock
from ..kit.faults import Action, Exchange, FaultServer, close, reply
from ..kit.fixtures import Open, Serve
from ..kit.resolvers import EverywhereHere


def redirecting(name: str, port: int = 0) -> Action:
    """A redirect to a new name each time, at that port; 0 for the server's own."""

    async def run(exchange: Exchange) -> bool:
        server = exchange.server
        host = name.format(server.hits)
        location = f"http://{host}:{port or server.url.port}/"
        head = f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {location}\r\n\r\n"
        await exchange.send(head.encode())
        return True

    return Action(run)


def connector() -> aiohttp.TCPConnector:
    return aiohttp.TCPConnector(resolver=EverywhereHere(), limit=0)


async def ending(session: aiohttp.ClientSession, url: Any) -> int | str:
    """What one call comes to."""
    try:
        async with session.get(url) as answer:
            return answer.status
    except aiohttp.ClientError as error:
        return type(error).__name__


NAMES = {"new": "x{}.victim.test", "long": "y" * 60 + ".z{}.test", "one": "victim.test"}
FAULTS = {"503": reply(503), "FIN": close()}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_new_names_multiply_no_attempts(
    name: str, fault: Action, serve: Serve, open_session: Open
) -> None:
    """Whatever a victim is called, redirects to it bring hardly more requests than calls."""
    victim = await serve(fault)
    hostile = await serve(redirecting(name, victim.url.port or 0))
    clock = Clock()
    retry = AdaptiveRetryMiddleware(clock=clock, sleep=clock.sleep, random=lambda: 0.5)
    session = open_session(retry, connector=connector())
    for _ in range(100):
        await ending(session, hostile.url)
    assert 100 <= victim.hits <= 120
    assert retry.snapshot().faults == 0


async def test_names_of_one_dead_server_share_their_retries(
    serve: Serve, open_session: Open
) -> None:
    """Also if the application calls them: twenty of them are retried, the others are not."""
    victim = await serve(reply(503))
    clock = Clock()
    retry = AdaptiveRetryMiddleware(clock=clock, sleep=clock.sleep, random=lambda: 0.5)
    session = open_session(retry, connector=connector())
    for number in range(200):
        assert await ending(session, f"http://t{number}.test:{victim.url.port}/") == 503
    assert 200 + 20 <= victim.hits <= 200 + 20 * 4
    assert retry.snapshot().suppressed["budget_exhausted"] >= 180


async def test_a_hostile_server_takes_no_labels(serve: Serve, open_session: Open) -> None:
    """After hundreds of made-up names each origin of the application has a label of its own."""
    hostile, good = await serve(redirecting("n{}.evil.test")), await serve(reply())
    reader = InMemoryMetricReader()
    retry = AdaptiveRetryMiddleware(meter_provider=MeterProvider([reader]))
    session = open_session(retry, connector=connector())
    for _ in range(30):
        assert await ending(session, hostile.url) == "TooManyRedirects"
    for number in range(5):
        assert await ending(session, f"http://mine{number}.test:{good.url.port}/") == 200
    labels = {label[0] for label in addresses(reader.get_metrics_data())}
    assert labels == {"127.0.0.1", "_OTHER", *(f"mine{number}.test" for number in range(5))}


async def test_a_hop_to_an_unknown_origin_is_retried_and_then_known(
    serve: Serve, open_session: Open
) -> None:
    """Honest redirects lose nothing: a blip of the first hop is mended, the second is its own."""
    other = await serve(reply(503), reply(), reply(503), reply())
    hostile: FaultServer = await serve(redirecting("cdn.test", other.url.port or 0))
    clock = Clock()
    retry = AdaptiveRetryMiddleware(clock=clock, sleep=clock.sleep, random=lambda: 0.5)
    session = open_session(retry, connector=connector())
    assert [await ending(session, hostile.url) for _ in range(2)] == [200, 200]
    assert other.hits == 4
    lengths = {origin.host: origin.window_length for origin in retry.snapshot().origins}
    assert lengths == {"127.0.0.1": 2, "_OTHER": 2, "cdn.test": 2}


async def test_admission_keeps_no_unknown_name_back(serve: Serve, open_session: Open) -> None:
    """One unknown name's outage is none of another one."""
    down, good = await serve(close()), await serve(reply())
    to_down = await serve(redirecting("d{}.test", down.url.port or 0))
    to_good = await serve(redirecting("g{}.test", good.url.port or 0))
    clock = Clock()
    retry = AdaptiveRetryMiddleware(
        AdaptiveConfig(admission=True), clock=clock, sleep=clock.sleep, random=lambda: 0.5
    )
    session = open_session(retry, connector=connector())
    for _ in range(30):
        await ending(session, to_down.url)
    shared = retry._registry.others
    assert shared is not None
    assert shared.policy.state(clock.now) == "down"
    assert await ending(session, to_good.url) == 200
    assert good.hits == 1


def addresses(data: MetricsData | None) -> set[tuple[Any, Any]]:
    """All labels that were exported."""
    assert data is not None
    return {
        (point.attributes["server.address"], point.attributes.get("server.port"))
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if point.attributes and "server.address" in point.attributes
    }


@pytest.mark.parametrize("length", [50, 253, 254, 7_900])
async def test_an_export_of_all_labels_fits_into_a_message(length: int, open_session: Open) -> None:
    """With every label and error name taken, by names of any length, it is below gRPC's 4 MiB."""
    reader = InMemoryMetricReader()
    retry = AdaptiveRetryMiddleware(
        AdaptiveConfig(budget_initial=20.0, hold_cap=0.0),
        meter_provider=MeterProvider([reader]),
        sleep=lambda seconds: asyncio.sleep(0),
    )
    errors = [type("E" * 60 + f"{number:04}", (aiohttp.ClientOSError,), {}) for number in range(40)]

    async def failing(request: Any, handler: Any) -> Any:
        raise errors[request.url.port % 40]

    session = open_session(retry, failing)
    for number in range(150):
        tail = f"{number:03}"
        host = ("a" * 60 + ".") * 200
        host = host[: length - 3].removesuffix(".") + tail
        for port in range(10_000 + number, 10_000 + number + 12):
            await ending(session, f"http://{host}:{port if port % 2 else 10_001}/")
    data = reader.get_metrics_data()
    assert data is not None
    assert len(addresses(data)) > (90 if length <= 253 else 0)
    assert max(len(address) for address, _ in addresses(data)) <= 253
    assert len(encode_metrics(data).SerializeToString()) < 4 * 1024 * 1024
