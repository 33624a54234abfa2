"""`make help` names every target, and says which targets rewrite tracked files."""

from __future__ import annotations

import re
from pathlib import Path

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")

#: `make format` rewrites the files that it is given, and so names none.
IN_PLACE = {"format"}


def recipes() -> dict[str, str]:
    """The recipe of each target that is no file."""
    found = re.findall(r"(?m)^([a-z][a-z-]*):[^\n]*\n((?:\t[^\n]*\n)+)", MAKEFILE)
    return {target: recipe.replace("\\\n", " ") for target, recipe in found}


def described() -> dict[str, str]:
    """What `make help` says of each target, continuation lines included."""
    text = "\n".join(re.findall(r'@echo "(.*)"', recipes()["help"]))
    return dict(re.findall(r"(?ms)^make ([a-z-]+) +(.*?)(?=^make |^These |\Z)", text))


def written(recipe: str) -> list[str]:
    """The paths in a recipe where reports, pictures and configuration are kept."""
    return re.findall(r"(?<![\w/.-])((?:docs|benchmarks|collector-config)/\S*)", recipe)


def test_every_target_is_in_help() -> None:
    """Whoever adds a target says in `make help` what it is for."""
    phony = re.search(r"(?m)^\.PHONY: (.*)$", MAKEFILE)
    assert phony is not None
    assert set(described()) == set(phony[1].split()) == set(recipes())


def test_help_marks_the_targets_that_rewrite_tracked_files() -> None:
    """No target writes into the repository without saying so, and none says so without need."""
    marked = {target for target, text in described().items() if "rewrites" in text}
    writing = {
        target for target, recipe in recipes().items() if target != "help" and written(recipe)
    }
    assert {"bench", "efficacy", "soak", "dashboard", "dashboard-figure"} <= writing
    assert marked == writing | IN_PLACE


def test_help_names_what_is_rewritten() -> None:
    """Each path that a recipe writes to is in the target's line of help."""
    for target, text in described().items():
        if target != "help":
            for path in written(recipes()[target]):
                assert path in text, target


def test_marked_targets_are_told_apart() -> None:
    """The targets that rewrite stand together, behind the line that says so."""
    before, _, after = recipes()["help"].partition("These targets rewrite tracked files:")
    assert "rewrites" not in before
    for entry in re.findall(r"make [a-z-]+ ", after):
        assert "rewrites" in described()[entry.split()[1]]
