"""Versions and the kind of machine: what figures depend on, and nothing that says whose it is."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ("DISTRIBUTIONS", "kind", "versions")

DISTRIBUTIONS = (
    "aiohttp-adaptive-retry",
    "aiohttp",
    "yarl",
    "opentelemetry-api",
    "opentelemetry-sdk",
    "opentelemetry-instrumentation-aiohttp-client",
    "aiohttp-retry",
    "backoff",
    "hyx",
    "stamina",
    "tenacity",
    "psutil",
)


def versions() -> dict[str, str]:
    """Python and the distributions that are measured."""
    found = {platform.python_implementation(): platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def kind() -> str:
    """Processor, cores and system."""
    try:
        system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.system()
    return f"{_processor()}, {os.cpu_count()} cores, {platform.machine()}, {system}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
