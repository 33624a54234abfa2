"""A real pre-forking server: gunicorn loads the application once, and forks its workers from it."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ..kit.http_server import ScriptedServer
from ..kit.otlp_receiver import Receiver
from ..kit.processes import environment
from ..kit.waiting import eventually

pytestmark = pytest.mark.wire

APPLICATION = """
import os
import aiohttp
from aiohttp import web
from opentelemetry import metrics
from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.otlp import configure

export = configure("shop", export_interval=0.1) if os.environ["SET_UP"] == "preload" else None
# Made in the master, used in the workers.
retry = AdaptiveRetryMiddleware(meter_provider=export.meter_provider if export else None)
if export:
    # The master's connection is open when it forks.
    export.meter_provider.force_flush()

async def session(app):
    async with aiohttp.ClientSession(middlewares=[retry]) as app["session"]:
        yield

async def proxy(request):
    async with request.app["session"].get(os.environ["UPSTREAM"]) as response:
        return web.Response(text=str(os.getpid()), status=response.status)

app = web.Application()
app.cleanup_ctx.append(session)
app.router.add_get("/", proxy)
"""

CONFIGURATION = """
import os

def post_fork(server, worker):
    if os.environ["SET_UP"] == "post_fork":
        from opentelemetry import metrics
        import shop
        shop.export = shop.configure("shop", export_interval=0.1)
        metrics.set_meter_provider(shop.export.meter_provider)

def worker_exit(server, worker):
    import shop
    shop.export.close()
"""


@pytest.mark.parametrize("set_up", ["post_fork", "preload"])
def test_the_workers_metrics_add_up(set_up: str, tmp_path: Path) -> None:
    """Each worker is an instance of its own, and together they counted what the upstream saw."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    (tmp_path / "gunicorn.conf.py").write_text(CONFIGURATION)
    log = tmp_path / "error.log"
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2"]
    command += ["--worker-class", "aiohttp.GunicornWebWorker", "--bind", "127.0.0.1:0"]
    command += ["--error-logfile", str(log), "shop:app"]
    statuses = (200, 503) * 10
    with Receiver() as receiver, ScriptedServer(*statuses) as upstream:
        variables = receiver.variables() | {"SET_UP": set_up, "UPSTREAM": upstream.url}
        variables["PYTHONWARNINGS"] = "ignore"
        with subprocess.Popen(
            command, cwd=tmp_path, env=environment(**variables), stdout=subprocess.DEVNULL
        ) as process:
            try:
                assert eventually(lambda: log.exists() and log.read_text().count("Booting") == 2)
                (url,) = re.findall(r"Listening at: (http://127\.0\.0\.1:\d+)", log.read_text())
                pids = set()
                for _ in range(20):
                    with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310
                        pids.add(response.read())
            finally:
                process.terminate()
                process.wait(30)
        assert pids
        totals = {
            instance: total for _, instance, _, total in receiver.series("adaptive_retry.attempts")
        }
        instances = {resource["service.instance.id"] for resource in receiver.resources()}
        users: dict[int, set[str]] = {}
        for port, instance, _, _ in receiver.series("adaptive_retry.origins.limit"):
            users.setdefault(port, set()).add(instance)
    # No connection was used by two of them.
    assert {len(instances) for instances in users.values()} == {1}
    assert receiver.damaged == 0
    assert sum(totals.values()) == len(upstream.received) == 30, log.read_text()
    # As many as served; the master exports as well if it was set up.
    assert len(totals) == len(pids)
    assert len(instances) == (2 if set_up == "post_fork" else 3)
