"""Harm and the tables are what the results say; the command prints and writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.efficacy.worlds import policies
from benchmarks.efficacy.worlds.__main__ import main
from benchmarks.efficacy.worlds.document import write_document
from benchmarks.efficacy.worlds.policies import PURSES
from benchmarks.efficacy.worlds.report import (
    behind,
    families_table,
    harm,
    percentile,
    row,
    table,
    worst,
    worst_text,
)
from benchmarks.efficacy.worlds.results import Outcome, Result


def outcome(number: int, successes: dict[str, float], family: str = "outage") -> Outcome:
    """A world in which nobody waits and each call is one attempt."""
    results = {name: Result(success, 1.0, 0.0, 0.0) for name, success in successes.items()}
    return Outcome(number, "open", (family,), f"open {number}: by hand", results)


WORLDS = [
    outcome(7, {"none": 0.5, "ours": 0.9, "fixed3": 0.8}),
    outcome(8, {"none": 0.5, "ours": 0.4, "fixed3": 0.5}),
    outcome(9, {"none": 1.0, "ours": 0.9975, "fixed3": 1.0}, "calm"),
]


def test_a_row_by_hand() -> None:
    """Mean, harm, loss and distance of three worlds."""
    found = row(WORLDS, "ours", "patience")
    assert found.mean == pytest.approx(100 * (0.9 + 0.4 + 0.9975) / 3 - 10)
    assert found.harmed == pytest.approx(1 / 3)
    assert (found.worst_in, found.lost_in) == (8, 8)
    assert found.worst == found.harm99 == pytest.approx(10.0)
    assert found.lost == found.lost99 == pytest.approx(10.0)
    assert found.behind == pytest.approx((0.0 + 10.0 + 0.25) / 3)
    assert found.near == pytest.approx(2 / 3)


def test_never_retrying_does_no_harm() -> None:
    """Harm of ``none`` is exactly 0, and nobody is ahead of the best known."""
    for one in WORLDS:
        for purse in PURSES:
            assert harm(one, "none", purse) == 0.0
            assert min(behind(one, name, purse) for name in one.results) == 0.0


def test_percentiles_are_of_what_is_there() -> None:
    """The smallest value that the share does not exceed."""
    values = [float(value) for value in range(1, 201)]
    assert (percentile(values, 0.99), percentile(values, 0.95)) == (198.0, 190.0)
    assert percentile([3.0], 0.99) == 3.0


def test_families_and_worst() -> None:
    """Each family has its own line; the worst world comes first, with its description."""
    text = families_table(WORLDS, ["ours", "fixed3"])
    assert "calm (1)" in text
    assert "outage (2)" in text
    assert "+15.0/5.0/50%" in text
    (_, purse, those), *_ = worst(WORLDS, "ours", 2)
    assert (purse, [one.number for one in those]) == ("patience", [8, 9])
    assert "open 8: by hand" in worst_text(WORLDS, "ours", 1)


def test_the_document_is_written_from_results_only(tmp_path: Path) -> None:
    """Other results, other numbers; the same results, the same page."""
    pages = []
    for ours in (0.4, 0.4, 0.3):
        worlds = [WORLDS[0], outcome(8, {"none": 0.5, "ours": ours, "fixed3": 0.5}), WORLDS[2]]
        write_document(tmp_path / "WORLDS.md", worlds, ["none", "fixed3", "ours"])
        pages.append((tmp_path / "WORLDS.md").read_text())
    assert pages[0] == pages[1] != pages[2]
    assert "worlds 7 to 9" in pages[0]
    assert "| ours | 66.6 | 33.3% | 10.0 | 10.0 | 8 |" in pages[0]
    assert "harm 10.0, success lost 10.0: open 8: by hand" in pages[0]
    assert "harm 20.0, success lost 20.0: open 8: by hand" in pages[2]


def test_a_policy_is_shown_on_its_purses_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry says on which."""
    monkeypatch.setitem(policies.JUDGED, "ours", ("minute",))
    shown = [part for part in table(WORLDS, ["none", "ours"]).split("\n\n") if "ours" in part]
    assert len(shown) == 1
    assert "purse: minute" in shown[0]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two processes print and write what one does; the page and the picture are there."""
    texts, printed = [], []
    for jobs in ("1", "2"):
        path = tmp_path / f"{jobs}.json"
        asked = ["--first", "6100", "--count", "3", "--policies", "eight_lines", "--jobs", jobs]
        asked += ["--worst", "1", "--of", "eight_lines", "--families"]
        asked += ["--document", str(tmp_path)] if jobs == "2" else []
        assert main([*asked, "--json", str(path)]) == 0
        texts.append(path.read_text())
        printed.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert printed[0] == printed[1]
    assert "closed loops, 3 worlds, purse: second" in printed[0]
    assert len(json.loads(texts[0])) == 6
    assert (tmp_path / "WORLDS.md").exists()
    assert (tmp_path / "harm.png").stat().st_size > 10_000


def test_one_world_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """It is described, and every policy is told of."""
    asked = ["--world", "6100", "--loop", "open", "--policies", "fixed3"]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "open 6100: " in printed
    assert "closed" not in printed.splitlines()[0]
    assert "fixed3" in printed
    with pytest.raises(SystemExit):
        main(["--policies", "nonesuch"])
