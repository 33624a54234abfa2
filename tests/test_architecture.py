"""docs/ARCHITECTURE.md says what the code is: its figure, its modules, and each name in it."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import fields
from graphlib import CycleError
from pathlib import Path

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry.events import RESULTS
from tools.house import PACKAGE, figure, imports, modules, updated

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8")
#: The page without what a script wrote.
PROSE = re.sub(r"(?s)<!-- (figure|modules) -->.*?<!-- /\1 -->", "", PAGE)
#: Words in backticks that are no name in the code.
WORDS = {
    "classify",
    "on_event",
    "_",
    "calls.held",
    "clock",
    "random",
    "policy",
    *RESULTS,
    *(field.name for field in fields(AdaptiveConfig)),
}


def quoted() -> list[str]:
    return re.findall(r"`([^`\n]+)`", PROSE)


def exists(name: str) -> bool:
    """Whether a file, a make target, a module, or something in a module is called so."""
    if name.startswith("make "):
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        return re.search(rf"(?m)^{name[5:]}:", makefile) is not None
    if "/" in name:
        return (PACKAGE / name).exists() or (ROOT / name).exists()
    module, rest = PACKAGE.name, name.split(".")
    while rest and (
        (folder := PACKAGE.parent.joinpath(*module.split("."), rest[0])).is_dir()
        or folder.with_suffix(".py").exists()
    ):
        module += f".{rest.pop(0)}"
    found: object = importlib.import_module(module)
    if not rest:
        return module != PACKAGE.name
    for part in rest:
        annotated = part in getattr(found, "__annotations__", {})
        if not annotated and not hasattr(found, part):
            return False
        found = getattr(found, part, None)
    return True


def arrows() -> Iterator[tuple[str, str]]:
    """The arrows of the figure in the page, as (from, to), in the order of the lines."""
    for line in re.findall(r"(?m)^(?:floor \d+| {7}) +(\w+ *(?:↓.*)?)$", PAGE):
        name, _, below = line.partition("↓")
        for other in below.split():
            yield name.strip(), other


def imported() -> set[tuple[str, str]]:
    """The imports between rooms, from the text of the files alone."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        for dots, target in re.findall(
            r"(?m)^\s*from (\.+)(\w*)", path.read_text(encoding="utf-8")
        ):
            inside = len(parts) > len(dots)
            assert inside or target, f"{path} imports from the package itself"
            found.add((parts[0], parts[0] if inside else target))
    return {(name, other) for name, other in found if name != other}


def test_the_figure_and_the_table_are_those_of_the_code() -> None:
    """`make architecture` would change nothing."""
    assert updated(PAGE) == PAGE


def test_the_arrows_are_the_imports() -> None:
    """Each import between rooms is an arrow, and each arrow is an import."""
    assert len(imported()) > 10
    assert set(arrows()) == imported()


def test_every_arrow_goes_down() -> None:
    """A room imports only from rooms that stand on a line below its own floor."""
    floor, floors = 0, {}
    for number, name in re.findall(r"(?m)^(?:floor (\d+)| {7}) +(\w+) *(?:↓.*)?$", PAGE):
        floor = int(number) if number else floor
        floors[name] = floor
    assert len(floors) > 5
    for name, other in arrows():
        assert floors[name] > floors[other], f"{name} -> {other}"


def test_an_import_that_turns_upward_is_noticed(tmp_path: Path) -> None:
    """Rooms that import from each other can't be drawn."""
    for name, text in (
        ("low/__init__.py", ""),
        ("low/part.py", '"""Part."""\nfrom ..high import thing\n'),
        ("high.py", "from .low.part import other\n"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    rooms = imports(tmp_path)
    assert rooms == {"low": {"high"}, "high": {"low"}}
    with pytest.raises(CycleError):
        figure(rooms)
    rooms["low"].clear()
    assert figure(rooms).splitlines() == ["floor 1  high         ↓ low", "floor 0  low"]


def test_every_module_is_named() -> None:
    """No module is forgotten, and each has a line that says what it is for."""
    named = re.findall(r"(?m)^\| `([\w/]+\.py)` \| \S", PAGE)
    there = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert set(named) == {name for name in there if not name.endswith("/__init__.py")}
    assert modules() in PAGE


def test_every_name_exists() -> None:
    """What stands in backticks is a file, a make target, a name in the code, or a known word."""
    assert len(quoted()) > 60
    wrong = [name for name in quoted() if name not in WORDS and not exists(name)]
    assert not wrong


@pytest.mark.parametrize(
    "name",
    ["_call.CallDrivers", "_call.CallDriver.outcomes", "_http/nothing.py", "make nothing", "cal"],
)
def test_a_wrong_name_is_noticed(name: str) -> None:
    """The search for names can fail."""
    assert not exists(name)


def test_links_lead_somewhere() -> None:
    """Files that the page links to exist."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
    assert targets
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target


def test_only_the_named_rooms_await() -> None:
    """Coroutines are only where the page says so."""
    awaiting = {
        path.relative_to(PACKAGE).with_suffix("").parts[0]
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    }
    assert awaiting == {"_http", "standalone"}
    assert "- await, except `_http` and `standalone`;" in PROSE


def test_every_word_of_the_seam_is_explained() -> None:
    """The glossary has each type that policies and listeners see, and the invariants are there."""
    for name in ("AttemptOutcome", "CallView", "Send", "Wait", "GiveUp", "Reason", "Policy"):
        assert f"`policy.{name}`" in PROSE, name
    for title in ("The house", "The way of one failing call", "Where to change what", "Glossary"):
        assert f"\n## {title}\n" in PAGE
    for change in ("reason", "metric", "policy", "error to classify", "header"):
        assert f"| a new {change} |" in PROSE
