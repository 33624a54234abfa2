"""What every test gets: no blocking call on the loop, and metric labels of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from aiohttp_adaptive_retry import ledger


@pytest.fixture(autouse=True)
def blockbuster() -> Iterator[BlockBuster]:
    """A blocking call of ours on a running loop fails the test."""
    with blockbuster_ctx("aiohttp_adaptive_retry") as guard:
        yield guard


@pytest.fixture(autouse=True)
def fresh_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are bounded over the process's lifetime; a test is a lifetime here."""
    monkeypatch.setattr(ledger, "_claims", ledger._Claims())
