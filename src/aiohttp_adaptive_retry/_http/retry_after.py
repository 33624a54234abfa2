"""What a server asks for in Retry-After (RFC 9110 section 10.2.3)."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

_DIGITS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
# No date that servers send is longer; parsing what is longer would be work for an attacker.
_LONGEST_DATE: Final = 64


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
    """A date in seconds since the epoch; one without year, day or time fails or is long gone."""
    if len(value) > _LONGEST_DATE:
        return None
    try:
        moment = parsedate_to_datetime(value)
        # Dates in HTTP are in GMT, also where they don't say so.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError, OSError):
        return None
