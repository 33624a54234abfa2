"""What is counted, and under which names: plain integers that only ever grow.

An exporter keeps 1.6 to 2 kB for every attribute set that it ever saw. So whatever can become an
attribute set is bounded here over the process's lifetime: the names of errors (`ErrorCatalogue`),
the origins that have a label of their own, and the pairs of both (`LabelRegistry`). Counts belong
to labels and not to origins; when an origin is evicted, nothing is lost or taken back.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from .._policy.protocol import REASONS, AttemptOutcome
from ..events import SWITCH_REASONS, CallInfo, CallResult, Label

_log: Final = logging.getLogger("aiohttp_adaptive_retry")

OTHER_NAME: Final = "_OTHER"
OTHER_LABEL: Final[Label] = (OTHER_NAME, None)
#: Most (origin, error name) pairs over the lifetime of the process.
MAX_FAILURE_SETS: Final = 1000
#: The code that all names share which found no place in a catalogue.
_OTHER_CODE: Final = 255
_REASONS: Final = frozenset((*REASONS, *SWITCH_REASONS))


class ErrorCatalogue:
    """Gives each error name a code from 1 to 254, first come, first served, then 255.

    A name keeps its code for ever. At most 254 names of `max_length` characters are held. One loop
    may call `entry`, O(1); any thread may call `name`.
    """

    __slots__ = ("_entries", "_names", "max_length")

    def __init__(self, max_length: int = 64) -> None:
        #: Characters kept of a name.
        self.max_length = max_length
        self._entries: dict[str, tuple[int, str]] = {}
        # The index is code - 1. Appended to and never changed otherwise: readers need no lock.
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def entry(self, name: str) -> tuple[int, str]:
        """The code of a name, and the name as it is recorded: cut to `max_length`.

        The code is 255 and the name `_OTHER` once 254 other names are known.

        >>> catalogue = ErrorCatalogue()
        >>> [catalogue.entry(name)[0] for name in ("503", "ClientOSError", "503")]
        [1, 2, 1]
        """
        # A long-lived name has to be a string of our own, not a subclass that drags along more.
        name = str(name[: self.max_length])
        known = self._entries.get(name)
        if known is not None:
            return known
        if len(self._names) >= _OTHER_CODE - 1 or name == OTHER_NAME:
            return _OTHER_CODE, OTHER_NAME
        self._names.append(name)
        known = self._entries[name] = (len(self._names), name)
        return known

    def name(self, code: int) -> str:
        """The name behind a code from `entry`; never raises for a code that was given out."""
        return OTHER_NAME if code == _OTHER_CODE else self._names[code - 1]


def labelled(label: Label) -> dict[str, str | int]:
    """A label as attributes.

    >>> labelled(("example.com", 443))
    {'server.address': 'example.com', 'server.port': 443}
    """
    address, port = label
    if port is None:
        return {"server.address": address}
    return {"server.address": address, "server.port": port}


class LabelRegistry:
    """What has a label of its own in this process. Slow path only, so a lock costs nothing."""

    def __init__(self) -> None:
        self.renew_lock()
        self._labels: set[Label] = {OTHER_LABEL}
        self._brought = 0
        self._failures: set[tuple[Label, str]] = set()
        self._others = 0
        self._most_labels = 0

    def renew_lock(self) -> None:
        """For a forked child: the thread that held the lock may not be there."""
        self._lock = threading.Lock()

    def label(self, label: Label, most: int, brought: bool = False) -> Label:
        """The label itself if it has, or may still get, a place; else `OTHER_LABEL`.

        Origins that only redirects led to, `brought`, get a quarter of the places at most.
        """
        with self._lock:
            self._most_labels = max(self._most_labels, most)
            if label not in self._labels:
                # OTHER_LABEL is in the set and takes no place.
                if len(self._labels) > most or (brought and self._brought >= most // 4):
                    return OTHER_LABEL
                self._brought += brought
                self._labels.add(label)
            return label

    def failure(self, label: Label, name: str) -> tuple[Label, str]:
        """Under which label and name to count a failure; at most 1,000 pairs ever."""
        with self._lock:
            named, other = (label, name), (label, OTHER_NAME)
            if named in self._failures:
                return named
            # Each label needs room for its `_OTHER`, or the first few origins would take all
            # places; names get half of the places in any case.
            reserved = min(self._most_labels + 1, MAX_FAILURE_SETS // 2) - self._others
            if name != OTHER_NAME and len(self._failures) + reserved < MAX_FAILURE_SETS:
                self._failures.add(named)
                return named
            if other in self._failures:
                return other
            # The last place is the shared label's, in case there are more labels than places.
            if label == OTHER_LABEL or len(self._failures) < MAX_FAILURE_SETS - 1:
                self._failures.add(other)
                self._others += 1
                return other
            return OTHER_LABEL, OTHER_NAME


_registry = LabelRegistry()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _registry.renew_lock())


@dataclass(slots=True, eq=False)
class LabelCounters:
    """The counts of one label, and the first listener of each origin that has the label.

    One loop counts, any thread reads; no count ever falls.
    """

    label: Label
    #: The label as metrics show it.
    attributes: dict[str, str | int]
    _counters: Counters
    first_success: int = 0
    retry_success: int = 0
    failed_without_retry: int = 0
    failed_after_retry: int = 0
    refused: int = 0
    ignored: int = 0
    retries: int = 0
    #: Calls that ended, ignored, while their first attempt was still waiting.
    unsent: int = 0
    #: By the name of the error, and by reason: both bounded.
    failures: dict[str, int] = field(default_factory=dict)
    suppressed: dict[str, int] = field(default_factory=dict)

    def attempt_failed(self, call: CallInfo, outcome: AttemptOutcome) -> None:
        """Count one failed attempt, by name as long as that is bounded."""
        name, failures = outcome.error_type, self.failures
        if name not in failures:
            label, name = _registry.failure(self.label, name)
            if label != self.label:
                failures = self._counters.of_label(label).failures
        failures[name] = failures.get(name, 0) + 1

    def retry_sent(self, call: CallInfo, waited: float) -> None:
        """Count a retry."""
        self.retries += 1
        self._counters.on_retry(call, self.attributes, waited)

    def call_ended(self, call: CallInfo, result: CallResult, reason: str | None) -> None:
        """Count a call, and why it got no further attempt."""
        setattr(self, result, getattr(self, result) + 1)
        if reason is not None:
            # The words of a user's own policy are not bounded in number.
            reason = reason if reason in _REASONS else OTHER_NAME
            self.suppressed[reason] = self.suppressed.get(reason, 0) + 1
        elif result == "ignored" and not call.attempts:
            self.unsent += 1

    @property
    def originals(self) -> int:
        """First attempts sent: each call that was not held back or refused has sent one."""
        failed = self.failed_without_retry + self.failed_after_retry
        return self.first_success + self.retry_success + failed + self.ignored - self.unsent


@dataclass(slots=True, eq=False)
class Faults:
    """Counts what goes wrong in our own bookkeeping; the first fault is logged."""

    count: int = 0
    #: The users' functions whose first fault was logged.
    _told: set[str] = field(default_factory=set)

    def __call__(self, error: Exception) -> None:
        """Take note of an error. Never raises."""
        self.count += 1
        if self.count == 1:
            # Only the type: a text could name what is nobody's business.
            self._write(
                "aiohttp-adaptive-retry: internal fault (%s); requests are not affected, "
                "but counts may be off. Further faults are counted and not logged.",
                type(error).__qualname__,
            )

    def of_callback(self, name: str, error: Exception, what: str = "") -> None:
        """Take note of what a user's own function did wrong; once for each is logged. Never raises.

        `what` says it in words; "" for an exception, of which only type and place are told.
        """
        self.count += 1
        if name in self._told:
            return
        self._told.add(name)
        if not what:
            traceback, place = error.__traceback__, "an unknown place"
            while traceback is not None:
                place = f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}"
                traceback = traceback.tb_next
            what = f"raised {type(error).__qualname__} at {place}"
        self._write(
            "aiohttp-adaptive-retry: %s %s; the call goes on as without it. Further faults of it "
            "are counted and not logged.",
            name,
            what,
        )

    @staticmethod
    def _write(text: str, *values: object) -> None:
        # The log's handlers are not ours.
        with suppress(Exception):
            _log.error(text, *values)


def _untold(call: CallInfo, attributes: dict[str, str | int], waited: float) -> None:
    """Where there is no telemetry."""


class Counters:
    """All counts of one middleware. They outlive it, and so refer to no origin or window."""

    def __init__(self, max_labels: int, faults: Faults) -> None:
        #: Labels that this middleware may give out.
        self.max_labels = max_labels
        self.faults = faults
        #: Records at once what no counter can say: how long a retry waited.
        self.on_retry: Callable[[CallInfo, dict[str, str | int], float], None] = _untold
        self.reset()

    def reset(self) -> None:
        """Nothing counted yet."""
        #: Replaced as a whole when a label comes to it, so that other threads can iterate over it.
        self.labels: tuple[LabelCounters, ...] = ()
        self._by_label: dict[Label, LabelCounters] = {}
        #: Requests that left us out by their own `middlewares=`, as far as they were seen.
        self.bypassed = 0
        self.cleanups = {"periodic": 0, "memory": 0, "origin_limit": 0}
        self.evicted = {"capacity": 0, "expired": 0, "memory": 0, "origin": 0}
        self.origins_evicted = {"idle": 0, "memory": 0, "origin_limit": 0}

    def of_label(self, label: Label, brought: bool = False) -> LabelCounters:
        """The counts of that label, or of `OTHER_LABEL` where no more labels are to be had."""
        label = _registry.label(label, self.max_labels, brought)
        counters = self._by_label.get(label)
        if counters is None:
            counters = self._by_label[label] = LabelCounters(label, labelled(label), self)
            self.labels = (*self.labels, counters)
        return counters
