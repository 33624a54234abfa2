"""What an exporter sees: names, units, values; bounded, exact, and safe on its thread."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from yarl import URL

from aiohttp_adaptive_retry import __version__

from ..kit.fakes import ORIGIN, Rig
from ..kit.metrics import by
from .table import TABLE

REFUSED = aiohttp.ClientOSError
LABEL = {"server.address": "upstream.example", "server.port": 8080}

REASONED = {"window.evicted", "cleanups", "origins.evicted"}


def collected(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    assert data is not None
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    assert scope.scope.name == "aiohttp_adaptive_retry"
    assert scope.scope.version == __version__
    assert scope.schema_url.startswith("https://opentelemetry.io/schemas/")
    return {metric.name: metric for metric in scope.metrics}


async def test_the_whole_table() -> None:
    """Every metric has its name, kind, unit and attributes, and there is no other."""
    rig = Rig([503, 200, REFUSED], max_attempts=2)
    await rig.call()
    with pytest.raises(aiohttp.ClientOSError):
        await rig.call()
    found = collected(rig.reader)
    assert set(found) == {f"adaptive_retry.{name}" for name in TABLE}
    for name, (kind, unit, monotonic, own) in TABLE.items():
        metric = found[f"adaptive_retry.{name}"]
        assert type(metric.data).__name__ == kind, name
        assert metric.unit == unit, name
        assert metric.description.endswith("."), name
        if monotonic is not None:
            assert metric.data.is_monotonic is monotonic, name
        expected = {"adaptive_retry.reason"} if name in REASONED else set()
        if own is not None:
            expected = {*LABEL, *own}
        points = list(metric.data.data_points)
        assert points, name
        for point in points:
            assert set(point.attributes) == expected, name
            if own is not None:
                assert {key: point.attributes[key] for key in LABEL} == LABEL


async def test_values() -> None:
    """The numbers are those of what happened."""
    rig = Rig([200, 200, 503, 200, REFUSED], max_attempts=3, budget_initial=4)
    for _ in range(3):
        await rig.call()
    with pytest.raises(aiohttp.ClientOSError):
        await rig.call()
    await_hits = rig.upstream.hits
    metrics = rig.metrics()

    def sums(name: str, attribute: str) -> dict[Any, Any]:
        return by(metrics[f"adaptive_retry.{name}"], attribute)

    assert sums("requests", "adaptive_retry.outcome") == {
        "first_success": 2,
        "retry_success": 1,
        "failed_without_retry": 0,
        "failed_after_retry": 1,
        "refused": 0,
        "ignored": 0,
    }
    assert sums("attempts", "adaptive_retry.attempt.type") == {"original": 4, "retry": 3}
    assert await_hits == 7
    assert sums("failures", "error.type") == {"503": 1, "ClientOSError": 3}
    assert sums("retries.suppressed", "adaptive_retry.reason") == {"max_attempts": 1}
    assert sums("window.length", "server.port") == {8080: 7}
    assert sums("window.limit", "server.port") == {8080: 1000}
    assert sums("window.memory.usage", "server.port") == {8080: 8 * 9}
    assert sums("budget.limit", "server.port") == {8080: 20}
    # 4 at first, 3 successes at a tenth, 2 wasted; the one that mended came back.
    assert sums("budget.available", "server.port")[8080] == pytest.approx(4 + 0.3 - 2)
    assert sums("retry.delay", "server.port")[8080] == pytest.approx(sum(rig.clock.waits))
    assert sums("origins.active", "") == {None: 1}
    assert sums("origins.limit", "") == {None: 1024}
    assert sums("memory.pressure", "") == {None: 0}
    assert 0 < sums("memory.usage", "")[None] < sums("memory.threshold", "")[None]


async def test_delays_have_buckets_in_seconds() -> None:
    """The histogram's advice makes a wait of 100 ms and one of 5 s fall into different buckets."""
    rig = Rig([503, 200])
    await rig.call()
    (point,) = collected(rig.reader)["adaptive_retry.retry.delay"].data.data_points
    assert point.count == 1
    assert point.explicit_bounds[0] <= 0.05
    assert 5.0 in point.explicit_bounds


async def test_there_is_one_delay_for_each_retry_sent() -> None:
    """A wait that was cancelled has led to no retry, and is no delay before one."""
    rig = Rig([503, 200, 503])
    await rig.call()

    async def cancelled() -> None:
        raise asyncio.CancelledError

    rig.clock.meanwhile = cancelled
    with pytest.raises(asyncio.CancelledError):
        await rig.call()
    found = collected(rig.reader)
    (point,) = found["adaptive_retry.retry.delay"].data.data_points
    assert point.count == rig.middleware.snapshot().attempts["retry"] == 1


async def test_the_default_port_is_a_port() -> None:
    """A URL without a port is counted under the port that its scheme has."""
    rig = Rig()
    await rig.call(URL("https://upstream.example/"))
    points = rig.metrics()["adaptive_retry.attempts"]
    assert by(points, "server.port") == {443: 1}


async def test_labels_are_bounded_over_the_lifetime() -> None:
    """However many origins come and go, label sets stop at the bound; the rest is `_OTHER`."""
    rig = Rig(max_labelled_origins=10, max_origins=5)
    for number in range(1000):
        await rig.call(URL(f"http://h{number}.example/"))
    metrics = rig.metrics()
    addresses = by(metrics["adaptive_retry.attempts"], "server.address")
    assert len(addresses) == 11
    assert addresses["_OTHER"] == 990
    assert sum(addresses.values()) == 1000
    for name in ("adaptive_retry.window.length", "adaptive_retry.budget.available"):
        assert set(by(metrics[name], "server.address")) <= set(addresses)
    assert by(metrics["adaptive_retry.origins.evicted"], "adaptive_retry.reason") == {
        "idle": 0,
        "memory": 0,
        "origin_limit": 995,
    }


