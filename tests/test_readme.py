"""README says what is there: its metrics, its configuration, its code."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry.policy import REASONS
from benchmarks import readme

from .telemetry.table import TABLE

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
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in readme.PAGES]
    assert "| ours, metrics on |" in README
    assert "| outage_refused |" in README
    assert readme.updated(README, *pages) == README


def test_every_default_is_the_true_one() -> None:
    """The tuning table says what a field is set to if nobody sets it."""
    config = AdaptiveConfig()
    for name, default, _ in rows("Tuning"):
        value = getattr(config, name.strip("` "))
        if isinstance(value, frozenset):
            assert set(default.split()) - {"none"} == {str(member) for member in value}, name
        elif isinstance(value, timedelta):
            assert default == f"{value.total_seconds() / 60:g} min", name
        elif isinstance(value, float) and "/" in default:
            above, below = default.split("/")
            assert int(above) / int(below) == value, name
        elif isinstance(value, bool | str) or value is None:
            assert default == str(value), name
        else:
            assert float(default) == value, name


def test_the_presets_are_the_true_ones() -> None:
    """The table of presets has each field that one of them sets, with its values, and no other."""
    presets = (AdaptiveConfig(), AdaptiveConfig.interactive(), AdaptiveConfig.batch())
    values = {
        field.name: [getattr(preset, field.name) for preset in presets]
        for field in dataclasses.fields(AdaptiveConfig)
    }
    shown = {name.strip("` "): list(map(float, row)) for name, *row in rows("Presets")}
    assert shown == {name: row for name, row in values.items() if len(set(row)) > 1}


def test_every_attribute_is_named() -> None:
    """Each attribute that a metric carries beside its origin's is in the table's row."""
    table = {row[0].strip("` "): row[2] for row in rows("Metrics")[1:]}
    checked = 0
    for name, (_, _, _, own) in TABLE.items():
        for attribute in own or ():
            checked += 1
            assert f"`{attribute}`" in table[name], name
        assert table[name].startswith("O") or not own, name
    assert checked >= 5


def test_every_make_target_that_is_named_exists() -> None:
    """`make x` in README is a target of the Makefile, and help names each that users want."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z][a-z-]*):", makefile))
    named = set(re.findall(r"\bmake (?:-s )?([a-z]+(?:-[a-z]+)*)\b", README))
    named &= set(re.findall(r"`make (?:-s )?([a-z-]+)", README)) | set(
        re.findall(r"(?m)^\S*\s*\$?\(?make (?:-s )?([a-z-]+)", README)
    )
    assert {"demo", "test", "bench", "efficacy", "soak", "fuzz", "collector"} <= named
    assert named <= targets
    phony = set(re.search(r"(?m)^\.PHONY: (.*)$", makefile)[1].split())  # type: ignore[index]
    assert targets == phony


def test_every_example_is_named() -> None:
    """README names each file that one can start from."""
    examples = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert examples
    for name in examples:
        assert name in README, name


def test_every_exported_name_is_explained() -> None:
    """Each has a docstring that says in a line what it is, and ends it."""
    package = sys.modules["aiohttp_adaptive_retry"]
    names = [name for name in package.__all__ if name != "__version__"]
    assert names
    for name in names:
        exported = getattr(package, name)
        first = (exported.__doc__ or "").strip().splitlines()[0]
        assert len(first) > 20, name
        for method, value in vars(exported).items():
            if not method.startswith("_") and callable(value):
                assert value.__doc__, f"{name}.{method}"


@pytest.mark.wire
def test_the_other_blocks_run(tmp_path: Path) -> None:
    """All code in README runs as written, after the first block, with nobody to export to."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1:]
    assert blocks
    for number, block in enumerate(blocks):
        program = tmp_path / f"block{number}.py"
        program.write_text(block)
        done = subprocess.run(
            [sys.executable, str(program)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"},
        )
        assert done.returncode == 0, done.stderr
