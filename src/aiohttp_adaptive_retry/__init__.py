"""Adaptive retries for aiohttp clients: budgeted, bounded in memory, visible in OpenTelemetry.

>>> from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
>>> retry = AdaptiveRetryMiddleware()  # aiohttp.ClientSession(middlewares=[retry])
"""

from .config import AdaptiveConfig
from .errors import OriginUnavailable
from .middleware import AdaptiveRetryMiddleware
from .recent import AttemptRecord
from .snapshot import MemorySnapshot, OriginSnapshot, RequestCounts, Snapshot
from .strategy import AdaptiveStrategy
from .telemetry import package_version

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
    "__version__",
)

__version__ = package_version()
