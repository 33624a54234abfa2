"""Checks of what users set: each names the field and the value, and gives the value to keep."""

from __future__ import annotations

import difflib
import math
import string
import time
from collections.abc import Collection, Iterable
from datetime import timedelta
from typing import Any, Final, TypeVar

_F = TypeVar("_F")

# Upper ends catch a unit that was mixed up.
MOST_ITEMS: Final = 1_000_000_000
MOST_SECONDS: Final = 366 * 86_400.0

_TOKEN_CHARACTERS: Final = frozenset("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters)
_SECONDS: Final = "a number of seconds or a timedelta"
# A shorter word is part of too many names.
_TELLING: Final = 6

#: What other libraries call our fields.
_ELSEWHERE: Final = {
    "allowed_methods": "retry_methods",
    "attempts": "max_attempts",
    "backoff_factor": "backoff_base",
    "backoff_max": "backoff_cap",
    "deadline": "retry_for",
    "enabled": "mode",
    "max_backoff": "backoff_cap",
    "max_delay": "backoff_cap",
    "max_retries": "max_attempts",
    "max_time": "retry_for",
    "max_timeout": "backoff_cap",
    "max_tries": "max_attempts",
    "max_wait": "backoff_cap",
    "methods": "retry_methods",
    "respect_retry_after_header": "retry_after_cap",
    "retries": "max_attempts",
    "start_timeout": "backoff_base",
    "status_forcelist": "retry_statuses",
    "statuses": "retry_statuses",
    "timeout": "attempt_timeout",
    "total": "max_attempts",
    "tries": "max_attempts",
}


class ContradictionError(ValueError):
    """Two fields exclude each other, as `small` must not be greater than `large`.

    The text is about the field that was `given`, if that is only one of the two.
    """

    def __init__(
        self,
        small: tuple[str, float],
        large: tuple[str, float],
        given: Collection[str],
    ) -> None:
        self._small, self._large = small, large
        name, value = large
        other, bound = small
        if other in given and name not in given:
            super().__init__(f"{other} must be <= {name} ({shown(value)}), got {shown(bound)}")
        else:
            super().__init__(f"{name} must be >= {other} ({shown(bound)}), got {shown(value)}")

    def naming(self, given: Collection[str]) -> ContradictionError:
        """The same, where other fields were given."""
        return ContradictionError(self._small, self._large, given)


def shown(value: object) -> str:
    """A value for an error text; a huge one is cut, and one that can't be shown is named."""
    try:
        text = repr(value)
    except Exception:
        text = f"<unprintable {type(value).__name__}>"
    return text if len(text) <= 100 else text[:100] + "..."


def wrong_type(name: str, wanted: str, value: object) -> TypeError:
    """The error for a value of a wrong type."""
    return TypeError(f"{name} must be {wanted}, got {shown(value)} ({type(value).__name__})")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None if none is near.

    >>> nearest("max_retries", ["max_attempts", "mode"])
    'max_attempts'
    """
    known = list(known)
    plain = name.strip().lower().replace("-", "_")
    meant = plain if plain in known else _ELSEWHERE.get(plain)
    if meant in known:
        return meant
    close = difflib.get_close_matches(plain, known, 1, 0.6)
    if not close and len(plain) >= _TELLING:
        close = [field for field in known if plain in field]
    return close[0] if close else None


def likely(meant: str | None) -> str:
    """The end of an error text about a name that is not known."""
    return "" if meant is None else f"; did you mean {meant!r}?"


def known_names(owner: str, given: Iterable[object], known: Collection[str]) -> None:
    """Refuse a name that `owner` doesn't have, with the one that was probably meant."""
    for name in given:
        if not isinstance(name, str):
            raise TypeError(f"{owner} has fields with text for names, got {shown(name)}")
        if name not in known:
            raise TypeError(f"{owner} has no field {shown(name)}{likely(nearest(name, known))}")


def whole(name: str, value: object, least: int, most: int = MOST_ITEMS) -> int:
    """An int within these bounds."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "an int", value)
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be <= {most}, got {shown(value)}")
    return value


def number(
    name: str,
    value: object,
    least: float | None = None,
    most: float = 1e12,
    wanted: str = "a number",
) -> float:
    """A finite number within these bounds; without `least`, above zero."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(name, wanted, value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if least is None and value <= 0.0:
        raise ValueError(f"{name} must be > 0, got {shown(value)}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be >= {least:g}, got {shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be <= {most:g}, got {shown(value)}")
    return value


def duration(name: str, value: object) -> float:
    """A duration in seconds, from seconds or a timedelta, of any length."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(name, _SECONDS, value)
    return value


def seconds(name: str, value: object, least: float | None = None) -> float:
    """A duration in seconds, from seconds or a timedelta; without `least`, above zero."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    return number(name, value, least, MOST_SECONDS, _SECONDS)


def span(name: str, value: object) -> timedelta:
    """A duration above zero as a timedelta, from seconds or a timedelta."""
    if not isinstance(value, timedelta):
        value = timedelta(seconds=number(name, value, None, MOST_SECONDS, _SECONDS))
    if value <= timedelta(0):
        raise ValueError(f"{name} must be > 0, got {value!r}")
    return value


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that only counts as one of them."""
    if not isinstance(value, bool):
        raise wrong_type(name, "True or False", value)
    return value


def one_of(name: str, value: object, choices: Collection[str]) -> str:
    """One of a few words."""
    words = ", ".join(repr(choice) for choice in choices)
    if not isinstance(value, str):
        raise wrong_type(name, f"one of {words}", value)
    if value not in choices:
        raise ValueError(f"{name} must be one of {words}, got {shown(value)}")
    return value


def methods(name: str, value: object) -> frozenset[str]:
    """Names of HTTP methods, in capitals."""
    found = _members(name, value, "a collection of method names")
    for method in found:
        if not isinstance(method, str):
            raise wrong_type(name, "a collection of method names", method)
        if not method or not _TOKEN_CHARACTERS.issuperset(method):
            raise ValueError(f"{name} must hold method names, got {shown(method)}")
    return frozenset(method.upper() for method in found)


def statuses(name: str, value: object) -> frozenset[int]:
    """Status codes of HTTP."""
    found = _members(name, value, "a collection of status codes")
    for status in found:
        if not isinstance(status, int) or isinstance(status, bool):
            raise wrong_type(name, "a collection of status codes", status)
        if not 100 <= status <= 599:
            raise ValueError(f"{name} must lie in 100 to 599, got {shown(status)}")
    return frozenset(int(status) for status in found)


def exceptions(name: str, value: object) -> frozenset[type[Exception]]:
    """Exception classes, without the one of a call's own deadline."""
    wanted = "a collection of exception classes"
    if isinstance(value, type):
        raise wrong_type(name, wanted, value)
    found = _members(name, value, wanted)
    for kind in found:
        # Neither a cancellation nor an interrupt of the process is an Exception.
        if not isinstance(kind, type) or not issubclass(kind, Exception):
            raise wrong_type(name, wanted, kind)
        if kind is TimeoutError:
            raise ValueError(
                f"{name} must not hold the call's own deadline, which is a bare TimeoutError, "
                f"got {kind!r}; raise a class of your own below it"
            )
    return frozenset(found)


def _members(name: str, value: Any, wanted: str) -> list[Any]:
    # A str is an iterable of its letters, and bytes one of ints: both are always a slip.
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise wrong_type(name, wanted, value)
    return list(value)


def checked_callable(name: str, value: _F) -> _F:
    """The value itself, if it can be called; else a TypeError that names the argument."""
    if not callable(value):
        raise TypeError(f"{name} must be callable, got {value!r} ({type(value).__name__})")
    return value


def checked_sleep(sleep: _F) -> _F:
    """The value itself, unless it blocks the loop; else a TypeError."""
    if sleep is time.sleep:
        raise TypeError("sleep must be awaitable, as asyncio.sleep is, got time.sleep")
    return checked_callable("sleep", sleep)


def checked_instance(name: str, value: _F, kind: type[object]) -> _F:
    """The value itself, if None or of that class; else a TypeError that names the argument."""
    if value is not None and not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(f"{name} must be {article} {kind.__name__} or None, got {value!r}")
    return value
