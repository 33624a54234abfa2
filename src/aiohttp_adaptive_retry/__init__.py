"""Adaptive retries for aiohttp clients: budgeted, bounded in memory, visible in OpenTelemetry.

>>> from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
>>> retry = AdaptiveRetryMiddleware()  # aiohttp.ClientSession(middlewares=[retry])
"""

from ._errors import OriginUnavailable
from ._http.attaching import attach, detach, instrument, uninstrument
from ._http.middleware import AdaptiveRetryMiddleware
from ._http.verdict import Verdict
from ._options import call_options
from ._origin.recent import AttemptRecord
from ._telemetry.scope import VERSION
from ._telemetry.snapshot import MemorySnapshot, OriginSnapshot, RequestCounts, Snapshot
from .config import AdaptiveConfig
from .events import CallReport, RetryEvent, report
from .standalone import AdaptiveStrategy

__all__ = (
    "AdaptiveConfig",
    "AdaptiveRetryMiddleware",
    "AdaptiveStrategy",
    "AttemptRecord",
    "CallReport",
    "MemorySnapshot",
    "OriginSnapshot",
    "OriginUnavailable",
    "RequestCounts",
    "RetryEvent",
    "Snapshot",
    "Verdict",
    "__version__",
    "attach",
    "call_options",
    "detach",
    "instrument",
    "report",
    "uninstrument",
)

__version__ = VERSION
