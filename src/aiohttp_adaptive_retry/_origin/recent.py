"""The attempts of a window as plain values, for people and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, overload

from .counters import ErrorCatalogue
from .origin import Origin
from .window import OK


class AttemptRecord(NamedTuple):
    """One attempt in the window, as plain values.

    `timestamp` is timezone-aware (UTC). `error_type` is None for a success. `error_message` is
    None unless `record_error_messages` is set and the attempt is among the newest hundred.
    """

    timestamp: datetime
    error_type: str | None
    error_message: str | None


@dataclass(slots=True, eq=False, repr=False)
class RecentAttempts(Sequence[AttemptRecord]):
    """A live, read-only view of an origin's window; records are made when they are looked at."""

    _origin: Origin
    _catalogue: ErrorCatalogue
    #: The clock's reading, and the seconds to add to that reading to get the time of day.
    _now: Callable[[], float]
    _epoch: float

    def __len__(self) -> int:
        return len(self._numbers())

    @overload
    def __getitem__(self, index: int) -> AttemptRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AttemptRecord]: ...
    def __getitem__(self, index: int | slice) -> AttemptRecord | Sequence[AttemptRecord]:
        # A range does the arithmetic of negative indexes, slices and bounds.
        found = self._numbers()[index]
        return self._record(found) if isinstance(found, int) else tuple(map(self._record, found))

    def __iter__(self) -> Iterator[AttemptRecord]:
        return iter(self[:])

    def __repr__(self) -> str:
        return f"<recent attempts: {len(self)}>"

    def _numbers(self) -> range:
        """Numbers of the attempts in the window that have not expired."""
        window = self._origin.window
        return range(window.start_at(self._now()), window.end)

    def _record(self, number: int) -> AttemptRecord:
        stamp, code = self._origin.window.at(number)
        try:
            moment = datetime.fromtimestamp(0, UTC) + timedelta(seconds=self._epoch + stamp)
        except (OverflowError, ValueError):
            moment = datetime.max.replace(tzinfo=UTC)
        name = None if code == OK else self._catalogue.name(code)
        texts = self._origin.texts or ()
        return AttemptRecord(moment, name, next((text for at, text in texts if at == number), None))
