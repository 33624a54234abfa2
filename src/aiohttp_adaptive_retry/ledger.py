"""What is counted, and under which labels: plain integers that only ever grow.

An exporter keeps 1.6 to 2 kB for every attribute set that it ever saw, evicted or not. So what can
become an attribute set is bounded over the process's lifetime, here: which origins have labels of
their own (`claim_label`), and which error types are counted by name (`claim_failure`). Counts
belong to labels and not to origins; when an origin is evicted, nothing is lost or taken back.
"""

from __future__ import annotations

import os
import threading
from typing import Final, Literal, get_args

from .errors import OTHER, OTHER_NAME, ErrorCatalogue
from .faults import Faults

__all__ = ("MAX_FAILURE_SETS", "OTHER_LABEL", "OUTCOMES", "Label", "Ledger", "Outcome", "Tally")

#: What a call came to.
Outcome = Literal[
    "first_success",
    "retry_success",
    "failed_without_retry",
    "failed_after_retry",
    "refused",
    "ignored",
]
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)

#: server.address and server.port; port None where there is none to name.
Label = tuple[str, int | None]
OTHER_LABEL: Final[Label] = (OTHER_NAME, None)
#: Most (origin, error type) pairs over the lifetime of the process.
MAX_FAILURE_SETS: Final = 1000


class _Claims:
    """What has a label of its own in this process. Cold paths only, so a lock costs nothing."""

    def __init__(self) -> None:
        self.renew_lock()
        self._labels: set[Label] = {OTHER_LABEL}
        self._failures: set[tuple[Label, str]] = set()
        self._others = 0
        self._most_labels = 0

    def renew_lock(self) -> None:
        """For a forked child: the thread that held the lock may not be there."""
        self._lock = threading.Lock()

    def label(self, label: Label, most: int) -> Label:
        """The label itself if it has, or may still get, a place; else `OTHER_LABEL`."""
        with self._lock:
            self._most_labels = max(self._most_labels, most)
            if label not in self._labels:
                # OTHER_LABEL is in the set and takes no place.
                if len(self._labels) > most:
                    return OTHER_LABEL
                self._labels.add(label)
            return label

    def failure(self, label: Label, name: str) -> tuple[Label, bool]:
        """Under which label to count a failure, and whether by name; at most 1,000 pairs ever."""
        with self._lock:
            named, other = (label, name), (label, OTHER_NAME)
            if named in self._failures:
                return label, True
            # Each label that there may ever be needs room for its `_OTHER`, or the first few
            # origins would take all places; names get half of them in any case.
            reserved = min(self._most_labels + 1, MAX_FAILURE_SETS // 2) - self._others
            if name != OTHER_NAME and len(self._failures) + reserved < MAX_FAILURE_SETS:
                self._failures.add(named)
                return label, True
            if other in self._failures:
                return label, False
            # The last place is the shared label's, in case there are more labels than places.
            if label == OTHER_LABEL or len(self._failures) < MAX_FAILURE_SETS - 1:
                self._failures.add(other)
                self._others += 1
                return label, False
            return OTHER_LABEL, False


_claims = _Claims()


def _renew_lock() -> None:
    _claims.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Tally:
    """The counts of one label. One loop counts, any thread reads; no count ever falls."""

    __slots__ = (
        "failed_after_retry",
        "failed_without_retry",
        "failures",
        "first_success",
        "ignored",
        "label",
        "refused",
        "retries",
        "retry_success",
        "suppressed",
        "unsent",
    )

    def __init__(self, label: Label) -> None:
        self.label = label
        self.first_success = 0
        self.retry_success = 0
        self.failed_without_retry = 0
        self.failed_after_retry = 0
        self.refused = 0
        self.ignored = 0
        self.retries = 0
        # Calls that ended, ignored, while admission still held their first attempt.
        self.unsent = 0
        # By code in the middleware's catalogue, and by reason: both bounded.
        self.failures: dict[int, int] = {}
        self.suppressed: dict[str, int] = {}

    def count(self, outcome: Outcome) -> None:
        """Count a call that has ended."""
        setattr(self, outcome, getattr(self, outcome) + 1)

    @property
    def originals(self) -> int:
        """First attempts sent: each call that was not held back or refused has sent one."""
        return (
            self.first_success
            + self.retry_success
            + self.failed_without_retry
            + self.failed_after_retry
            + self.ignored
            - self.unsent
        )


class Ledger:
    """All counts of one middleware.

    It outlives the middleware in the telemetry's totals, and so refers to no origin, window or
    configuration.
    """

    __slots__ = (
        "_labels",
        "_max_labels",
        "catalogue",
        "cleanups",
        "evicted",
        "faults",
        "origins_evicted",
        "tallies",
    )

    def __init__(self, catalogue: ErrorCatalogue, max_labels: int, faults: Faults) -> None:
        self.catalogue = catalogue
        self._max_labels = max_labels
        self.faults = faults
        self.start_anew()

    def start_anew(self) -> None:
        """Nothing counted yet."""
        # Replaced as a whole when a label comes to it, so that other threads can iterate over it.
        self.tallies: tuple[Tally, ...] = ()
        self._labels: dict[Label, Tally] = {}
        self.cleanups = {"periodic": 0, "memory": 0, "origin_limit": 0}
        self.evicted = {"capacity": 0, "expired": 0, "memory": 0, "origin": 0}
        self.origins_evicted = {"idle": 0, "memory": 0, "origin_limit": 0}

    def tally(self, label: Label) -> Tally:
        """The counts of that label, or of `OTHER_LABEL` where no more labels are to be had."""
        label = _claims.label(label, self._max_labels)
        tally = self._labels.get(label)
        if tally is None:
            tally = self._labels[label] = Tally(label)
            self.tallies = (*self.tallies, tally)
        return tally

    def count_failure(self, tally: Tally, code: int) -> None:
        """Count one failed attempt, by name as long as that is bounded."""
        if code not in tally.failures:
            label, named = _claims.failure(tally.label, self.catalogue.name(code))
            if label != tally.label:
                tally = self.tally(label)
            if not named:
                code = OTHER
        tally.failures[code] = tally.failures.get(code, 0) + 1
