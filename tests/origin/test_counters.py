"""What is counted, and that no number of names, labels or reasons makes it grow for ever."""

from __future__ import annotations

import gc
import logging
import tracemalloc

import pytest

from aiohttp_adaptive_retry._origin.counters import (
    MAX_FAILURE_SETS,
    OTHER_LABEL,
    OTHER_NAME,
    Counters,
    ErrorCatalogue,
    Faults,
    LabelRegistry,
)
from aiohttp_adaptive_retry.events import CallInfo
from aiohttp_adaptive_retry.policy import REASONS, AttemptOutcome


def test_a_known_name_stays_through_a_flood() -> None:
    """254 names get codes of their own; those keep them whatever comes after."""
    catalogue = ErrorCatalogue()
    first = catalogue.entry("ServerDisconnectedError")
    entries = {catalogue.entry(f"Error{n}") for n in range(100_000)}
    assert entries == {(n + 2, f"Error{n}") for n in range(253)} | {(255, OTHER_NAME)}
    assert catalogue.entry("ServerDisconnectedError") == first == (1, "ServerDisconnectedError")
    for code, name in entries:
        assert catalogue.name(code) == name
    assert len(catalogue) == 254


def test_names_are_cut() -> None:
    """Two names that are the same up to the cut are one."""
    catalogue = ErrorCatalogue(8)
    code, name = catalogue.entry("x" * 1_000_000)
    assert name == catalogue.name(code) == "x" * 8
    assert catalogue.entry("x" * 9) == (code, name)


def test_the_flood_leaves_no_memory() -> None:
    """A hundred thousand exception classes leave 254 short names behind."""
    catalogue = ErrorCatalogue()
    gc.collect()
    tracemalloc.start()
    try:
        for n in range(100_000):
            catalogue.entry(type(f"Generated{n}" + "x" * 200, (Exception,), {}).__qualname__)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(catalogue) == 254
    assert held < 200_000


class Told:
    """A call as listeners see it."""

    attempts = 1
    started = 0.0
    deadline = None
    state = None
    label = ("a.example", 443)
    resends = 0
    origin_name = "https://a.example:443"
    method = "GET"
    error_types = ()


CALL: CallInfo = Told()


def test_a_word_of_a_users_policy_is_no_label() -> None:
    """Reasons are counted by name where they are ours, and together where they are not."""
    counters = Counters(10, Faults()).of_label(("a.example", 443))
    for reason in (*REASONS, *(f"because {n}" for n in range(1000))):
        counters.call_ended(CALL, "failed_without_retry", reason)
    expected: dict[str, int] = dict.fromkeys(REASONS, 1)
    assert counters.suppressed == expected | {OTHER_NAME: 1000}
    assert counters.failed_without_retry == len(REASONS) + 1000


def test_failures_without_a_place_are_counted_under_the_shared_label() -> None:
    """Each label keeps the places that it has; what finds none is counted, and not lost."""
    counters = Counters(10, Faults())
    labels = [counters.of_label((f"h{n}.example", 80)) for n in range(10)]
    for label in labels:
        for n in range(200):
            label.attempt_failed(CALL, AttemptOutcome(False, f"E{n}"))
    assert sum(sum(label.failures.values()) for label in counters.labels) == 2000
    assert sum(len(label.failures) for label in counters.labels) <= MAX_FAILURE_SETS
    assert labels[0].failures["E7"] == 1
    assert sum(label.failures.get(OTHER_NAME, 0) for label in counters.labels) > 0


def test_labels_stop_at_the_bound() -> None:
    """The first ones keep theirs, the rest share one; a name for all others takes no place."""
    registry = LabelRegistry()
    given = [registry.label((f"h{n}.example", None), 3) for n in range(10)]
    assert given == [(f"h{n}.example", None) for n in range(3)] + [OTHER_LABEL] * 7
    assert registry.label(OTHER_LABEL, 0) == OTHER_LABEL
    assert registry.label(("h2.example", None), 0) == ("h2.example", None)


def test_counts_of_one_label_are_one_object() -> None:
    """Origins that share a label share its counts, and a reset begins anew."""
    counters = Counters(1, Faults())
    first = counters.of_label(("a.example", 80))
    assert counters.of_label(("a.example", 80)) is first
    other = counters.of_label(("b.example", 80))
    assert counters.of_label(("c.example", 80)) is other
    assert other.label == OTHER_LABEL
    assert counters.labels == (first, other)
    counters.reset()
    assert counters.of_label(("a.example", 80)) is not first
    assert len(counters.labels) == 1


def test_faults_are_counted_and_the_first_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """One line for all of them, with the type and without the text."""
    faults = Faults()
    with caplog.at_level(logging.DEBUG):
        for _ in range(3):
            faults(KeyError("https://me:pw@example.com/"))
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert "KeyError" in line.getMessage()
    assert "example.com" not in line.getMessage()
    assert faults.count == 3
