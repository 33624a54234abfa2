"""The compose file can't be run without a Docker engine; that it fits the rest can be seen."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from .test_rules import ROOT

FOLDER = ROOT / "collector-config"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, Any] = COMPOSE["services"]
COLLECTOR = (FOLDER / "otelcol.yaml").read_text(encoding="utf-8")
PROMETHEUS = (FOLDER / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8")


def defaults() -> set[int]:
    """The ports that the collector listens on where the environment says nothing."""
    return {int(port) for port in re.findall(r"_PORT:-(\d+)\}", COLLECTOR)}


@pytest.mark.parametrize("service", SERVICES)
def test_every_file_is_there(service: str) -> None:
    """What is mounted exists, and is mounted for reading only."""
    volumes = SERVICES[service]["volumes"]
    assert volumes
    for volume in volumes:
        source, target, mode = volume.split(":")
        assert (FOLDER / source).exists(), volume
        assert target.startswith("/")
        assert mode == "ro"


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_pinned(service: str) -> None:
    """By a whole version; the collector's is that of the manifest, which the tests run."""
    image, _, version = SERVICES[service]["image"].partition(":")
    assert re.fullmatch(r"v?\d+\.\d+\.\d+", version), image
    if service == "otel-collector":
        manifest = (FOLDER / "builder.yaml").read_text(encoding="utf-8")
        assert f"receiver/otlpreceiver v{version}" in manifest


def test_the_files_are_those_that_the_end_to_end_test_runs() -> None:
    """Collector, rules and dashboard are the same; only ports and times differ there."""
    commands = {name: " ".join(service.get("command", ())) for name, service in SERVICES.items()}
    mounts = {volume.split(":")[0] for s in SERVICES.values() for volume in s["volumes"]}
    assert {"./otelcol.yaml", "./prometheus", "./grafana/dashboard.json"} <= mounts
    assert commands["otel-collector"].endswith("/otelcol.yaml")
    assert commands["prometheus"].endswith("/prometheus.yaml")
    tested = (ROOT / "tests/pipeline/parts.py").read_text() + (
        ROOT / "tests/pipeline/test_pipeline.py"
    ).read_text()
    for name in ("otelcol.yaml", "prometheus.yaml", "rules.yaml", "alerts.yaml", "dashboard.json"):
        assert f'"{name}"' in tested


def test_ports_agree() -> None:
    """What is opened is listened on, on this host only, and what is scraped is there."""
    opened = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert opened
    for port in opened:
        host, outside, inside = port.split(":")
        assert host == "127.0.0.1"
        assert outside == inside
    listened = defaults() | {9090, 3000}
    assert {int(port.split(":")[1]) for port in opened} <= listened
    assert {4317, 4318, 13133} <= {int(port.split(":")[1]) for port in opened}
    scraped = {int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", PROMETHEUS)}
    assert scraped == {8888, 8889}
    assert scraped <= defaults()
    # It finds them on 127.0.0.1, as it shares the collector's network.
    assert SERVICES["prometheus"]["network_mode"] == "service:otel-collector"
    assert SERVICES["otel-collector"]["environment"]["OTELCOL_HOST"] == "0.0.0.0"
    source = (FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text()
    assert yaml.safe_load(source)["datasources"][0]["url"] == "http://otel-collector:9090"
