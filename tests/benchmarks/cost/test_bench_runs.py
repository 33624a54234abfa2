"""``make bench`` runs whole: every section, every variant, goals beside figures.

How large the figures are is nobody's business here: a test that times is a test that fails on a
busy machine.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.cost import machine
from benchmarks.cost.figures import Spread, interleaved, median_of_ratios, ratio_of_medians
from benchmarks.cost.result import Goal

ROOT = Path(__file__).parents[3]

SECTIONS = {
    "In process: processor time per call": [
        "bare handler",
        "no-op middleware",
        "ours, metrics on",
        "ours, metrics off",
        "necessities in line",
        "aiohttp's documented loop",
        "hyx",
        "backoff",
        "stamina",
        "tenacity, decorator",
        "tenacity, loop",
        "one SDK counter call",
        "one collection, one origin",
    ],
    "On loopback: processor time per request": [
        "bare session",
        "no-op middleware",
        "ours, metrics on",
        "aiohttp_retry",
        "tenacity",
        "SDK instruments per attempt",
        "OpenTelemetry's instrumentation",
    ],
    "Scaling": ["100", "1,000", "10,000", "100,000", "1,000,000", "1,024"],
    "Memory": [
        "ours",
        "list of dicts",
        "deque of dicts",
        "deque of tuples",
        "list rebuilt by age",
    ],
    "Trouble": [
        "503, then 200: ours, metrics on",
        "503, then 200: tenacity",
        "POST, 503, not retried: ours, metrics on",
        "50 for 1 origin",
        "500 for 10 origins",
        "50, answered at once",
        "50, answered after 20 ms",
    ],
}


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of a Markdown text's tables, headers and rules left out, by section."""
    found: dict[str, list[list[str]]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ")
            found[section] = []
        elif line.startswith("|"):
            found[section].append([cell.strip() for cell in line.strip("|").split("|")])
    for rows in found.values():
        rules = [number for number, row in enumerate(rows) if row[0] == "---"]
        for number in reversed(rules):
            del rows[number - 1 : number + 1]
    return found


@pytest.mark.wire
@pytest.mark.timeout(240)
def test_the_command_runs_whole(tmp_path: Path) -> None:
    """Every section has its variants with positive figures, and goals with a verdict."""
    out = tmp_path / "results.md"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--out", str(out)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220)
    assert run.returncode == 0, run.stderr
    text = out.read_text()
    found = tables(text)
    assert list(found) == list(SECTIONS)
    for section, variants in SECTIONS.items():
        assert section in run.stdout
        rows = found[section]
        for variant in variants:
            figures = [row[1] for row in rows if row[0] == variant]
            assert figures, f"{section}: {variant}"
            assert all(float(figure.replace(",", "")) > 0.0 for figure in figures)
        goals = [row for row in rows if row[-1] in ("met", "MISSED")]
        assert goals, section
        for goal in goals:
            assert re.fullmatch(r"-?\d+\.\d+( \S+)?", goal[1])
            assert re.fullmatch(r"at (most|least) [\d.]+( \S+)?", goal[2])
    assert "its figures are noise" in text
    for distribution in machine.DISTRIBUTIONS:
        assert f"{distribution} " in text


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt section is an error that names the sections."""
    with pytest.raises(SystemExit):
        main(["--only", "speed"])
    assert "loopback" in capsys.readouterr().err


async def test_variants_take_turns_in_rotating_order() -> None:
    """Each variant runs once per round, once more to warm up, and begins a round now and then."""
    order: list[str] = []

    def variant(name: str) -> object:
        async def turn() -> float:
            order.append(name)
            return 1.0

        return turn

    samples = await interleaved({name: variant(name) for name in "abc"}, 6)  # type: ignore[misc]
    assert samples == {name: [1.0] * 6 for name in "abc"}
    rounds = ["".join(order[start : start + 3]) for start in range(3, len(order), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert {one[0] for one in rounds} == {"a", "b", "c"}


def test_ratios_and_spreads() -> None:
    """Noise that comes in stretches cancels within rounds; one figure is a spread of itself."""
    base, figures = [1.0, 1.0, 10.0], [2.0, 2.0, 20.0]
    assert median_of_ratios(figures, base) == ratio_of_medians(figures, base) == 2.0
    assert median_of_ratios([1.0, 5.0], [0.5, -1.0]) == 2.0
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)


def test_goals_are_judged_honestly() -> None:
    """A limit is reached by what equals it, and missed by what is no number."""
    assert Goal("most", 1.0, 1.0).met
    assert not Goal("most", 1.001, 1.0).met
    assert Goal("least", 48.0, 48.0, at_least=True).met
    assert not Goal("most", float("nan"), 1.0).met
    assert not Goal("least", float("nan"), 1.0, at_least=True).met
