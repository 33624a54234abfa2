"""The metrics that there are, for the tests of the metrics and of README."""

from __future__ import annotations

# name -> kind, unit, monotonic, attribute names beside the origin's (None: has no origin)
TABLE: dict[str, tuple[str, str, bool | None, set[str] | None]] = {
    "requests": ("Sum", "{request}", True, {"adaptive_retry.outcome"}),
    "attempts": ("Sum", "{attempt}", True, {"adaptive_retry.attempt.type"}),
    "failures": ("Sum", "{attempt}", True, {"error.type"}),
    "retries.suppressed": ("Sum", "{retry}", True, {"adaptive_retry.reason"}),
    "retry.delay": ("Histogram", "s", None, set()),
    "budget.available": ("Sum", "{token}", False, set()),
    "budget.limit": ("Sum", "{token}", False, set()),
    "origin.state": ("Sum", "{origin}", False, {"adaptive_retry.state"}),
    "calls.held": ("Sum", "{request}", False, set()),
    "window.length": ("Sum", "{attempt}", False, set()),
    "window.limit": ("Sum", "{attempt}", False, set()),
    "window.memory.usage": ("Sum", "By", False, set()),
    "window.memory.limit": ("Sum", "By", False, None),
    "window.evicted": ("Sum", "{attempt}", True, None),
    "cleanups": ("Sum", "{cleanup}", True, None),
    "memory.usage": ("Gauge", "By", None, None),
    "memory.threshold": ("Gauge", "By", None, None),
    "memory.pressure": ("Sum", "{process}", False, None),
    "origins.active": ("Sum", "{origin}", False, None),
    "origins.limit": ("Sum", "{origin}", False, None),
    "origins.evicted": ("Sum", "{origin}", True, None),
}
