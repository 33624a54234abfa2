"""The house: imports run one way, each room reaches what it may, and the public names are these.

Imports are read from the source, as the lines say them, also those inside functions. What Python
runs besides (the package's `__init__` before any module in it) is left out.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import aiohttp_adaptive_retry

PACKAGE = Path(aiohttp_adaptive_retry.__file__).parent
NAME = PACKAGE.name
TESTS = Path(__file__).parent

#: The modules, lowest first. A module imports only from layers below its own.
LAYERS: tuple[set[str], ...] = (
    # Folders hold no code of their own.
    {"_http", "_origin", "_policy", "_telemetry"},
    {"_checks"},
    {"_sources"},
    {
        "_errors",
        "_http.body",
        "_http.closing",
        "_http.moments",
        "_http.misuse",
        "_http.pool",
        "_http.unread",
        "_http.way",
        "_origin.window",
        "_policy.protocol",
        "_policy.tuning",
        "_telemetry.scope",
        "config",
    },
    {
        "_http.kept",
        "_http.switch",
        "_http.retry_after",
        "_options",
        "_origin.memory",
        "_origin.newcomers",
        "_origin.waiting",
        "_policy.cost",
        "_policy.estimators",
        "_policy.state",
        "events",
    },
    {"_http.proof", "_origin.counters", "_origin.sweeper", "_policy.adaptive"},
    {"_policy.admission"},
    {"_policy.asking"},
    {
        "_http.replay",
        "_http.verdict",
        "_origin.origin",
        "_policy.fixed",
    },
    {
        "_http.classify",
        "_origin.call",
        "_origin.recent",
        "_origin.registry",
        "_telemetry.narrator",
        "_telemetry.spans",
        "policy",
    },
    {"_telemetry.metrics"},
    {"_call", "_http.attempt", "_http.release", "_telemetry.hub", "_telemetry.snapshot"},
    {"_http.call", "standalone"},
    {"_http.layers", "_http.setups", "_http.time_left"},
    {"_http.judge"},
    {"_http.retries"},
    {"_http.middleware"},
    {"_http.attaching"},
    # The package itself, for users.
    {""},
    # For users who have the extra; nothing imports it.
    {"otlp"},
)
#: Imports for the type checker that have to run upward, as (from, to). None has to.
UPWARD_FOR_TYPES: frozenset[tuple[str, str]] = frozenset()

#: What is not ours and not the standard library's that a room reaches, itself or through others.
REACHES: dict[str, set[str]] = {
    "_checks": set(),
    "_options": set(),
    "_sources": set(),
    "config": set(),
    "_policy": set(),
    "policy": set(),
    "events": set(),
    # The one error of our own is an aiohttp.ClientError, so that whoever catches those catches it.
    "_errors": {"aiohttp"},
    # psutil reads the process's size; yarl is what aiohttp's requests have for URLs.
    "_origin": {"psutil", "yarl"},
    "_call": {"psutil"},
    # aiohttp through `_errors` alone: see VIA.
    "standalone": {"aiohttp", "psutil"},
    "_telemetry": {"aiohttp", "opentelemetry", "psutil", "yarl"},
    "_http": {"aiohttp", "opentelemetry", "psutil", "yarl"},
    "": {"aiohttp", "opentelemetry", "psutil", "yarl"},
    "otlp": {"opentelemetry"},
}
#: Through which modules a room may reach aiohttp, if not through all.
VIA = {
    "standalone": {"_errors"},
    # Spans are put around aiohttp's requests.
    "_telemetry": {"_errors", "_telemetry.spans"},
}
#: Rooms of ours that a room may reach beside itself, where that is less than what lies below it.
OWN_REACH = {
    "_checks": set[str](),
    "_options": {"config", "_checks", "_sources"},
    "_sources": {"_checks"},
    "config": {"_checks", "_sources"},
    "_policy": {"config", "_checks", "_sources"},
    "policy": {"_policy", "config", "_checks", "_sources"},
    "events": {"_policy", "config", "_checks", "_sources"},
}
#: Who waits. The others can be driven without a loop.
AWAKE = {"_http", "standalone", ""}

PUBLIC = {"", "config", "events", "otlp", "policy", "standalone"}


@dataclass
class Imports:
    """What one module imports: modules of ours, and others by their whole names."""

    ours: set[str] = field(default_factory=set)
    #: Of ours, for the type checker only.
    for_types: set[str] = field(default_factory=set)
    theirs: set[str] = field(default_factory=set)


class House:
    """A package's modules by name ("" is the package itself), and what each imports."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.files = {self._named(path): path for path in sorted(package.rglob("*.py"))}
        self.imports = {name: self._read(name) for name in self.files}

    def _named(self, path: Path) -> str:
        parts = path.relative_to(self.package).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _read(self, name: str) -> Imports:
        found = Imports()
        tree = ast.parse(self.files[name].read_text(encoding="utf-8"))
        for_types = {
            id(node)
            for branch in ast.walk(tree)
            if isinstance(branch, ast.If) and ast.unparse(branch.test).endswith("TYPE_CHECKING")
            for statement in branch.body
            for node in ast.walk(statement)
        }
        for node in ast.walk(tree):
            for module, member in self._imported(name, node):
                if module != NAME and not module.startswith(f"{NAME}."):
                    found.theirs.add(module)
                    continue
                inside = module.removeprefix(NAME).removeprefix(".")
                # `from . import metrics` names a module, `from .metrics import by_state` does not.
                deeper = f"{inside}.{member}".removeprefix(".")
                target = deeper if deeper in self.files else inside
                (found.for_types if id(node) in for_types else found.ours).add(target)
        return found

    def _imported(self, name: str, node: ast.AST) -> Iterator[tuple[str, str]]:
        """The whole names of modules that a statement imports from, each with the member."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = [NAME, *name.split(".")] if name else [NAME]
                if self.files[name].name != "__init__.py":
                    here.pop()
                here = here[: len(here) - node.level + 1]
                base = ".".join(here + ([node.module] if node.module else []))
            for alias in node.names:
                yield base, alias.name

    def of_room(self, room: str) -> set[str]:
        """The modules of a room: a folder's, or one module beside the folders."""
        return {name for name in self.files if name == room or room_of(name) == room}

    def reached(self, room: str) -> dict[str, str]:
        """Every module of ours that a room's modules import, at any depth, and the way to it."""
        ways = {name: name for name in self.of_room(room)}
        waiting = sorted(ways)
        while waiting:
            name = waiting.pop(0)
            for other in sorted(self.imports[name].ours):
                if other not in ways:
                    ways[other] = f"{ways[name]} -> {other}"
                    waiting.append(other)
        return ways


