"""The sessions of tests/wire."""

from __future__ import annotations

from ..wire.conftest import open_session

__all__ = ("open_session",)
