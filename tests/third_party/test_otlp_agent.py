"""The whole table over OTLP to a receiver that nobody here wrote."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from yarl import URL

from ..kit.agent import running_agent
from ..kit.fakes import Rig
from ..kit.waiting import eventually
from ..telemetry.table import TABLE

pytestmark = pytest.mark.wire


def traffic(provider: MeterProvider) -> int:
    """Calls with and without success through one middleware; how many attempts they were."""
    import asyncio

    from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

    rig = Rig([200, 503, 200, aiohttp.ClientOSError(111, "refused"), 200], max_attempts=2)
    rig.middleware = AdaptiveRetryMiddleware(
        AdaptiveConfig(max_attempts=2),
        meter_provider=provider,
        clock=rig.clock,
        sleep=rig.clock.sleep,
    )

    async def calls() -> None:
        for number in range(20):
            await rig.call(URL(f"http://h{number % 3}.example/"))
        rig.upstream._step = 503
        await rig.call()

    asyncio.run(calls())
    provider.force_flush()
    return rig.upstream.hits


def test_every_metric_arrives(tmp_path: Path) -> None:
    """All names of the table reach a real agent, and the attempts there are those made here."""
    with running_agent(tmp_path) as agent:
        variables = agent.variables("http/protobuf")
        exporter = OTLPMetricExporter(variables["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/metrics")
        provider = MeterProvider([PeriodicExportingMetricReader(exporter, 3_600_000)])
        try:
            sent = traffic(provider)
        finally:
            provider.shutdown(3000)
        assert eventually(lambda: "adaptive_retry.origins.limit" in agent.log)
        for name in TABLE:
            assert f"-> Name: adaptive_retry.{name}\n" in agent.log, name
        received = agent.values("adaptive_retry.attempts", "adaptive_retry.attempt.type")
        text = agent.log
    assert set(received) == {"original", "retry"}
    assert "AGGREGATION_TEMPORALITY_CUMULATIVE" in text
    assert sent > 21
