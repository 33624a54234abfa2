"""Makes ``benchmarks`` importable, which is no installed package, from any working directory."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = str(Path(__file__).resolve().parents[3])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from tests.kit.fixtures import open_session, serve  # noqa: E402  (after the path is set)

__all__ = ("open_session", "serve")
