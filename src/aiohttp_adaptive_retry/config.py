"""What a user can set, with the reason for each default."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Self, TypedDict, Unpack, cast, get_args

from ._checks import (
    ContradictionError,
    exceptions,
    flag,
    known_names,
    likely,
    methods,
    nearest,
    number,
    one_of,
    seconds,
    shown,
    span,
    statuses,
    whole,
)
from ._sources import of_environment, of_mapping

__all__ = ("DEFAULT_RETRY_METHODS", "DEFAULT_RETRY_STATUSES", "AdaptiveConfig", "ConfigOverrides")

#: Methods that RFC 9110 section 9.2.2 calls idempotent, and QUERY, which is safe: a second copy
#: does no more than the first.
DEFAULT_RETRY_METHODS: Final = frozenset(
    {"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "QUERY", "TRACE"}
)

#: Answers that a later attempt may mend: timed out, too early, limited, failed, overloaded. 520 to
#: 524 are Cloudflare's for an origin that it could not ask, 529 is Anthropic's for overload.
DEFAULT_RETRY_STATUSES: Final = frozenset(
    {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
)

#: When a request of a method that is not idempotent is sent again.
Resend = Literal["proven", "never"]
#: How much a middleware does, from most to least.
Mode = Literal["on", "observe", "off"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptiveConfig:
    """Everything that can be set, checked when it is made; equal configs compare equal.

    Every duration is given in seconds or as a timedelta. It is kept in seconds, but for
    `window_duration` and `cleanup_interval`, which are kept as timedeltas. A wrong value raises
    `ValueError`, a wrong type or an unknown field `TypeError`; the text names field and value.

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
        retry_exceptions: exception classes of your own middlewares and connectors that count as
            transient failures. aiohttp's connection errors and every `OSError` do without being
            named. A bare `TimeoutError` never does: it is the call's own deadline.
        resend: when other methods than `retry_methods` may be sent again. "proven": where it is
            proven that nobody has processed the request, as no connection was made, nothing of the
            request was written, or the server says so. "never": never.
        idempotency_key: put one Idempotency-Key on each call by POST or PATCH that has none, the
            same on every attempt and after redirects within its origin. It vouches as a key of your
            own does, so such calls are retried. Off, as a server that heeds no key would do them
            twice.
        attempt_timeout: seconds that one attempt may take until its response head, or None. None,
            as the session's timeouts are the caller's; a server that falls silent is noticed by
            this or by a `sock_read`.
        retry_for: no retry begins later than so many seconds after its call did, or None. Waits
            are planned for it as for a `ClientTimeout(total=...)`, which also ends attempts.
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
            one goes first, of those that never succeeded if there are such.
        max_labelled_origins: origins that get metric labels of their own over the process's
            lifetime, 0 or more; the rest are counted together under `_OTHER`.

    Traces, admission and mode:
        attempt_spans: a CLIENT span for every attempt, injected into its headers. Off, as it costs
            a span an attempt, and OpenTelemetry's own instrumentation has one a call.
        admission: hold or refuse (`OriginUnavailable`) first attempts too while an origin is down.
            Off, as a call may then fail unsent.
        mode: "on"; "observe" to decide and count, and send each call once; "off" to leave all calls
            alone. `AdaptiveRetryMiddleware.mode` can be set at any time; the strictest of both
            counts.

    Example:
        >>> AdaptiveConfig(window_size=0)
        Traceback (most recent call last):
            ...
        ValueError: window_size must be >= 1, got 0
        >>> AdaptiveConfig(max_retries=2)
        Traceback (most recent call last):
            ...
        TypeError: AdaptiveConfig has no field 'max_retries'; did you mean 'max_attempts'?
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
    retry_exceptions: Collection[type[Exception]] = ()
    resend: Resend = "proven"
    idempotency_key: bool = False
    attempt_timeout: float | None = None
    retry_for: float | None = None
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
    mode: Mode = "on"

    def __init__(self, **fields: Unpack[ConfigOverrides]) -> None:
        cls = type(self)
        known_names(cls.__name__, fields, names_of(cls))
        for field in dataclasses.fields(cls):
            object.__setattr__(self, field.name, fields.get(field.name, field.default))
        self.__post_init__()

    def __post_init__(self) -> None:
        for name in ("window_size", "cleanup_frequency", "max_attempts", "max_origins"):
            whole(name, getattr(self, name), 1)
        whole("pressure_window_size", self.pressure_window_size, 1)
        whole("max_held_calls", self.max_held_calls, 1)
        whole("max_labelled_origins", self.max_labelled_origins, 0)
        whole("max_error_type_length", self.max_error_type_length, 1, 1_000)
        whole("max_error_message_length", self.max_error_message_length, 1, 100_000)
        for name in ("window_duration", "cleanup_interval"):
            self._keep(name, span(name, getattr(self, name)))
        for name in ("record_error_messages", "attempt_spans", "admission", "idempotency_key"):
            flag(name, getattr(self, name))
        one_of("mode", self.mode, MODES)
        number("memory_threshold_mb", self.memory_threshold_mb)
        if self.memory_baseline_mb is not None:
            number("memory_baseline_mb", self.memory_baseline_mb, least=0.0)
        for name in ("attempt_timeout", "retry_for"):
            if (value := getattr(self, name)) is not None:
                self._keep(name, seconds(name, value))
        for name in ("backoff_base", "backoff_cap"):
            self._keep(name, seconds(name, getattr(self, name)))
        for name in ("retry_after_cap", "hold_cap"):
            self._keep(name, seconds(name, getattr(self, name), least=0.0))
        number("hold_share", self.hold_share, least=0.0, most=1.0)
        number("max_held_mb", self.max_held_mb)
        number("budget_capacity", self.budget_capacity, least=1.0)
        number("budget_initial", self.budget_initial, least=0.0)
        number("budget_deposit", self.budget_deposit, least=0.0, most=1.0)
        number("budget_floor", self.budget_floor, least=0.0, most=1.0)
        # Copied, so that a set which the caller changes later changes nothing here.
        self._keep("retry_methods", methods("retry_methods", self.retry_methods))
        self._keep("retry_statuses", statuses("retry_statuses", self.retry_statuses))
        self._keep("retry_exceptions", exceptions("retry_exceptions", self.retry_exceptions))
        self._keep("resend", one_of("resend", self.resend, get_args(Resend)))
        for small, large in _ORDERED:
            least, most = getattr(self, small), getattr(self, large)
            if most < least:
                raise ContradictionError((small, least), (large, most), self._changed())

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _changed(self) -> set[str]:
        """The fields that don't have their defaults."""
        fields = dataclasses.fields(self)
        return {field.name for field in fields if getattr(self, field.name) != field.default}

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
        return cls._on_top(preset, overrides)

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
        return cls._on_top(preset, overrides)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, object]) -> Self:
        """From fields and their values, as TOML and JSON give them: durations in seconds.

        Lists do for sets. A field that is not there has its default. The errors are those of the
        constructor.

        >>> AdaptiveConfig.from_mapping({"max_attempts": 3, "retry_statuses": [503]}).max_attempts
        3
        """
        return cls._on_top({}, cast(ConfigOverrides, of_mapping(mapping, names_of(cls))))

    @classmethod
    def from_env(
        cls, prefix: str = "ADAPTIVE_RETRY_", environ: Mapping[str, str] = os.environ
    ) -> Self:
        """From environment variables: `ADAPTIVE_RETRY_MAX_ATTEMPTS=3` sets `max_attempts`.

        Durations are seconds, flags `true` or `false`, collections are separated by commas; `none`
        is None. An empty variable counts as not set. An error names the variable; one that begins
        with `prefix` and sets no field is an error too.

        >>> AdaptiveConfig.from_env(environ={"ADAPTIVE_RETRY_HOLD_CAP": "0"}).hold_cap
        0.0
        """
        hints = typing.get_type_hints(ConfigOverrides)
        return of_environment(
            prefix, environ, hints, lambda fields: cls._on_top({}, cast(ConfigOverrides, fields))
        )

    @classmethod
    def _on_top(cls, base: ConfigOverrides, overrides: ConfigOverrides) -> Self:
        """Of both; what is wrong with them together is told of the overrides."""
        known_names(cls.__name__, overrides, names_of(cls))
        try:
            return cls(**(base | overrides))
        except ContradictionError as contradiction:
            raise contradiction.naming(overrides) from None


