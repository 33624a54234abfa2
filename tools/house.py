"""Writes into docs/ARCHITECTURE.md what can be read from the code: the rooms, and the modules.

The figure shows the package's rooms by floors, with an arrow for each import. A room is a folder of
the package, or a module beside the folders. A room stands one floor above the highest room that it
imports from. So every arrow goes down.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

__all__ = ("PACKAGE", "figure", "imports", "modules", "updated")

PACKAGE: Final = Path(__file__).parents[1] / "src/aiohttp_adaptive_retry"


def imports(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The other rooms that each room imports from; imports for the type checker count too."""
    found: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        module = path.relative_to(package).with_suffix("").parts
        here = found.setdefault(module[0], set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            # `from ..a.b import c` of module ("x", "y") is ("a", "b"); `from . import b` names b.
            base = module[: len(module) - node.level]
            names = [node.module] if node.module else [name.name for name in node.names]
            for name in names:
                here.add((*base, *name.split("."))[0])
    return {name: others - {name} for name, others in found.items()}


def figure(arrows: Mapping[str, set[str]] | None = None) -> str:
    """The rooms from the highest floor down, each with the rooms that its arrows lead to.

    Raises:
        graphlib.CycleError: the rooms import from each other in a circle.
    """
    arrows = imports() if arrows is None else arrows
    floors: dict[str, int] = {}
    for name in TopologicalSorter(arrows).static_order():
        floors[name] = 1 + max((floors[below] for below in arrows[name]), default=-1)

    def place(name: str) -> tuple[int, str]:
        return -floors[name], name

    lines, last = [], -1
    for name in sorted(arrows, key=place):
        floor = "" if floors[name] == last else f"floor {floors[name]}"
        last = floors[name]
        below = " ".join(sorted(arrows[name], key=place))
        lines.append(f"{floor:9}{name:12} {'↓ ' + below if below else ''}".rstrip())
    return "\n".join(lines) + "\n"


def modules(package: Path = PACKAGE) -> str:
    """A table of all modules, each with the first line of its docstring."""
    lines = ["| module | what it is for |", "|---|---|"]
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name.count("/") and path.name == "__init__.py":
            continue
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if not text:
            raise ValueError(f"{name} has no docstring")
        lines.append(f"| `{name}` | {text.splitlines()[0]} |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """The page with the present figure and table."""
    for name, text in (("figure", f"```text\n{figure()}```\n"), ("modules", modules())):
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = page.partition(begin)
        _, found_end, after = rest.partition(end)
        if not found or not found_end:
            raise ValueError(f"the page must have {begin.strip()} and {end}")
        page = before + begin + text + end + after
    return page


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
