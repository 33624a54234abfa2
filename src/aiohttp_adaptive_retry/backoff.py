"""How long to wait: full jitter over growing spans, and what a server asks for in Retry-After."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ("full_jitter", "jittered_retry_after", "parse_retry_after")

_GROWTH: Final = 3.0
_DIGITS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
# No date that servers send is longer; parsing what is longer would be work for an attacker.
_LONGEST_DATE: Final = 64


def full_jitter(retry: int, base: float, cap: float, random: Callable[[], float]) -> float:
    """Seconds to wait before the `retry`-th retry (1 is the first): `random() * span`.

    `span = min(cap, base * 3 ** (retry - 1))`. The whole span is jittered, which spreads clients
    that failed together furthest (Marc Brooker, "Exponential Backoff and Jitter", AWS
    Architecture Blog, 2015). Tripling makes one configuration span a blip and a restart: with
    base 0.2 and cap 5 the four spans are 0.2, 0.6, 1.8 and 5 seconds.

    >>> [round(full_jitter(retry, 0.2, 5.0, lambda: 1.0), 2) for retry in (1, 2, 3, 4, 5)]
    [0.2, 0.6, 1.8, 5.0, 5.0]
    """
    # Beyond 64 the power would only overflow; the cap has long been reached.
    span = min(cap, base * _GROWTH ** min(retry - 1, 64))
    return span * _fraction(random)


def jittered_retry_after(
    seconds: float, retry: int, random: Callable[[], float], longest: float = math.inf
) -> float:
    """What the server asked for, and up to as much again: jitter only ever adds.

    The share that is added grows with the retries: up to a quarter at the first, half at the
    second, all from the third on. All clients of a limiter hear the same number, and those who
    keep meeting at the end of it have to spread further each time. `longest` cuts the jitter, never
    what was asked for.

    >>> jittered_retry_after(2.0, 1, lambda: 1.0), jittered_retry_after(2.0, 3, lambda: 1.0)
    (2.5, 4.0)
    """
    share = min(1.0, 0.25 * 2.0 ** min(retry - 1, 8))
    return max(seconds, min(longest, seconds * (1.0 + share * _fraction(random))))


def parse_retry_after(
    value: str | None, date: str | None = None, wall: Callable[[], float] = time.time
) -> float | None:
    """Seconds that a Retry-After header asks for; None if there is none, or none to be read.

    Args:
        value: the header's value, whole seconds or an HTTP date (RFC 9110 section 10.2.3).
        date: the response's Date header, if it has one. A date in Retry-After is counted from it,
            so that a client whose clock is off waits neither hours nor not at all.
        wall: seconds since the epoch, used without a readable Date header.

    Zero and dates gone by are None too: they ask for no wait of their own. Never raises.

    >>> parse_retry_after("120"), parse_retry_after("0"), parse_retry_after("soon")
    (120.0, None, None)
    """
    if value is None:
        return None
    value = value.strip()
    if _DIGITS.fullmatch(value):
        return float(value) or None
    moment = _http_date(value)
    if moment is None:
        return None
    sent = _http_date(date.strip()) if date is not None else None
    seconds = moment - (wall() if sent is None else sent)
    return seconds if seconds > 0.0 else None


def _http_date(value: str) -> float | None:
    # The standard library's parser takes also what no HTTP server sends ("1 Jan", "12:30"); a
    # date without a year, a day and a time fails here or gives a moment gone by.
    if len(value) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        # Dates in HTTP are in GMT also where they don't say so; "naive" would mean our time zone.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None


def _fraction(random: Callable[[], float]) -> float:
    """A number from 0 to 1 whatever the injected source gives."""
    value = random()
    return value if 0.0 <= value <= 1.0 else 1.0