def room_of(name: str) -> str:
    return name.partition(".")[0]


# Each check gives what is wrong, so that it can be tried on a house that is.


def turned_upward(house: House) -> list[str]:
    """Modules that are in no layer, and imports that do not run downward."""
    floor = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    wrong = [f"{name} is in no layer" for name in house.files if name not in floor]
    wrong += [f"{name} is no module" for name in floor if name not in house.files]
    for name, imports in house.imports.items():
        allowed = {to for start, to in UPWARD_FOR_TYPES if start == name}
        for other in imports.ours | (imports.for_types - allowed):
            if floor.get(other, 0) >= floor.get(name, len(LAYERS)):
                wrong.append(f"{name} -> {other}")
    return sorted(wrong)


def circles(house: House, *, for_types: bool) -> list[str]:
    """Modules that import each other, at any depth."""

    def below(name: str) -> set[str]:
        imports = house.imports[name]
        return imports.ours | (imports.for_types if for_types else set())

    wrong = []
    for name in house.files:
        seen, waiting = set[str](), [*below(name)]
        while waiting:
            other = waiting.pop()
            if other not in seen:
                seen.add(other)
                waiting += below(other)
        if name in seen:
            wrong.append(name)
    return wrong


def reached_too_far(house: House) -> list[str]:
    """What rooms reach, at any depth, that they may not."""
    wrong = []
    for room in {room_of(name) for name in house.files}:
        ways = house.reached(room)
        for name, way in ways.items():
            for module in house.imports[name].theirs:
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names:
                    if top == "asyncio" and room not in AWAKE:
                        wrong.append(f"{way} -> {top}")
                elif top not in REACHES.get(room, ()) or (
                    top == "aiohttp" and name not in VIA.get(room, {name})
                ):
                    wrong.append(f"{way} -> {top}")
            own = OWN_REACH.get(room)
            if own is not None and room_of(name) not in {room, *own}:
                wrong.append(way)
        for name in ways if room in OWN_REACH else ():
            wrong += [
                f"{ways[name]} -> {other} for types"
                for other in house.imports[name].for_types
                if room_of(other) not in {room, *OWN_REACH[room]}
            ]
    return sorted(wrong)


