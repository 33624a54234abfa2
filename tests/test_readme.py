"""README says what is there: its metrics, its configuration, its code."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry.trial import REASONS

from .test_telemetry import TABLE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_metric_table_is_the_metrics() -> None:
    """Every metric is in the table with its unit, and the table has no other."""
    table = {row[0].strip("` "): row[1] for row in rows("Metrics")[1:]}
    assert set(table) == set(TABLE)
    for name, (_, unit, _, _) in TABLE.items():
        assert f"`{unit}`" in table[name], name


def test_every_field_is_documented() -> None:
    """Each field of the configuration is in the tuning table, and no other."""
    names = [row[0].strip("` ") for row in rows("Tuning")]
    assert sorted(names) == sorted(field.name for field in dataclasses.fields(AdaptiveConfig))


def test_every_reason_is_named() -> None:
    """Each reason why a retry is not made is explained."""
    for reason in REASONS:
        assert f"`{reason}`" in section("When it retries"), reason


def test_the_code_is_python() -> None:
    """Each block of Python parses and uses names that the package exports."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module == "aiohttp_adaptive_retry":
                for name in node.names:
                    assert hasattr(sys.modules["aiohttp_adaptive_retry"], name.name)


@pytest.mark.wire
def test_the_first_block_runs(tmp_path: Path) -> None:
    """The ten lines that attach it work as written, against a server of ours."""
    (block, *_) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    program = tmp_path / "readme.py"
    program.write_text(
        "import aiohttp.test_utils, aiohttp.web, asyncio, threading\n"
        "ready = threading.Event(); found = []\n"
        "async def serve():\n"
        "    async def answer(request): return aiohttp.web.Response()\n"
        "    app = aiohttp.web.Application(); app.router.add_get('/', answer)\n"
        "    server = aiohttp.test_utils.TestServer(app); await server.start_server()\n"
        "    found.append(str(server.make_url('/'))); ready.set(); await asyncio.sleep(60)\n"
        "threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()\n"
        "ready.wait()\n" + block.replace('"https://example.com/"', "found[0]")
    )
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("200\n")
    assert "first_success=1" in done.stdout


def test_links_lead_somewhere() -> None:
    """Files that README links to exist; the benchmark's results are made by `make bench`."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_figures_are_those_of_the_last_benchmark() -> None:
    """What README says of cost and of deciding is what the commands wrote; nothing is typed in."""
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks/readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in module.PAGES]
    assert "| ours, metrics on |" in README
    assert "| outage_refused |" in README
    assert module.updated(README, *pages) == README
