"""What a server says about another attempt: whether it wants one, and when.

Servers say that in many dialects. Each dialect is a parser in `INVITATIONS` or `LIMITS`, or a name
in `VERDICTS`, with its source beside it. What can't be read counts as not said, so that the next
dialect is heard.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .moments import LONGEST, date, duration, number

# A number above this is a moment of the epoch in seconds, and above the other one in milliseconds.
_EPOCH: Final = 1e9
_EPOCH_MILLISECONDS: Final = 1e11

# Matching quotes in a longer list would be work for an attacker.
_LONGEST_LIST: Final = 1024
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_INT32: Final = re.compile(r"[+-]?[0-9]{1,10}", re.ASCII)
_NOTHING_LEFT: Final = re.compile(r"0+(?:\.0*)?|-[0-9.]+", re.ASCII)


class ServerWord(NamedTuple):
    """What a server's headers say about another attempt."""

    #: In so many seconds, finite and 0 or more; None where no time is named.
    seconds: float | None = None
    #: The time was named by a header that is about another attempt, and not by a limit's state.
    invites: bool = False
    #: The same request is wanted again (True), or is not (False), whatever the status is.
    again: bool | None = None
    #: A limit is used up.
    exhausted: bool = False
    #: The request was turned away before anybody has read it.
    unread: bool = False

    @property
    def wait(self) -> float | None:
        """Seconds to wait, above 0; None where the client's usual pace will do."""
        return self.seconds or None


#: Nothing is said.
SILENCE: Final = ServerWord()


@dataclass(slots=True)
class _Head:
    """A status and its headers, as a parser reads them; their names are in lower case."""

    status: int
    headers: dict[str, Any]
    wall: Callable[[], float]

    def whole(self, name: str) -> str:
        """A header's lines, "" where there is none. `name` is in lower case."""
        value = self.headers.get(name)
        if value is None:
            return ""
        # Exceptions may have headers of any type.
        return value.strip() if isinstance(value, str) else str(value)

    def text(self, name: str) -> str:
        """A header's first line, "" where there is none. `name` is in lower case."""
        return self.whole(name).partition("\n")[0].strip()

    def until(self, moment: float) -> float:
        """Seconds until a moment of the epoch, 0 for one gone by.

        They are counted from the answer's Date, if it has one, so that a client whose clock is off
        waits neither hours nor not at all.
        """
        sent = date(self.text("date"))
        return min(max(0.0, moment - (self.wall() if sent is None else sent)), LONGEST)


#: Reads one dialect: seconds, 0 for at once; None where it says nothing that can be read.
_Parser = Callable[[_Head], float | None]


def _milliseconds(name: str) -> _Parser:
    def parse(head: _Head) -> float | None:
        text = head.text(name)
        found = number(text) if text else None
        return None if found is None else found / 1000.0

    return parse


def _seconds_or_date(name: str) -> _Parser:
    def read(text: str, head: _Head) -> float | None:
        if (seconds := number(text)) is not None or (seconds := duration(text)) is not None:
            return seconds
        moment = date(text)
        return None if moment is None else head.until(moment)

    def parse(head: _Head) -> float | None:
        text = head.whole(name)
        if not text:
            return None
        if "\n" not in text and (seconds := read(text, head)) is not None:
            return seconds
        # A proxy may have added its own, on a line or behind a comma. Nobody is asked too early.
        text = text[:_LONGEST_LIST]
        parts = [part.strip(' \t"') for part in (*text.split("\n"), *re.split(r"[\n,]", text))]
        found = [read(part, head) for part in parts]
        return max((seconds for seconds in found if seconds is not None), default=None)

    return parse


def _pushback(head: _Head) -> float | None:
    found = _pushed_back(head) if head.text(_PUSHBACK) else None
    return None if found is None or found < 0 else found / 1000.0


def _reset_after(head: _Head) -> float | None:
    # Discord sends it with every answer; while requests remain it speaks of no limit in force.
    left = head.text("x-ratelimit-remaining")
    if head.status != 429 and left and not _NOTHING_LEFT.fullmatch(left):
        return None
    return _seconds_or_date("x-ratelimit-reset-after")(head)


def _reset(prefix: str) -> _Parser:
    """The pair of headers "...-Remaining" and "...-Reset" of one prefix."""
    remaining, reset = f"{prefix}-remaining", f"{prefix}-reset"
    other = _seconds_or_date(reset)

    def parse(head: _Head) -> float | None:
        text = head.text(reset)
        if not text or not _is_used_up(head, remaining):
            return None
        seconds = number(text)
        if seconds is None:
            return other(head)
        if seconds <= _EPOCH:
            return seconds
        # `number` cuts what is too long, so milliseconds are read anew.
        moment = float(text)
        return head.until(moment / 1000.0 if moment > _EPOCH_MILLISECONDS else moment)

    return parse


