"""The caller's word on calls that other code makes: `call_options`, carried by a ContextVar."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Never, Protocol
from weakref import WeakKeyDictionary, WeakSet

from ._checks import flag, known_names, seconds, whole
from .config import AdaptiveConfig, Seconds

_KNOWN: Final = (
    "idempotent",
    "max_attempts",
    "attempt_timeout",
    "retry_for",
    "hold_cap",
    "enabled",
    "deadline",
)


class Reader(Protocol):
    """Who reads options: something with a clock."""

    _now: Callable[[], float]

    def options_in_use(self) -> None:
        """From now on there may be options."""


class Deadline:
    """So many seconds from the moment that it is made, by each reader's own clock."""

    __slots__ = ("_at", "_ends", "_seconds")

    def __init__(self, length: float) -> None:
        self._seconds, self._at = length, time.monotonic()
        self._ends = WeakKeyDictionary({reader: reader._now() + length for reader in _readers})

    def ends(self, reader: Reader) -> float:
        """The moment by that reader's clock."""
        end = self._ends.get(reader)
        if end is None:
            # The reader is younger than the deadline.
            end = reader._now() + self._seconds - (time.monotonic() - self._at)
        return end


@dataclass(frozen=True, slots=True)
class Options:
    """What is in force where a call begins. None: nothing is said."""

    idempotent: bool | None = None
    enabled: bool | None = None
    #: Fields of the configuration.
    settings: tuple[tuple[str, Any], ...] = ()
    deadline: Deadline | None = None

    def over(self, outer: Options) -> Options:
        """These options inside of others: field by field the inner ones win."""
        return Options(
            outer.idempotent if self.idempotent is None else self.idempotent,
            outer.enabled if self.enabled is None else self.enabled,
            tuple((dict(outer.settings) | dict(self.settings)).items()),
            outer.deadline if self.deadline is None else self.deadline,
        )

    def applied(self, config: AdaptiveConfig) -> AdaptiveConfig | None:
        """The configuration with these fields, None if it is the same."""
        return _replaced(config, self.settings) if self.settings else None


@lru_cache(64)
def _replaced(config: AdaptiveConfig, settings: tuple[tuple[str, Any], ...]) -> AdaptiveConfig:
    replaced = dataclasses.replace(config, **dict(settings))
    return config if replaced == config else replaced


_current: Final[ContextVar[Options | None]] = ContextVar("aiohttp_adaptive_retry", default=None)
#: The options of the running task or callback, None without any.
current_options: Final = _current.get

_readers: Final = WeakSet[Reader]()
_in_use = False


def read_options(reader: Reader) -> None:
    """Tell a reader once options are in use: before that nobody has to look for any."""
    _readers.add(reader)
    if _in_use:
        reader.options_in_use()


class call_options:  # noqa: N801  (used as a function)
    """Options for all calls that begin in its `with` block, whoever makes them.

    Args:
        idempotent: True vouches that the calls may be sent twice, whatever their method. False says
            that they may not, which wins over everything.
        max_attempts: attempts on the wire for one call and redirect hop, 1 or more.
        attempt_timeout: seconds or a timedelta that one attempt may take, above zero.
        retry_for: no retry begins later than so long after its call did, above zero.
        hold_cap: longest time that a call may be held, 0 or more; 0 holds nothing.
        enabled: False sends the calls as if the middleware were not there. They are not counted.
        deadline: all of the block's calls end so long after the block was entered, above zero. No
            wait is begun that would end later, and an attempt is cut as by `attempt_timeout`.

    Raises:
        TypeError, ValueError: an argument is wrong; the text names it and its value.

    None leaves a field to the options around these, and then to the configuration. The options go
    along with the context: through libraries that own the session, and into tasks that are created
    in the block. A call reads them once, as it comes to the middleware. One object may be entered
    any number of times.

    >>> with call_options(idempotent=True, max_attempts=3):
    ...     pass  # await search_index.query(...)
    """

    __slots__ = ("_length", "_options", "_tokens")

    def __init__(
        self,
        *,
        idempotent: bool | None = None,
        max_attempts: int | None = None,
        attempt_timeout: Seconds | None = None,
        retry_for: Seconds | None = None,
        hold_cap: Seconds | None = None,
        enabled: bool | None = None,
        deadline: Seconds | None = None,
        **unknown: Never,
    ) -> None:
        known_names("call_options", unknown, _KNOWN)
        for name, value in (("idempotent", idempotent), ("enabled", enabled)):
            if value is not None:
                flag(name, value)
        settings: dict[str, Any] = {}
        if max_attempts is not None:
            settings["max_attempts"] = whole("max_attempts", max_attempts, 1)
        if attempt_timeout is not None:
            settings["attempt_timeout"] = seconds("attempt_timeout", attempt_timeout)
        if retry_for is not None:
            settings["retry_for"] = seconds("retry_for", retry_for)
        if hold_cap is not None:
            settings["hold_cap"] = seconds("hold_cap", hold_cap, least=0.0)
        self._options = Options(idempotent, enabled, tuple(settings.items()))
        self._length = None if deadline is None else seconds("deadline", deadline)
        self._tokens: list[Token[Options | None]] = []

    def __enter__(self) -> None:
        global _in_use
        if not _in_use:
            _in_use = True
            for reader in tuple(_readers):
                reader.options_in_use()
        options, outer = self._options, _current.get()
        if self._length is not None:
            options = dataclasses.replace(options, deadline=Deadline(self._length))
        self._tokens.append(_current.set(options if outer is None else options.over(outer)))

    def __exit__(self, *_: object) -> None:
        # Tasks may take turns in blocks of one object; each resets what it has set in its context.
        for token in reversed(self._tokens):
            try:
                _current.reset(token)
            except ValueError:
                continue
            self._tokens.remove(token)
            return
        # Left in another context than entered, as a fixture may be: that one is over.
        self._tokens.pop()
