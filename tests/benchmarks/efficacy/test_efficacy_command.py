"""The command prints a table and writes JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.efficacy.__main__ import main


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One condition, two seeds: the ends of the scale come out as 0 and 1."""
    path = tmp_path / "out.json"
    asked = ["--conditions", "quiet_outage", "--policies", "stamina", "--seeds", "2"]
    assert main([*asked, "--json", str(path), "--details"]) == 0
    printed = capsys.readouterr().out
    assert "quiet_outage" in printed
    assert "stamina" in printed
    written = json.loads(path.read_text())
    cell = written["conditions"]["quiet_outage"]
    assert cell["clairvoyant"]["regret"] == 0.0
    assert max(cell["none"]["regret"], cell["fixed3"]["regret"]) == pytest.approx(1.0)
    assert cell["clairvoyant_admit"]["regret"] < 0.0 == cell["clairvoyant_admit"]["regret_admit"]
    assert len(cell["stamina"]["value"]["by_seed"]) == 2
    assert written["policies"]["stamina"]["worst_in"] == "quiet_outage"


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    """Where a world runs changes nothing."""
    paths = [tmp_path / "one.json", tmp_path / "two.json"]
    for jobs, path in enumerate(paths, 1):
        asked = ["--conditions", "cold_clients,quiet_outage", "--policies", "none", "--seeds", "1"]
        main([*asked, "--jobs", str(jobs), "--json", str(path)])
    assert paths[0].read_text() == paths[1].read_text()


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt policy is an error that names what there is."""
    with pytest.raises(SystemExit):
        main(["--policies", "nonesuch"])
    assert "fixed3" in capsys.readouterr().err