@pytest.fixture(scope="module")
def house() -> House:
    return House(PACKAGE)


def test_imports_run_one_way(house: House) -> None:
    """A module imports only from layers below its own, those for the type checker included."""
    assert turned_upward(house) == []


@pytest.mark.parametrize("for_types", [False, True])
def test_no_import_runs_in_a_circle(house: House, for_types: bool) -> None:
    """No module imports itself, however long the way."""
    assert circles(house, for_types=for_types) == []


def test_each_room_reaches_what_it_may(house: House) -> None:
    """What decides needs the standard library alone, what counts no HTTP, and neither a loop."""
    assert reached_too_far(house) == []
    assert {room_of(name) for name in house.files} == set(REACHES)


def test_what_rooms_may_reach_they_do_reach(house: House) -> None:
    """The table permits nothing that nobody uses."""
    for room, allowed in REACHES.items():
        found = {
            module.partition(".")[0]
            for name in house.reached(room)
            for module in house.imports[name].theirs
        }
        assert found - sys.stdlib_module_names == allowed, room


def test_only_otlp_needs_the_sdk(house: House) -> None:
    """Whoever wants no exporter need not install one."""
    users = {
        name
        for name, imports in house.imports.items()
        if any(re.match(r"opentelemetry\.(sdk|exporter)\b", module) for module in imports.theirs)
    }
    assert users == {"otlp"}
    assert all("otlp" not in house.reached(name) for name in house.files if name != "otlp")


