"""docs/FAULTS.md is what the table of faults says."""

from __future__ import annotations

from pathlib import Path

from .__main__ import page

PAGE = Path(__file__).parents[2] / "docs" / "FAULTS.md"


def test_the_page_is_printed_by_the_table() -> None:
    """A fault that is added, or that comes to mean something else, is on the page."""
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tests.chaos > docs/FAULTS.md"