def names_of(kind: type[AdaptiveConfig]) -> tuple[str, ...]:
    """The names of a configuration's fields."""
    return tuple(field.name for field in dataclasses.fields(kind))


def configured(
    owner: str, config: object, overrides: ConfigOverrides, beside: Collection[str] = ()
) -> AdaptiveConfig:
    """A config, or the defaults for None, with overrides on top; for constructors that take both.

    `owner` is the class that is made, and `beside` the names of its other arguments.
    """
    if config is not None and not isinstance(config, AdaptiveConfig):
        kind = "; for a mapping there is AdaptiveConfig.from_mapping"
        hint = kind if isinstance(config, Mapping) else ""
        raise TypeError(f"config must be an AdaptiveConfig or None, got {shown(config)}{hint}")
    config = AdaptiveConfig() if config is None else config
    if not overrides:
        return config
    names = names_of(type(config))
    unknown = [name for name in overrides if name not in names]
    if unknown:
        hint = likely(nearest(unknown[0], (*names, *beside)))
        raise TypeError(f"{owner} has no argument or field {unknown[0]!r}{hint}")
    base = {name: getattr(config, name) for name in names}
    return config._on_top(cast(ConfigOverrides, base), overrides)


#: Pairs of fields, of which the first must not be greater than the second.
_ORDERED: Final = (("backoff_base", "backoff_cap"), ("budget_initial", "budget_capacity"))

#: What a duration may be given as.
Seconds = float | timedelta


class ConfigOverrides(TypedDict, total=False):
    """AdaptiveConfig's fields once more, as what type checkers accept for them."""

    window_size: int
    window_duration: Seconds
    cleanup_frequency: int
    cleanup_interval: Seconds
    memory_threshold_mb: float
    memory_baseline_mb: float | None
    pressure_window_size: int
    max_error_type_length: int
    record_error_messages: bool
    max_error_message_length: int
    max_attempts: int
    retry_methods: Collection[str]
    retry_statuses: Collection[int]
    retry_exceptions: Collection[type[Exception]]
    resend: Resend
    idempotency_key: bool
    attempt_timeout: Seconds | None
    retry_for: Seconds | None
    backoff_base: Seconds
    backoff_cap: Seconds
    retry_after_cap: Seconds
    hold_cap: Seconds
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
    mode: Mode