def test_nothing_is_imported_by_a_string(house: House) -> None:
    """Such an import would be seen by no check here."""
    for name, path in house.files.items():
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bimport_module\b|\b__import__\b|\bexec\(|\beval\(", text), name


def test_files_tell_one_story(house: House) -> None:
    """No module is longer than 400 lines."""
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in house.files.items()
    }
    assert len(lengths) > 20
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_what_is_not_for_users_looks_so(house: House) -> None:
    """A module is public, or some part of its name begins with an underscore."""
    visible = {name for name in house.files if not re.search(r"(^|\.)_", name)}
    assert visible == PUBLIC


@pytest.mark.parametrize("module", sorted(PUBLIC - {""}))
def test_public_modules_say_what_they_export(module: str) -> None:
    """`__all__` names what is theirs, sorted or in the order of importance, and no private name."""
    found = importlib.import_module(f"{NAME}.{module}")
    if module == "config":
        # Its one class is exported by the package.
        assert found.AdaptiveConfig is aiohttp_adaptive_retry.AdaptiveConfig
        return
    assert found.__all__
    assert not [name for name in found.__all__ if name.startswith("_")]
    assert all(hasattr(found, name) for name in found.__all__)


# That the checks find what they are there to find.


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to be damaged."""
    return Path(shutil.copytree(PACKAGE, tmp_path / NAME))


def plant(package: Path, **texts: str) -> House:
    """Put lines at the ends of modules, which are made if need be."""
    for module, text in texts.items():
        path = package / f"{module.replace('__', '/')}.py"
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        path.write_text(f"{before}\n{text}\n", encoding="utf-8")
    return House(package)


def test_an_import_three_modules_below_a_policy_is_found(copy: Path) -> None:
    """However deep it lies and however it is written, with the way that leads there."""
    damaged = plant(
        copy,
        _policy__cost="from .. import _first",
        _first="from ._second import thing",
        _second="def late():\n    from . import _third",
        _third="import aiohttp.client",
    )
    wrong = reached_too_far(damaged)
    assert "_policy.cost -> _first -> _second -> _third -> aiohttp" in wrong
    assert "policy -> _policy.adaptive -> _policy.cost -> _first -> _second" in wrong
    assert "_third is in no layer" in turned_upward(damaged)


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        ("_policy__protocol", "from ..events import Label", "_policy.protocol -> events"),
        ("_policy__cost", "from .adaptive import AdaptivePolicy", "_policy.cost -> _policy"),
        ("config", "from . import standalone", "config -> standalone"),
        ("config", "import aiohttp_adaptive_retry.policy", "config -> policy"),
        (
            "_origin__window",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .registry import Origin",
            "_origin.window -> _origin.registry",
        ),
        ("_call", "from ._http.middleware import AdaptiveRetryMiddleware", "_call -> _http"),
        ("_errors", "from . import VERSION", "_errors -> "),
    ],
)
def test_an_import_that_runs_upward_is_found(
    copy: Path, module: str, line: str, found: str
) -> None:
    """In whatever way it is written, also for the type checker alone."""
    wrong = turned_upward(plant(copy, **{module: line}))
    assert [entry for entry in wrong if entry.startswith(found)]


@pytest.mark.parametrize(
    ("module", "line", "found"),
    [
        ("_origin__counters", "import aiohttp", "_call -> _origin.counters -> aiohttp"),
        ("_origin__sweeper", "from asyncio import sleep", "_origin.sweeper -> asyncio"),
        ("config", "import yarl", "policy -> config -> yarl"),
        ("_call", "from aiohttp import ClientError", "standalone -> _call -> aiohttp"),
        ("_policy__fixed", "from .. import events", "_policy.fixed -> events"),
        ("_policy__cost", "from .._errors import error_name", "_policy.cost -> _errors -> aiohttp"),
    ],
)
def test_what_a_room_may_not_reach_is_found(copy: Path, module: str, line: str, found: str) -> None:
    """Third parties, the loop, and rooms of ours."""
    assert found in reached_too_far(plant(copy, **{module: line}))


def test_a_circle_is_found(copy: Path) -> None:
    """Of two, of three, and of one for types."""
    damaged = plant(copy, _policy__cost="from .fixed import FixedPolicy")
    assert {"_policy.cost", "_policy.fixed"} <= set(circles(damaged, for_types=False))
    lines = "if TYPE_CHECKING:\n    from .registry import Registry"
    damaged = plant(copy, _origin__memory=lines)
    assert "_origin.memory" not in circles(damaged, for_types=False)
    assert {"_origin.memory", "_origin.registry"} <= set(circles(damaged, for_types=True))


# The tests' own imports.

#: Tests that look into a room which is not theirs, and why.
LOOKS_INTO: dict[tuple[str, str], str] = {
    ("wire/test_kept.py", "_http"): "how large an answer may be that a waiting call keeps",
    ("policy/test_waiting.py", "_call"): "the calls that it bounds have sizes",
    ("policy/test_waiting.py", "_origin"): "it reads how many calls wait",
    ("conftest.py", "_origin"): "labels are bounded over a process; a test is one here",
    ("test_fork.py", "_origin"): "locks that another thread holds at the moment of a fork",
    ("test_fork.py", "_telemetry"): "the same, and delays that are the parent's",
    ("origin/table.py", "_call"): "the driver says when the sweeper ticks",
    ("telemetry/test_spans.py", "_origin"): "spans tell their faults to the counter of faults",
    ("benchmarks/efficacy/test_worlds_sensitivity.py", "_policy"): "constants that are changed",
    ("chaos/test_outage.py", "_call"): "no call may be alive after an outage",
    ("chaos/world.py", "_errors"): "errors are expected under the names that metrics give them",
    ("collector_config/test_dashboard.py", "_telemetry"): "the dashboard is held against the table",
    ("policy/driving.py", "_call"): "policies are driven by the driver that ships",
    ("policy/driving.py", "_origin"): "and the driver needs an origin",
    ("tools/test_fuzz_targets.py", "_origin"): "the fuzz targets must find a broken window",
    ("tools/test_fuzz_targets.py", "_policy"): "and a broken policy",
    ("wire/test_failures.py", "_http"): "how long a body is waited for, on real sockets",
}


def looked_into(tests: Path) -> set[tuple[str, str]]:
    """Which rooms that are not their own the tests import from, also in scripts that they start."""
    found = set()
    for path in tests.rglob("*.py"):
        file = path.relative_to(tests)
        own = f"_{file.parts[0]}" if len(file.parts) > 1 else file.stem.replace("test_", "_", 1)
        text = path.read_text(encoding="utf-8")
        rooms = re.findall(rf"\b(?:from|import) {NAME}\.(_\w+)", text)
        for names in re.findall(rf"\bfrom {NAME} import (.+)", text):
            rooms += re.findall(r"\b(_[a-z]\w*)", names)
        found |= {(file.as_posix(), room) for room in rooms if room != own}
    return found


def test_tests_know_their_own_room_only() -> None:
    """A private name is imported by the tests of its room, and else for a reason that is given."""
    assert looked_into(TESTS) == set(LOOKS_INTO)


def test_a_look_into_another_room_is_found(tmp_path: Path) -> None:
    """In a module, in a script, and of a room as a whole."""
    for name, text in {
        "policy/test_a.py": f"from {NAME}._policy.cost import RetryFlow",
        "policy/test_b.py": f"from {NAME}._origin.window import Window",
        "test_call.py": f"import {NAME}._call\nimport {NAME}._errors",
        "test_script.py": f'SCRIPT = """\nfrom {NAME} import policy, _http\n"""',
        "test_public.py": f"from {NAME}.policy import SEND\nfrom {NAME} import __version__",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert looked_into(tmp_path) == {
        ("policy/test_b.py", "_origin"),
        ("test_call.py", "_errors"),
        ("test_script.py", "_http"),
    }


def test_each_room_has_its_tests(house: House) -> None:
    """`tests/` mirrors the package: a folder for each folder, which says what room is tested."""
    rooms = {name for name in house.files if house.files[name].name == "__init__.py"} - {""}
    assert rooms == {"_http", "_origin", "_policy", "_telemetry"}
    for room in rooms:
        assert list((TESTS / room.removeprefix("_")).glob("test_*.py")), room


def test_exported_names() -> None:
    """The public surface: adding to it is a decision, taking from it a new major version."""
    assert sorted(aiohttp_adaptive_retry.__all__) == [
        "AdaptiveConfig",
        "AdaptiveRetryMiddleware",
        "AdaptiveStrategy",
        "AttemptRecord",
        "CallReport",
        "MemorySnapshot",
        "OriginSnapshot",
        "OriginUnavailable",
        "RequestCounts",
        "RetryEvent",
        "Snapshot",
        "Verdict",
        "__version__",
        "attach",
        "call_options",
        "detach",
        "instrument",
        "report",
        "uninstrument",
    ]
    for name in aiohttp_adaptive_retry.__all__:
        assert getattr(aiohttp_adaptive_retry, name) is not None


def test_version_and_typing_marker() -> None:
    """The version is the distribution's; type checkers are told that there are types."""
    installed = importlib.metadata.version("aiohttp-adaptive-retry")
    assert aiohttp_adaptive_retry.__version__ == installed
    assert (PACKAGE / "py.typed").exists()


def test_only_the_api_is_required() -> None:
    """The SDK and the exporter are an extra, never a dependency."""
    needed = importlib.metadata.requires("aiohttp-adaptive-retry") or []
    plain = {re.split(r"[^\w-]", line)[0] for line in needed if "extra" not in line}
    assert plain == {"aiohttp", "opentelemetry-api", "psutil"}
