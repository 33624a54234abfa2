"""The instrumentation scope that metrics and spans are reported under."""

from __future__ import annotations

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

SCOPE: Final = "aiohttp_adaptive_retry"
#: The semantic conventions that `server.address`, `server.port` and `error.type` are taken from.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
#: The installed version. Read at import: a middleware made on a running loop must not read files.
VERSION = "0"
with suppress(PackageNotFoundError):
    VERSION = version("aiohttp-adaptive-retry")