def _structured(head: _Head) -> float | None:
    longest = None
    for left, seconds in _quotas(head):
        if left <= 0.0 and seconds is not None:
            longest = seconds if longest is None else max(longest, seconds)
    return longest


def _by_kind(remaining: str, reset: str, *kinds: str) -> _Parser:
    """A limit for each kind of use, such as requests and tokens: the longest of those used up."""
    limits = [(remaining.format(kind), _seconds_or_date(reset.format(kind))) for kind in kinds]

    def parse(head: _Head) -> float | None:
        longest = None
        for left, until in limits:
            if _NOTHING_LEFT.fullmatch(head.text(left)):
                seconds = until(head)
                if seconds is not None:
                    longest = seconds if longest is None else max(longest, seconds)
        return longest

    return parse


# The kinds of use that have a limit each.
_OPENAI: Final = ("requests", "tokens")
_ANTHROPIC: Final = ("requests", "tokens", "input-tokens", "output-tokens")

#: Who asks in so many words to come later or at once.
INVITATIONS: Final[tuple[_Parser, ...]] = (
    # OpenAI, Anthropic and Azure OpenAI. It wins over Retry-After, being finer.
    # openai/openai-python, src/openai/_base_client.py, `_parse_retry_after_header`.
    _milliseconds("retry-after-ms"),
    # Azure. Azure/azure-sdk-for-python, sdk/core/azure-core/azure/core/pipeline/policies/_utils.py.
    _milliseconds("x-ms-retry-after-ms"),
    # AWS. boto/botocore, botocore/retries/standard.py.
    _milliseconds("x-amz-retry-after"),
    # gRPC, by gateways to JSON and the Web. grpc/proposal, A6-client-retries.md, "Pushback".
    _pushback,
    # RFC 9110 section 10.2.3: whole seconds or a date. Shopify and others send decimals
    # (urllib3/urllib3 issue 2861), GitHub sent "1m0s" (urllib3/urllib3 issue 1822).
    _seconds_or_date("retry-after"),
)
#: Who tells until when a limit is used up. `INVITATIONS` come first; the first one that can be read
#: wins.
LIMITS: Final[tuple[_Parser, ...]] = (
    # MailerLite. developers-classic.mailerlite.com, "Rate limits".
    _seconds_or_date("x-ratelimit-retry-after"),
    # Discord. docs.discord.com/developers/topics/rate-limits.
    _reset_after,
    # GitHub: seconds of the epoch (docs.github.com, "Rate limits for the REST API"). Elsewhere
    # seconds from now, or a date (developer.lemlist.com).
    _reset("x-ratelimit"),
    # X. docs.x.com, "Rate limits".
    _reset("x-rate-limit"),
    # draft-ietf-httpapi-ratelimit-headers up to 06: seconds from now. GitLab sends the epoch.
    _reset("ratelimit"),
    # The same draft from 07 on: `limit=10, remaining=0, reset=7`, and later `"burst";r=0;t=7`.
    _structured,
    # OpenAI and those that follow it: Go's durations. platform.openai.com, "Rate limits".
    _by_kind("x-ratelimit-remaining-{}", "x-ratelimit-reset-{}", *_OPENAI),
    # Anthropic: RFC 3339. docs.anthropic.com, "Rate limits".
    _by_kind(
        "anthropic-ratelimit-{}-remaining",
        "anthropic-ratelimit-{}-reset",
        *_ANTHROPIC,
    ),
)
_LEFT: Final = ("x-ratelimit-remaining", "x-rate-limit-remaining", "ratelimit-remaining")

#: "true" or "false": whether the same request is wanted again. The first one that can be read wins.
VERDICTS: Final = (
    # OpenAI, Anthropic and other APIs with clients by Stainless. openai/openai-python,
    # src/openai/_base_client.py, `_should_retry`.
    "x-should-retry",
    # stripe/stripe-python, stripe/_http_client.py, `_should_retry`.
    "stripe-should-retry",
)
# Below 0, or what can't be read: "do not retry". grpc/proposal, A6-client-retries.md, "Pushback".
_PUSHBACK: Final = "grpc-retry-pushback-ms"
#: Who sends one of these has turned a request away unread.
NACKS: Final = (
    # Envoy's own limit. envoyproxy.io, "Rate limit", `x-envoy-ratelimited`.
    "x-envoy-ratelimited",
    # twitter/finagle, finagle-http, filter/HttpNackFilter.scala.
    "finagle-http-nack",
)
# The same, but for good. twitter/finagle, finagle-http, filter/HttpNackFilter.scala.
_REFUSAL: Final = "finagle-http-nonretryable-nack"

