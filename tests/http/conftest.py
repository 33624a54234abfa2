"""The servers and sessions of these tests."""

from __future__ import annotations

from ..kit.fixtures import open_session, serve

__all__ = ("open_session", "serve")
