"""The attempts of a window as plain values, for people and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, overload

__all__ = ("AttemptRecord", "RecentAttempts")


class AttemptRecord(NamedTuple):
    """One attempt in the window, as plain values.

    `timestamp` is timezone-aware (UTC). `error_type` is None for a success. `error_message` is
    None unless `record_error_messages` is set and the attempt is among the newest hundred.
    """

    timestamp: datetime
    error_type: str | None
    error_message: str | None


class _Recording(Protocol):
    def window_now(self) -> range: ...

    def record(self, number: int) -> AttemptRecord: ...


class RecentAttempts(Sequence[AttemptRecord]):
    """A live, read-only view of a strategy's window; records are made when they are looked at."""

    __slots__ = ("_strategy",)

    def __init__(self, strategy: _Recording) -> None:
        self._strategy = strategy

    def __len__(self) -> int:
        return len(self._strategy.window_now())

    @overload
    def __getitem__(self, index: int) -> AttemptRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AttemptRecord]: ...
    def __getitem__(self, index: int | slice) -> AttemptRecord | Sequence[AttemptRecord]:
        # range does the arithmetic of negative indexes, slices and bounds.
        numbers = self._strategy.window_now()[index]
        if isinstance(numbers, range):
            return tuple(map(self._strategy.record, numbers))
        return self._strategy.record(numbers)

    def __iter__(self) -> Iterator[AttemptRecord]:
        return iter(self[:])

    def __repr__(self) -> str:
        return f"<recent attempts: {len(self)}>"
