"""Runs aiohttp's own client tests with our middleware in every session: `make aiohttp-tests`.

The tests are those of the released source distribution of the version that is installed. They run
once without the middleware, once with its defaults and once with `max_attempts=1`; each test has to
end as it does without, or its difference is explained in aiohttp_differences.toml. A test that ends
otherwise is run again, alone and both ways, before it counts: some depend on the moment.

What it needs is kept outside the repository (see tools/collector.py for where).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from .collector import ROOT, cache

PLUGIN = "adaptive_retry_plugin"
DIFFERENCES = ROOT / "tools" / "aiohttp_differences.toml"
# The tests about sessions and requests; the rest of the client's tests make no session.
FILES = (
    "test_client_functional.py",
    "test_client_middleware.py",
    "test_client_middleware_digest_auth.py",
    "test_client_session.py",
    "test_client_ws.py",
    "test_client_ws_functional.py",
    "test_proxy_functional.py",
)
# What the tests import.
_NEEDS = (
    "blockbuster",
    "cryptography",
    "freezegun",
    "isal",
    "proxy.py",
    "pytest",
    "pytest-codspeed",
    "pytest-cov",
    "pytest-mock",
    "pytest-timeout",
    "pytest-xdist",
    "python-on-whales",
    "re-assert",
    "trustme",
    "zlib_ng",
)
#: Fewer calls through the middleware than this, and it was not attached.
_LEAST_CALLS = 400


def prepared() -> tuple[Path, Path]:
    """The folder with aiohttp's tests, and the Python that runs them; made at the first time."""
    aiohttp = version("aiohttp")
    home = cache() / f"aiohttp-{aiohttp}-py{sys.version_info[0]}{sys.version_info[1]}"
    python = home / "venv" / "bin" / "python"
    tests = home / "tests"
    if not tests.is_dir():
        with tempfile.TemporaryDirectory(prefix="aiohttp-sdist-") as folder:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            _run([*pip, "--no-binary=aiohttp", f"--dest={folder}", f"aiohttp=={aiohttp}"])
            (archive,) = Path(folder).glob("aiohttp-*.tar.gz")
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            home.mkdir(parents=True, exist_ok=True)
            shutil.copytree(Path(folder) / f"aiohttp-{aiohttp}" / "tests", tests)
    ready = home / "venv" / ".ready"
    if not ready.exists():
        _run([sys.executable, "-m", "venv", str(home / "venv")])
        install = [str(python), "-m", "pip", "install", "--quiet", "--editable", str(ROOT)]
        _run([*install, *_NEEDS], PIP_CONSTRAINT=str(ROOT / "constraints.txt"))
        ready.touch()
    # The installed package is that of the clone which came first; this one's comes before it.
    shutil.copy(ROOT / "tools" / "aiohttp_plugin.py", home / f"{PLUGIN}.py")
    return home, python


def outcomes(
    home: Path, python: Path, attempts: int | None, tests: list[str], processes: int
) -> tuple[dict[str, str], int]:
    """How each test ended, with so many attempts (None: without us), and the calls we saw."""
    with tempfile.TemporaryDirectory(prefix="aiohttp-run-") as folder:
        report = Path(folder) / "report.xml"
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
        command += ["-o", "junit_family=xunit1", f"--junitxml={report}", f"-n{processes}"]
        if attempts is not None:
            command += ["-p", PLUGIN]
        subprocess.run(
            [*command, *tests],
            cwd=home,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(home), str(ROOT / "src"))),
                "ADAPTIVE_RETRY_ATTEMPTS": str(attempts),
                "ADAPTIVE_RETRY_COUNTS": folder,
                "CI": "",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=900,
        )
        found = {}
        for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  (pytest wrote it)
            name = f"{case.get('file')}::{case.get('name')}"
            kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
            found[name] = kinds.pop() if kinds else "passed"
        calls = sum(int(path.read_text()) for path in Path(folder).glob("*.count"))
    return found, calls


def explained() -> dict[tuple[int, str], str]:
    """Why a test ends otherwise, by attempts and name."""
    rows = tomllib.loads(DIFFERENCES.read_text(encoding="utf-8"))["difference"]
    return {(row["attempts"], row["test"]): row["why"] for row in rows}


def main() -> int:
    """Run all three, compare, say what differs; 1 if anything is not as it should be."""
    home, python = prepared()
    files = [f"tests/{name}" for name in FILES]
    usual, _ = outcomes(home, python, None, files, 3)
    passed = sum(end == "passed" for end in usual.values())
    print(f"aiohttp {version('aiohttp')}: {passed} of {len(usual)} tests pass without us")
    if passed < 500:
        print("far fewer than there are: the suite itself does not run here")
        return 1
    wrong = 0
    reasons = explained()
    for attempts in (5, 1):
        found, calls = outcomes(home, python, attempts, files, 3)
        other = {name for name, end in usual.items() if found.get(name) != end}
        if other:
            # Again, alone and both ways.
            again, _ = outcomes(home, python, attempts, sorted(other), 0)
            before, _ = outcomes(home, python, None, sorted(other), 0)
            other = {name for name in other if again.get(name) != before.get(name)}
        named = {name.split("[")[0] for name in other}
        known = {test for number, test in reasons if number == attempts}
        print(f"max_attempts={attempts}: {calls} calls went through, {len(named)} tests differ")
        for name in sorted(named & known):
            print(f"  explained: {name}: {reasons[attempts, name]}")
        for name in sorted(named - known):
            print(f"  NOT EXPLAINED: {name}")
        for name in sorted(known - named):
            print(f"  EXPLAINED AND NO DIFFERENCE: {name}")
        wrong += len(named ^ known) + (calls < _LEAST_CALLS)
    return int(bool(wrong))


def _run(command: list[str], **variables: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, **variables}, timeout=900)


if __name__ == "__main__":
    sys.exit(main())
