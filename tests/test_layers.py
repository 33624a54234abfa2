"""The house: imports run one way, and the exported names are these."""

from __future__ import annotations

import ast
import importlib.metadata
import re
from pathlib import Path

import aiohttp_adaptive_retry

PACKAGE = Path(aiohttp_adaptive_retry.__file__).parent

# Each module, and what of this package it may import. Lower ones first.
LAYERS = [
    {"config", "errors", "faults", "health", "trial"},
    {"window", "budget", "backoff", "memory", "ledger", "recent", "snapshot"},
    {"deciding", "attempt", "runs"},
    {"strategy"},
    {"origins"},
    {"readings"},
    {"telemetry"},
    {"books", "tracing"},
    {"middleware"},
    {"__init__"},
    # For users, who have the extra; nothing imports it.
    {"otlp"},
]
# The deciding core knows none of these.
FOREIGN = {"aiohttp", "asyncio", "opentelemetry"}
CORE = {"config", "window", "budget", "backoff", "health", "trial", "deciding", "strategy"}


def imports(module: str) -> tuple[set[str], set[str]]:
    """What a module imports: of this package, and from elsewhere."""
    ours, theirs = set(), set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                ours |= {node.module} if node.module else {name.name for name in node.names}
            elif node.module:
                theirs.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Import):
            theirs |= {name.name.partition(".")[0] for name in node.names}
    return ours, theirs


def modules() -> set[str]:
    return {path.stem for path in PACKAGE.glob("*.py")}


def test_imports_run_one_way() -> None:
    """A module imports only from layers below its own."""
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert modules() <= set(rank)
    for module in sorted(modules()):
        above = {name for name in imports(module)[0] if rank[name] >= rank[module]}
        assert not above, f"{module} imports {above}"


def test_the_core_knows_no_http_no_loop_and_no_telemetry() -> None:
    """What decides can be driven by a simulator."""
    for module in sorted(CORE & modules()):
        assert not imports(module)[1] & FOREIGN, module


def test_files_tell_one_story() -> None:
    """No module is longer than about 400 lines."""
    lengths = {path.name: len(path.read_text().splitlines()) for path in PACKAGE.glob("*.py")}
    assert lengths
    assert {name: length for name, length in lengths.items() if length > 420} == {}


def test_exported_names() -> None:
    """The public surface: adding to it is a decision, taking from it a new major version."""
    assert sorted(aiohttp_adaptive_retry.__all__) == [
        "AdaptiveConfig",
        "AdaptiveRetryMiddleware",
        "AdaptiveStrategy",
        "AttemptRecord",
        "MemorySnapshot",
        "OriginSnapshot",
        "OriginUnavailable",
        "RequestCounts",
        "Snapshot",
        "__version__",
    ]
    for name in aiohttp_adaptive_retry.__all__:
        assert getattr(aiohttp_adaptive_retry, name) is not None


def test_version_and_typing_marker() -> None:
    """The version is the distribution's; type checkers are told that there are types."""
    installed = importlib.metadata.version("aiohttp-adaptive-retry")
    assert aiohttp_adaptive_retry.__version__ == installed
    assert (PACKAGE / "py.typed").exists()


def test_only_the_api_is_required() -> None:
    """The SDK and the exporter are an extra, never a dependency; only `otlp` imports them."""
    needed = importlib.metadata.requires("aiohttp-adaptive-retry") or []
    plain = {re.split(r"[^\w-]", line)[0] for line in needed if "extra" not in line}
    assert plain == {"aiohttp", "opentelemetry-api", "psutil"}
    for module in modules() - {"otlp"}:
        text = (PACKAGE / f"{module}.py").read_text()
        assert "opentelemetry.sdk" not in text
        assert "opentelemetry.exporter" not in text