_KNOWN: Final = frozenset(
    (
        *("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after", _PUSHBACK),
        *("retry-after", "x-ratelimit-retry-after", "x-ratelimit-reset-after"),
        *("x-ratelimit-reset", "x-rate-limit-reset", "ratelimit-reset", "ratelimit"),
        *_LEFT,
        *(f"x-ratelimit-{word}-{kind}" for word in ("remaining", "reset") for kind in _OPENAI),
        *(f"anthropic-ratelimit-{kind}-remaining" for kind in _ANTHROPIC),
        *(f"anthropic-ratelimit-{kind}-reset" for kind in _ANTHROPIC),
        *VERDICTS,
        *NACKS,
        _REFUSAL,
    )
)
_READ: Final = _KNOWN | {"date"}


def heard(
    status: int, headers: Mapping[str, Any] | None, wall: Callable[[], float] = time.time
) -> ServerWord:
    """All that the headers of a failed answer say. Never raises.

    `wall` gives seconds since the epoch, for an answer without a Date. O(headers).

    >>> heard(429, {"Retry-After": "1.5"}).wait, heard(503, {"x-should-retry": "false"}).again
    (1.5, False)
    """
    said: dict[str, Any] = {}
    try:
        for name, value in headers.items() if headers else ():
            if (known := name.lower()) in _READ:
                said[known] = f"{said[known]}\n{value}" if known in said else value
    except Exception:
        # Exceptions can be made by anybody, of anything.
        return SILENCE
    if _KNOWN.isdisjoint(said):
        return SILENCE
    head = _Head(status, said, wall)
    seconds = _first(INVITATIONS, head)
    invites = seconds is not None
    if seconds is None:
        seconds = _first(LIMITS, head)
    unread = not said.keys().isdisjoint(NACKS)
    return ServerWord(seconds, invites, _verdict(head), _is_exhausted(head), unread)


def says_something(headers: Mapping[str, Any]) -> bool:
    """Whether any header is of those that may say something. O(headers)."""
    return not _KNOWN.isdisjoint([name.lower() for name in headers])


def may_override(headers: Mapping[str, Any]) -> bool:
    """Whether an answer may want another attempt though its status doesn't ask for one."""
    return any(name in headers for name in VERDICTS)


def _first(parsers: tuple[_Parser, ...], head: _Head) -> float | None:
    for parse in parsers:
        seconds = parse(head)
        if seconds is not None:
            return seconds
    return None


def _verdict(head: _Head) -> bool | None:
    if _PUSHBACK in head.headers:
        milliseconds = _pushed_back(head)
        if milliseconds is None or milliseconds < 0:
            return False
    if _REFUSAL in head.headers:
        return False
    for name in VERDICTS:
        said = head.text(name).lower()
        if said in ("true", "false"):
            return said == "true"
    return None


def _pushed_back(head: _Head) -> int | None:
    text = head.text(_PUSHBACK)
    found = int(text) if _INT32.fullmatch(text) else None
    return None if found is None or not -(2**31) <= found < 2**31 else found


def _is_used_up(head: _Head, remaining: str) -> bool:
    """Whether a limit is used up; an answer 429 says so by itself, unless the header denies it."""
    text = head.text(remaining)
    return bool(_NOTHING_LEFT.fullmatch(text)) if text else head.status == 429


def _is_exhausted(head: _Head) -> bool:
    return any(_NOTHING_LEFT.fullmatch(head.text(name)) for name in _LEFT) or any(
        left <= 0.0 for left, _ in _quotas(head)
    )


def _quotas(head: _Head) -> list[tuple[float, float | None]]:
    """What the structured RateLimit header says: for each limit what is left, and until when."""
    text = head.text("ratelimit")[:_LONGEST_LIST]
    if not text:
        return []
    found, older = [], dict[str, str]()
    # Names of limits are quoted, and may have any character in them.
    for item in _QUOTED.sub("", text).split(","):
        values = {}
        for part in item.split(";"):
            key, _, value = part.partition("=")
            values[key.strip().lower()] = value.strip()
        older |= values
        if (left := number(values.get("r", ""))) is not None:
            found.append((left, number(values.get("t", ""))))
    if not found and (left := number(older.get("remaining", ""))) is not None:
        found.append((left, number(older.get("reset", ""))))
    return found
