"""Ways to remember attempts: ours, and the usual ones.

Each `Holder` takes one attempt at a time. The usual ways keep a time, a type's name, and the
error's text cut to 200 characters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._origin.counters import ErrorCatalogue
from aiohttp_adaptive_retry._origin.window import Window

__all__ = ("HOLDERS", "Holder", "error_for")

#: Takes the number of an attempt and its error.
Holder = Callable[[int, Exception], object]

_DURATION = timedelta(minutes=30)


def error_for(number: int) -> Exception:
    """What aiohttp raises when a connection is refused; every attempt has a text of its own."""
    return ConnectionRefusedError(
        f"Cannot connect to host host-{number % 1000}.example.com:443 ssl:default "
        f"[Connect call failed ('192.0.2.{number % 256}', 443)]"
    )


def _record(error: Exception) -> dict[str, object]:
    return {
        "timestamp": datetime.now(),
        "error_type": type(error).__name__,
        "error_message": str(error)[:200],
    }


def ours(size: int) -> Holder:
    """The ring: nine bytes per attempt. Texts are kept only if asked for, and then a hundred."""
    window = Window(size, _DURATION.total_seconds())
    catalogue = ErrorCatalogue(AdaptiveConfig().max_error_type_length)

    # A microsecond apart, so that nothing grows too old here.
    return lambda number, error: window.append(
        number * 1e-6, catalogue.entry(type(error).__qualname__)[0]
    )


def list_of_dicts(size: int) -> Holder:
    """A list that only grows."""
    attempts: list[dict[str, object]] = []
    return lambda _, error: attempts.append(_record(error))


def deque_of_dicts(size: int) -> Holder:
    """A deque with a bound: the usual cure for a list that grows."""
    attempts: deque[dict[str, object]] = deque(maxlen=size)
    return lambda _, error: attempts.append(_record(error))


def deque_of_tuples(size: int) -> Holder:
    """The same deque, with a tuple in place of each dictionary."""
    attempts: deque[tuple[datetime, str, str]] = deque(maxlen=size)
    return lambda _, error: attempts.append(
        (datetime.now(), type(error).__name__, str(error)[:200])
    )


def rebuilt_list(size: int) -> Holder:
    """A list that is rebuilt without its old attempts, once in a hundred."""
    attempts: list[dict[str, object]] = []

    def hold(_: int, error: Exception) -> None:
        nonlocal attempts
        if len(attempts) % 100 == 0:
            cutoff = datetime.now() - _DURATION
            attempts = [one for one in attempts if one["timestamp"] > cutoff]  # type: ignore[operator]
        attempts.append({"timestamp": datetime.now(), "error_type": type(error).__name__})

    return hold


HOLDERS: dict[str, Callable[[int], Holder]] = {
    "ours": ours,
    "list of dicts": list_of_dicts,
    "deque of dicts": deque_of_dicts,
    "deque of tuples": deque_of_tuples,
    "list rebuilt by age": rebuilt_list,
}
