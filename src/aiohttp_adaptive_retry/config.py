"""What a user can set, with the reason for each default."""

from __future__ import annotations

import math
import string
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Self, TypedDict, Unpack

__all__ = ("DEFAULT_RETRY_METHODS", "DEFAULT_RETRY_STATUSES", "AdaptiveConfig", "ConfigOverrides")

#: Methods that RFC 9110 section 9.2.2 calls idempotent: a second copy does no more than the first.
DEFAULT_RETRY_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})

#: Answers that a later attempt may mend: timed out, too early, limited, failed, overloaded. 520 to
#: 524 are Cloudflare's for an origin that it could not ask, 529 is Anthropic's for overload.
DEFAULT_RETRY_STATUSES: Final = frozenset(
    {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
)

_TOKEN_CHARACTERS: Final = frozenset("!#$%&'*+-.^_`|~" + string.digits + string.ascii_letters)

# Upper ends catch a unit that was mixed up.
_MOST_ITEMS: Final = 1_000_000_000
_MOST_SECONDS: Final = 366 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveConfig:
    """Everything that can be set, checked when it is made; equal configs compare equal.

    Durations are seconds as plain numbers; `window_duration` and `cleanup_interval` are timedeltas.
    A wrong value raises `ValueError`, a wrong type `TypeError`; both name the field and the value.

    Window and clean-up:
        window_size: attempts remembered for one origin, at 9 bytes each, 1 or more.
        window_duration: age at which an attempt stops counting, above zero.
        cleanup_frequency: operations between two sweeps over idle origins, 1 or more. Those of
            several busy origins are counted within 20 ms.
        cleanup_interval: longest time between two sweeps while there is traffic, above zero.
        memory_threshold_mb: growth of the process over its baseline, in MiB, at which windows are
            cut, above zero. An ordinary service starts above 100 MiB, so the size is no measure.
        memory_baseline_mb: where growth is counted from, in MiB. None: the resident size when the
            middleware is made. 0 makes `memory_threshold_mb` absolute.
        pressure_window_size: newest attempts that a window keeps under memory pressure, 1 or more.

    What is recorded:
        max_error_type_length: characters kept of an error type's name, 1 to 1,000.
        record_error_messages: keep the texts of the newest errors too. Off, as they may hold
            secrets. URLs in them lose userinfo, path and query.
        max_error_message_length: characters kept of such a text, 1 to 100,000.

    Attempts:
        max_attempts: attempts on the wire for one call and redirect hop, 1 or more. Five, as the
            budget and not this number bounds the load.
        retry_methods: methods that may be sent again. Others only with an Idempotency-Key header.
        retry_statuses: answers that count as failures and may be retried, 100 to 599. Which of
            them retries really mend is learnt.
        attempt_timeout: seconds that one attempt may take until its response head, or None. None,
            as the session's timeouts are the caller's; a server that falls silent is noticed by
            this or by a `sock_read`.
        backoff_base: mean of the first wait is half of this, in seconds, above zero. 0.2: a blip
            of 200 ms is over by the second retry.
        backoff_cap: longest wait that we choose, in seconds, at least `backoff_base`. 5.0: the
            fourth wait reaches past a restart of 2 s.
        retry_after_cap: longest Retry-After that is waited for, in seconds. What asks for more is
            handed back to the caller at once.
        hold_cap: seconds for which one call may be held while its origin is down, 0 or more; 0
            holds nothing. A held call gets its retry when another's shows that the origin is back.
        hold_share: the share of a call's time until its deadline that it may be held, 0 to 1. A
            quarter: a caller who has two seconds fails after half a second. A call without a
            deadline, or with one more than a minute away, is held for half a second.
        max_held_calls: calls that may wait at a time, over all origins, 1 or more. Beyond that a
            failed call ends as it would without us.
        max_held_mb: the same in MiB of what they keep: bodies in memory, and answers, which are at
            most 16 KiB each; above zero. A call that waits alone may keep any body.

    Budget, for one origin:
        budget_capacity: most retries that can be saved up, 1 or more. Twenty: what new trouble may
            waste before it is learnt of, whatever the traffic.
        budget_initial: retries that an unknown origin affords, 0 to `budget_capacity`. One: what
            hundreds of processes that start in an outage may add to it is one retry each.
        budget_deposit: retries earned by a success, 0 to 1. At 0.1 wasted retries can't exceed a
            tenth of the successes. It grows while retries mend, and is cut at signs of overload.
        budget_floor: retries earned by a second passing, 0 to 1. None: a client that hardly calls
            finds out by itself whether its origin is back.

    Origins:
        max_origins: (scheme, host, port) remembered at once, 1 or more; the least recently used
            one goes first.
        max_labelled_origins: origins that get metric labels of their own over the process's
            lifetime, 0 or more; the rest are counted together under `_OTHER`.

    Traces and admission:
        attempt_spans: a CLIENT span for every attempt, injected into its headers. Off, as it costs
            a span an attempt, and OpenTelemetry's own instrumentation has one a call.
        admission: hold or refuse (`OriginUnavailable`) first attempts too while an origin is down.
            Off, as a call may then fail unsent.

    Example:
        >>> AdaptiveConfig(window_size=0)
        Traceback (most recent call last):
            ...
        ValueError: window_size must be >= 1, got 0
    """

    window_size: int = 1000
    window_duration: timedelta = timedelta(minutes=30)
    cleanup_frequency: int = 100
    cleanup_interval: timedelta = timedelta(minutes=5)
    memory_threshold_mb: float = 100
    memory_baseline_mb: float | None = None
    pressure_window_size: int = 100
    max_error_type_length: int = 64
    record_error_messages: bool = False
    max_error_message_length: int = 200
    max_attempts: int = 5
    retry_methods: Collection[str] = DEFAULT_RETRY_METHODS
    retry_statuses: Collection[int] = DEFAULT_RETRY_STATUSES
    attempt_timeout: float | None = None
    backoff_base: float = 0.2
    backoff_cap: float = 5.0
    retry_after_cap: float = 30.0
    hold_cap: float = 12.0
    hold_share: float = 0.25
    max_held_calls: int = 5000
    max_held_mb: float = 64
    budget_capacity: float = 20.0
    budget_initial: float = 1.0
    budget_deposit: float = 0.1
    budget_floor: float = 0.0
    max_origins: int = 1024
    max_labelled_origins: int = 100
    attempt_spans: bool = False
    admission: bool = False

    def __post_init__(self) -> None:
        for name in ("window_size", "cleanup_frequency", "max_attempts", "max_origins"):
            _whole(name, getattr(self, name), 1)
        _whole("pressure_window_size", self.pressure_window_size, 1)
        _whole("max_held_calls", self.max_held_calls, 1)
        _whole("max_labelled_origins", self.max_labelled_origins, 0)
        _whole("max_error_type_length", self.max_error_type_length, 1, 1_000)
        _whole("max_error_message_length", self.max_error_message_length, 1, 100_000)
        for name in ("window_duration", "cleanup_interval"):
            if not isinstance(span := getattr(self, name), timedelta):
                raise _wrong_type(name, "a timedelta", span)
            if span <= timedelta(0):
                raise ValueError(f"{name} must be > 0, got {span!r}")
        for name in ("record_error_messages", "attempt_spans", "admission"):
            if not isinstance(flag := getattr(self, name), bool):
                raise _wrong_type(name, "True or False", flag)
        _number("memory_threshold_mb", self.memory_threshold_mb)
        if self.memory_baseline_mb is not None:
            _number("memory_baseline_mb", self.memory_baseline_mb, least=0.0)
        if self.attempt_timeout is not None:
            _number("attempt_timeout", self.attempt_timeout, most=_MOST_SECONDS)
        base, cap = self.backoff_base, self.backoff_cap
        _number("backoff_base", base, most=_MOST_SECONDS)
        _number("backoff_cap", cap, most=_MOST_SECONDS)
        if cap < base:
            raise ValueError(f"backoff_cap must be >= backoff_base ({base}), got {cap}")
        _number("retry_after_cap", self.retry_after_cap, least=0.0, most=_MOST_SECONDS)
        _number("hold_cap", self.hold_cap, least=0.0, most=_MOST_SECONDS)
        _number("hold_share", self.hold_share, least=0.0, most=1.0)
        _number("max_held_mb", self.max_held_mb)
        most, initial = self.budget_capacity, self.budget_initial
        _number("budget_capacity", most, least=1.0)
        _number("budget_initial", initial, least=0.0)
        if initial > most:
            raise ValueError(f"budget_initial must be <= budget_capacity ({most}), got {initial}")
        _number("budget_deposit", self.budget_deposit, least=0.0, most=1.0)
        _number("budget_floor", self.budget_floor, least=0.0, most=1.0)
        # Copied, so that a set which the caller changes later changes nothing here.
        object.__setattr__(self, "retry_methods", _methods(self.retry_methods))
        object.__setattr__(self, "retry_statuses", _statuses(self.retry_statuses))

    @classmethod
    def interactive(cls, **overrides: Unpack[ConfigOverrides]) -> Self:
        """For callers to whom a second of waiting costs as much as a quarter of a success.

        Nothing is held, and no wait is longer than 0.3 seconds, but for a Retry-After of up to half
        a second. `overrides` are fields of this class; they win.
        """
        preset: ConfigOverrides = {
            "max_attempts": 3,
            "backoff_base": 0.1,
            "backoff_cap": 0.3,
            "retry_after_cap": 0.5,
            "hold_cap": 0.0,
        }
        return cls(**(preset | overrides))

    @classmethod
    def batch(cls, **overrides: Unpack[ConfigOverrides]) -> Self:
        """For callers who would rather wait for a minute than fail.

        Calls are held for up to 60 seconds, and 0.7 of the time that they have; what a server asks
        for in Retry-After is waited for up to five minutes. `overrides` are fields of this class;
        they win. It needs a session with a long or without a `total` timeout.
        """
        preset: ConfigOverrides = {
            "max_attempts": 10,
            "backoff_cap": 20.0,
            "retry_after_cap": 300.0,
            "hold_cap": 60.0,
            "hold_share": 0.7,
        }
        return cls(**(preset | overrides))


class ConfigOverrides(TypedDict, total=False):
    """AdaptiveConfig's fields once more, so that type checkers know them as keyword arguments."""

    window_size: int
    window_duration: timedelta
    cleanup_frequency: int
    cleanup_interval: timedelta
    memory_threshold_mb: float
    memory_baseline_mb: float | None
    pressure_window_size: int
    max_error_type_length: int
    record_error_messages: bool
    max_error_message_length: int
    max_attempts: int
    retry_methods: Collection[str]
    retry_statuses: Collection[int]
    attempt_timeout: float | None
    backoff_base: float
    backoff_cap: float
    retry_after_cap: float
    hold_cap: float
    hold_share: float
    max_held_calls: int
    max_held_mb: float
    budget_capacity: float
    budget_initial: float
    budget_deposit: float
    budget_floor: float
    max_origins: int
    max_labelled_origins: int
    attempt_spans: bool
    admission: bool


def _shown(value: object) -> str:
    """A value for an error text; a huge one is cut, and one that can't be shown is named."""
    try:
        text = repr(value)
    except Exception:
        text = f"<unprintable {type(value).__name__}>"
    return text if len(text) <= 100 else text[:100] + "..."


def _wrong_type(name: str, wanted: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {wanted}, got {_shown(value)} ({type(value).__name__})")


def _whole(name: str, value: object, least: int, most: int = _MOST_ITEMS) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(name, "an int", value)
    if value < least:
        raise ValueError(f"{name} must be >= {least}, got {_shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be <= {most}, got {_shown(value)}")


def _number(name: str, value: object, least: float | None = None, most: float = 1e12) -> None:
    """Hold a finite number within these bounds; without `least`, above zero."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong_type(name, "a number", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if least is None and value <= 0.0:
        raise ValueError(f"{name} must be > 0, got {_shown(value)}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be >= {least:g}, got {_shown(value)}")
    if value > most:
        raise ValueError(f"{name} must be <= {most:g}, got {_shown(value)}")


def _members(name: str, value: Any, wanted: str) -> list[Any]:
    # A str is an iterable of its letters, and bytes one of ints: both are always a slip.
    if isinstance(value, str | bytes | bytearray) or not isinstance(value, Iterable):
        raise _wrong_type(name, wanted, value)
    return list(value)


def _methods(value: object) -> frozenset[str]:
    methods = _members("retry_methods", value, "a collection of method names")
    for method in methods:
        if not isinstance(method, str):
            raise _wrong_type("retry_methods", "a collection of method names", method)
        if not method or not _TOKEN_CHARACTERS.issuperset(method):
            raise ValueError(f"retry_methods must hold method names, got {_shown(method)}")
    return frozenset(method.upper() for method in methods)


def _statuses(value: object) -> frozenset[int]:
    statuses = _members("retry_statuses", value, "a collection of status codes")
    for status in statuses:
        if not isinstance(status, int) or isinstance(status, bool):
            raise _wrong_type("retry_statuses", "a collection of status codes", status)
        if not 100 <= status <= 599:
            raise ValueError(f"retry_statuses must lie in 100 to 599, got {_shown(status)}")
    return frozenset(int(status) for status in statuses)
