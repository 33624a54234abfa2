"""What `make sensitivity` changes, and that it measures the change."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from aiohttp_adaptive_retry._policy.tuning import TUNING
from benchmarks.efficacy.worlds import sensitivity
from benchmarks.efficacy.worlds.sensitivity import main, variants


def test_every_constant_is_halved_and_doubled_alone() -> None:
    """The first variant is what ships; each other one differs from it in one constant."""
    (_, first), *others = variants()
    assert first == TUNING
    shipped = asdict(TUNING)
    assert len(others) == 2 * len(shipped)
    for name, tuning in others:
        changed = {key for key, value in asdict(tuning).items() if value != shipped[key]}
        assert changed == {name.split(" ")[0]}


def test_the_command_writes_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each change; what changes nothing is told as zero, and what does is not."""
    shipped = variants()[0]
    kept = [variant for variant in variants() if variant[0].startswith(("hold_young", "lost x 0"))]
    same = ("the same", TUNING)
    monkeypatch.setattr(sensitivity, "variants", lambda: [shipped, same, *kept])
    path = tmp_path / "page.md"
    assert main(["--first", "6000", "--count", "12", "--document", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 1 + 3
    assert lines[2] == "| the same | +0.00 | +0.00 | +0.00 | +0.00 |"
    assert any("| +0.00 | +0.00 | +0.00 | +0.00 |" not in line for line in lines[3:])
    assert path.read_text().endswith("\n".join(lines) + "\n")