async def test_no_label_at_all() -> None:
    """With no labels permitted everything is counted together."""
    rig = Rig(max_labelled_origins=0)
    await rig.call()
    assert by(rig.metrics()["adaptive_retry.attempts"], "server.address") == {"_OTHER": 1}


async def test_the_label_bound_is_shared_by_all_middlewares_of_the_process() -> None:
    """Two middlewares together get no more labels than one."""
    first, second = Rig(max_labelled_origins=10), Rig(max_labelled_origins=10)
    for number in range(8):
        await first.call(URL(f"http://a{number}.example/"))
        await second.call(URL(f"http://b{number}.example/"))
        await second.call(URL(f"http://a{number}.example/"))
    names: set[Any] = set()
    for rig in (first, second):
        names |= set(by(rig.metrics()["adaptive_retry.attempts"], "server.address"))
    assert len(names - {"_OTHER"}) == 10
    assert "_OTHER" in names


async def test_counts_of_evicted_origins_stay() -> None:
    """What an origin counted is not lost with it, and no counter ever falls."""
    rig = Rig([503, 200] * 50, max_origins=1)
    last: dict[Any, Any] = {}
    for number in range(50):
        await rig.call(URL(f"http://h{number % 3}.example/"))
        metrics = rig.metrics()
        for name in ("attempts", "requests", "failures", "window.evicted", "origins.evicted"):
            points = metrics.get(f"adaptive_retry.{name}", {})
            for attributes, value in points.items():
                assert value >= last.get((name, attributes), 0)
                last[name, attributes] = value
    assert sum(metrics["adaptive_retry.attempts"].values()) == 100
    length = sum(metrics["adaptive_retry.window.length"].values())
    assert length + sum(metrics["adaptive_retry.window.evicted"].values()) == 100


async def test_failure_sets_are_bounded() -> None:
    """Many error types at many origins end at a thousand label sets, and none is lost."""
    kinds = [type(f"E{n}", (aiohttp.ClientOSError,), {}) for n in range(300)]
    script = [kinds[n % 300]() for n in range(60 * 300)]
    rig = Rig(script, max_attempts=1, max_labelled_origins=50)
    for number in range(60 * 300):
        with contextlib.suppress(aiohttp.ClientOSError):
            await rig.call(URL(f"http://h{number // 300}.example/"))
    points = rig.metrics()["adaptive_retry.failures"]
    assert len(points) <= 1000
    assert sum(points.values()) == 60 * 300
    assert by(points, "error.type")["_OTHER"] > 0
    assert len(by(points, "server.address")) == 51


async def test_more_labels_than_failure_sets() -> None:
    """Also with more origins labelled than there are places, a thousand sets are the end."""
    rig = Rig([REFUSED], max_attempts=1, max_labelled_origins=3000, max_origins=10)
    for number in range(3000):
        with contextlib.suppress(aiohttp.ClientOSError):
            await rig.call(URL(f"http://h{number}.example/"))
    points = rig.metrics()["adaptive_retry.failures"]
    assert len(points) <= 1000
    assert sum(points.values()) == 3000


@pytest.mark.parametrize(
    ("script", "seconds", "run"),
    [([200, 503, 200], 0.01, 1), ([200] * 40 + [503, 200], 1e-5, 30)],
    ids=["each success is booked", "most are only written into the window"],
)
async def test_collecting_on_another_thread_while_the_loop_works(
    script: list[int], seconds: float, run: int
) -> None:
    """The exporter's thread never fails, blocks nobody, and sees counters that only grow, and that
    are never ahead of what was sent."""
    rig = Rig(script * 100_000, max_origins=50, cleanup_frequency=20, window_size=20)
    done, failures, rounds = threading.Event(), [], 0

    def collect() -> None:
        nonlocal rounds
        last: dict[Any, Any] = {}
        try:
            while not done.is_set():
                metrics, sent = rig.metrics(), rig.upstream.hits
                for name in ("attempts", "requests"):
                    assert sum(metrics.get(f"adaptive_retry.{name}", {}).values()) <= sent, name
                for name, points in metrics.items():
                    for attributes, value in points.items():
                        if name.endswith((".attempts", ".evicted", ".requests", ".cleanups")):
                            assert value >= last.get((name, attributes), 0), name
                            last[name, attributes] = value
                rounds += 1
        except BaseException as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for number in range(15_000):
            rig.clock.now += seconds
            await rig.call(URL(f"http://h{number // run % 120}.example/"))
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert rounds > 2
    metrics = rig.metrics()
    assert sum(metrics["adaptive_retry.attempts"].values()) == rig.upstream.hits
    assert sum(metrics["adaptive_retry.requests"].values()) == 15_000


async def test_secrets_are_in_no_label() -> None:
    """Userinfo, path and query of a URL are in no attribute and no value."""
    rig = Rig([503, 200], record_error_messages=True)
    await rig.call(URL("http://user:hunter2@upstream.example:8080/private?token=s3cr3t"))
    text = repr(rig.metrics()) + repr(rig.middleware.snapshot()) + repr(rig.middleware)
    for secret in ("hunter2", "private", "s3cr3t", "user:"):
        assert secret not in text
    assert ORIGIN.host is not None
    assert ORIGIN.host in text
