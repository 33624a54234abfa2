"""Adaptive retries for aiohttp clients: budgeted, bounded in memory, visible in OpenTelemetry.

>>> from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
>>> retry = AdaptiveRetryMiddleware()  # aiohttp.ClientSession(middlewares=[retry])
"""

from ._errors import OriginUnavailable
from ._http.middleware import AdaptiveRetryMiddleware
from ._http.verdict import Verdict
from ._origin.recent import AttemptRecord
from ._telemetry.scope import VERSION
from ._telemetry.snapshot import MemorySnapshot, OriginSnapshot, RequestCounts, Snapshot
from .config import AdaptiveConfig
from .standalone import AdaptiveStrategy

__all__ = (
    "AdaptiveConfig",
    "AdaptiveRetryMiddleware",
    "AdaptiveStrategy",
    "AttemptRecord",
    "MemorySnapshot",
    "OriginSnapshot",
    "OriginUnavailable",
    "RequestCounts",
    "Snapshot",
    "Verdict",
    "__version__",
)

__version__ = VERSION
