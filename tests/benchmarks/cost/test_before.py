"""The comparison of revisions measures the revision that it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import before


def test_a_revision_is_measured_from_its_own_source() -> None:
    """What is measured is found where it was put, and costs something."""
    assert before._over_bare(before.ROOT / "src") > 0.0


def test_another_source_than_the_one_meant_is_no_figure(tmp_path: Path) -> None:
    """A package that Python finds elsewhere, as it is installed, is refused."""
    with pytest.raises(RuntimeError, match="instead of"):
        before._over_bare(tmp_path)
