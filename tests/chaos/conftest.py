"""The sessions of these tests."""

from __future__ import annotations

from ..kit.fixtures import open_session

__all__ = ("open_session",)
