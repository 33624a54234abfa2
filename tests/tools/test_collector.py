"""Where the collector comes from: built before, given by path, or neither and then advice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools import collector


def ask(**variables: str) -> subprocess.CompletedProcess[str]:
    """`python -m tools.collector` with these variables and nothing else."""
    return subprocess.run(
        [sys.executable, "-m", "tools.collector"],
        cwd=collector.ROOT,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_go_it_says_what_to_do(tmp_path: Path) -> None:
    """No traceback, but what to install and the other way."""
    done = ask(PATH=str(tmp_path), OTELCOL_CACHE=str(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "install Go" in done.stderr
    assert "OTELCOL" in done.stderr
    assert "Traceback" not in done.stderr


def test_one_that_is_given_by_path_is_taken(tmp_path: Path) -> None:
    """Go is not asked for then."""
    done = ask(PATH=str(tmp_path), OTELCOL="/somewhere/otelcol")
    assert (done.returncode, done.stdout.strip()) == (0, "/somewhere/otelcol")


def test_what_was_built_is_found_until_the_manifest_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new manifest wants a new collector; the old one stays where it was."""
    monkeypatch.delenv("OTELCOL", raising=False)
    monkeypatch.setenv("OTELCOL_CACHE", str(tmp_path))
    assert collector.find() is None
    first = collector.built()
    first.parent.mkdir()
    first.touch()
    assert collector.find() == collector.build() == first
    manifest = tmp_path / "builder.yaml"
    manifest.write_text(collector.MANIFEST.read_text() + "# another\n")
    monkeypatch.setattr(collector, "MANIFEST", manifest)
    assert collector.find() is None
    assert collector.built() != first
    assert collector.built().is_relative_to(tmp_path)


def test_it_is_kept_outside_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing else is said, in the user's cache folder."""
    for name in ("OTELCOL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert not collector.cache().is_relative_to(collector.ROOT)
    assert collector.cache().is_relative_to(Path(os.path.expanduser("~")))


def test_the_builder_is_of_the_same_release() -> None:
    """Its version is that of the core's components."""
    assert collector.version().startswith("v0.")
