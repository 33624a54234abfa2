"""A pytest plugin: every ClientSession that a test makes has our middleware in front of its own.

tools/aiohttp_suite.py puts it beside aiohttp's tests. How many requests went through is written to
the folder that ADAPTIVE_RETRY_COUNTS names, a file for each process.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

_passed = 0


class Counted(AdaptiveRetryMiddleware):
    """Ours, and a count of what came by."""

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        global _passed
        _passed += 1
        return await super().__call__(request, handler)


def _attached(init: Any) -> Any:
    attempts = int(os.environ.get("ADAPTIVE_RETRY_ATTEMPTS", "5"))

    @functools.wraps(init)
    def attach(self: Any, *args: Any, **options: Any) -> None:
        retry = Counted(AdaptiveConfig(max_attempts=attempts))
        options["middlewares"] = (retry, *(options.get("middlewares") or ()))
        init(self, *args, **options)

    return attach


def pytest_configure(config: pytest.Config) -> None:
    """Attach it, before the first test module is imported."""
    session: Any = aiohttp.ClientSession
    session.__init__ = _attached(session.__init__)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say how much came by."""
    folder = os.environ.get("ADAPTIVE_RETRY_COUNTS")
    if folder:
        (Path(folder) / f"{os.getpid()}.count").write_text(str(_passed), encoding="utf-8")
