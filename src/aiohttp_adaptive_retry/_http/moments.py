"""How a header's text names a time: as a number, a duration or a date. Each reader gives seconds.

A reader answers None for what it can't read, and never raises. What is too large to be counted is
`LONGEST`, which is longer than anybody waits.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_tz
from typing import Final

#: Three centuries in seconds: the most that a reader gives, and more than any setting allows.
LONGEST: Final = 1e10

_NUMBER: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_DECIMAL: Final = re.compile(_NUMBER, re.ASCII)
# As Go prints durations ("1m0s", "12ms"), and as people write them ("2 seconds").
_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,  # the micro sign
    "μs": 1e-6,  # the Greek letter
    "ms": 1e-3,
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60.0),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600.0),
    **dict.fromkeys(("d", "day", "days"), 86_400.0),
}
_PART: Final = re.compile(
    rf"\s*({_NUMBER})\s*({'|'.join(sorted(_UNITS, key=len, reverse=True))})(?![^\W\d_])"
)
# No date that servers send is longer. Parsing a longer text would be work for an attacker.
_LONGEST_DATE: Final = 64
# The last year that every zone's offset leaves within what Python can count.
_LAST_YEAR: Final = 9998


def number(text: str) -> float | None:
    """A decimal number of 0 or more, of any length; no sign and no exponent.

    >>> number("1.5"), number("9" * 400), number("-1"), number("1e3"), number("nan")
    (1.5, 10000000000.0, None, None, None)
    """
    return min(float(text), LONGEST) if _DECIMAL.fullmatch(text) else None


def duration(text: str) -> float | None:
    """Numbers with their units, added up; seconds.

    >>> duration("1m0s"), duration("12ms"), duration("2 seconds"), duration("2 apples")
    (60.0, 0.012, 2.0, None)
    """
    text, at, seconds = text.rstrip().lower(), 0, 0.0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None:
            return None
        seconds += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    return min(seconds, LONGEST) if text else None


def date(text: str) -> float | None:
    """Seconds since the epoch of an HTTP date, of the mail's kind, or of ISO 8601.

    A date without a zone is in GMT, as all dates in HTTP are. A year beyond Python's is `LONGEST`.

    >>> date("Sun, 06 Nov 1994 08:49:37 GMT"), date("1994-11-06T08:49:37Z"), date("soon")
    (784111777.0, 784111777.0, None)
    >>> date("Fri, 31 Dec 99999 23:59:59 GMT")
    10000000000.0
    """
    if len(text) > _LONGEST_DATE:
        return None
    try:
        found = parsedate_tz(text)
        if found is None:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
        else:
            year, offset = found[0], found[9]
            zone = timezone(timedelta(seconds=offset)) if offset else UTC
            # The rest of the date has to be right whatever the year is; 2000 has every day.
            too_late = year > _LAST_YEAR
            moment = datetime(2000 if too_late else year, *found[1:6], tzinfo=zone)
            if too_late:
                return LONGEST
        return moment.timestamp()
    except Exception:
        # The parsers of the standard library raise several kinds on texts of foreign making.
        return None
