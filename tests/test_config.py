"""Bad input is told where it is made, with the field and the value; good input stands."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import time
import tomllib
import typing
from datetime import timedelta
from typing import Any

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, AdaptiveStrategy
from aiohttp_adaptive_retry.config import ConfigOverrides

FIELDS = {field.name: field for field in dataclasses.fields(AdaptiveConfig)}

WHOLE = {
    "window_size",
    "cleanup_frequency",
    "pressure_window_size",
    "max_error_type_length",
    "max_error_message_length",
    "max_attempts",
    "max_origins",
    "max_held_calls",
}
WHOLE_FROM_ZERO = {"max_labelled_origins"}
POSITIVE = {
    "memory_threshold_mb",
    "max_held_mb",
    "attempt_timeout",
    "retry_for",
    "backoff_base",
    "backoff_cap",
}
FROM_ZERO = {"memory_baseline_mb", "retry_after_cap", "hold_cap", "budget_initial"}
FROM_ONE = {"budget_capacity"}
SHARES = {"budget_deposit", "budget_floor", "hold_share"}
SPANS = {"window_duration", "cleanup_interval"}
FLAGS = {"record_error_messages", "admission", "attempt_spans", "idempotency_key"}
SETS = {"retry_methods", "retry_statuses", "retry_exceptions"}
WORDS = {"mode", "resend"}
OPTIONAL = {"attempt_timeout", "retry_for", "memory_baseline_mb"}
#: Fields that are durations: given in seconds or as timedeltas, kept in seconds.
SECONDS = {
    "attempt_timeout",
    "retry_for",
    "backoff_base",
    "backoff_cap",
    "retry_after_cap",
    "hold_cap",
}

HUGE = 10**400


def bad_values() -> list[tuple[str, Any]]:
    """Each field with values that it must refuse: zero, negative, nan, infinite, wrongly typed."""
    cases: list[tuple[str, Any]] = []
    numbers = POSITIVE | FROM_ZERO | FROM_ONE | SHARES
    for name in sorted(WHOLE):
        cases += [(name, value) for value in (0, -1, HUGE)]
    cases += [("max_labelled_origins", -1), ("max_labelled_origins", HUGE)]
    for name in sorted(WHOLE | WHOLE_FROM_ZERO):
        cases += [(name, value) for value in (1.0, math.nan, math.inf, -math.inf)]
    for name in sorted(POSITIVE):
        cases += [(name, value) for value in (0, 0.0, -0.1)]
    for name in sorted(FROM_ZERO | SHARES):
        cases += [(name, value) for value in (-1, -0.001)]
    cases += [("budget_capacity", 0), ("budget_capacity", -1), ("budget_capacity", 0.99)]
    cases += [(name, 1.01) for name in sorted(SHARES)]
    for name in sorted(numbers):
        cases += [(name, value) for value in (math.nan, math.inf, -math.inf, HUGE)]
        cases += [(name, 1j)]
        bad = timedelta(seconds=-1) if name in SECONDS else timedelta(seconds=1)
        cases.append((name, bad))
    for name in sorted(SPANS):
        cases += [(name, timedelta(0)), (name, timedelta(seconds=-1))]
        cases += [(name, value) for value in (math.nan, math.inf, 0, -1, 1e-9, HUGE)]
    for name in sorted(FLAGS):
        cases += [(name, value) for value in (0, 1, -1, math.nan, math.inf, "yes")]
    for name in sorted(WORDS):
        cases += [(name, value) for value in (0, 1.5, math.nan, "", "On", "of", b"on", ["off"])]
    for name in sorted(SETS):
        cases += [(name, value) for value in (0, -1, 1.5, math.nan, math.inf, "GET", b"GET")]
    cases += [("retry_methods", [value]) for value in ("", "GE T", "GET\n", "GÉT", 5, None, True)]
    cases += [("retry_statuses", [value]) for value in (0, 99, 600, -503, "503", 503.0, True, None)]
    no_exceptions: list[Any] = ["OSError", 5, None, OSError(), int, BaseException]
    cases += [("retry_exceptions", [value]) for value in no_exceptions]
    cases += [("retry_exceptions", ValueError), ("retry_exceptions", [TimeoutError])]
    no_resends: list[Any] = ["", "always", "Proven", b"never", 0, False, []]
    cases += [("resend", value) for value in no_resends]
    for name in FIELDS:
        cases += [(name, value) for value in ("1", [object()], object(), {}.keys)]
        if name not in FLAGS:
            cases.append((name, True))
        if name not in OPTIONAL:
            cases.append((name, None))
    return cases


def test_every_field_is_in_the_tables() -> None:
    """A new field can't be forgotten here."""
    tables = (
        WHOLE,
        WHOLE_FROM_ZERO,
        POSITIVE,
        FROM_ZERO,
        FROM_ONE,
        SHARES,
        SPANS,
        FLAGS,
        SETS,
        WORDS,
    )
    assert sorted(name for table in tables for name in table) == sorted(FIELDS)


@pytest.mark.parametrize(("name", "value"), bad_values())
def test_a_bad_value_is_named_with_its_field(name: str, value: Any) -> None:
    """The error names the field, shows the value, and is short whatever the value is."""
    with pytest.raises((ValueError, TypeError)) as caught:
        AdaptiveConfig(**{name: value})
    text = str(caught.value)
    assert name in text
    shown = value[0] if isinstance(value, list) and value else value
    if isinstance(shown, timedelta) and name in SECONDS:
        shown = shown.total_seconds()
    if isinstance(shown, float) and name in SPANS:
        shown = timedelta(seconds=shown) if shown == 1e-9 else shown
    assert repr(shown)[:40] in text or str(shown)[:40] in text
    assert len(text) < 400


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, 1) for name in sorted(WHOLE)]
    + [
        (name, 1_000_000)
        for name in sorted(WHOLE - {"max_error_type_length"})
        if "length" not in name
    ]
    + [("max_labelled_origins", 0), ("max_labelled_origins", 5000)]
    + [(name, value) for name in sorted(POSITIVE - {"backoff_cap"}) for value in (0.001, 1)]
    + [("backoff_cap", 3600), ("retry_after_cap", 0), ("retry_after_cap", 86_400)]
    + [("memory_baseline_mb", 0), ("memory_baseline_mb", None), ("attempt_timeout", None)]
    + [("budget_initial", 0), ("budget_deposit", 0), ("budget_deposit", 1), ("budget_floor", 0)]
    + [("hold_cap", 0), ("hold_share", 0), ("hold_share", 1)]
    + [("window_duration", timedelta(milliseconds=1)), ("cleanup_interval", timedelta(days=365))]
    + [("retry_methods", ()), ("retry_statuses", ()), ("retry_statuses", {100, 599})],
)
def test_small_and_large_but_meaningful_values_stand(name: str, value: Any) -> None:
    """A default elsewhere never makes a sensible value a contradiction."""
    config = AdaptiveConfig(**{name: value})
    stands = getattr(config, name)
    assert stands == (frozenset(value) if name in SETS else value)


def test_contradictions_name_both_fields() -> None:
    """Two values that exclude each other are told together."""
    with pytest.raises(ValueError, match=r"backoff_cap must be >= backoff_base \(2\.0\), got 1\.0"):
        AdaptiveConfig(backoff_base=2.0, backoff_cap=1.0)
    with pytest.raises(ValueError, match=r"budget_capacity must be >= budget_initial \(4\), got 3"):
        AdaptiveConfig(budget_capacity=3, budget_initial=4)


@pytest.mark.parametrize(
    ("make", "given", "text"),
    [
        (AdaptiveConfig, {"backoff_base": 10}, "backoff_base must be <= backoff_cap (5.0), got 10"),
        (
            AdaptiveConfig,
            {"backoff_cap": 0.1},
            "backoff_cap must be >= backoff_base (0.2), got 0.1",
        ),
        (
            AdaptiveConfig,
            {"budget_initial": 30},
            "budget_initial must be <= budget_capacity (20.0), got 30",
        ),
        (
            AdaptiveConfig.interactive,
            {"backoff_base": 2},
            "backoff_base must be <= backoff_cap (0.3), got 2",
        ),
        (
            AdaptiveConfig.interactive,
            {"backoff_cap": timedelta(milliseconds=50)},
            "backoff_cap must be >= backoff_base (0.1), got 0.05",
        ),
        (
            AdaptiveConfig.batch,
            {"backoff_base": 21.0},
            "backoff_base must be <= backoff_cap (20.0), got 21.0",
        ),
        (
            AdaptiveConfig.from_mapping,
            {"mapping": {"backoff_base": 6}},
            "backoff_base must be <= backoff_cap (5.0), got 6",
        ),
        (
            AdaptiveConfig.from_env,
            {"environ": {"ADAPTIVE_RETRY_BUDGET_INITIAL": "21"}},
            "ADAPTIVE_RETRY_BUDGET_INITIAL: budget_initial must be <= budget_capacity (20.0), "
            "got 21.0",
        ),
        (
            AdaptiveRetryMiddleware,
            {"config": AdaptiveConfig(backoff_cap=1), "backoff_base": 2},
            "backoff_base must be <= backoff_cap (1), got 2",
        ),
        (
            AdaptiveStrategy,
            {"config": AdaptiveConfig(budget_initial=5), "budget_capacity": 3},
            "budget_capacity must be >= budget_initial (5), got 3",
        ),
    ],
    ids=range(10),
)
def test_a_contradiction_names_the_field_that_was_set(
    make: Any, given: dict[str, Any], text: str
) -> None:
    """The user is told of what the user has written, and sees what it contradicts."""
    with pytest.raises(ValueError, match=re.escape(text)):
        make(**given)


@pytest.mark.parametrize("name", sorted(SECONDS | SPANS))
def test_durations_are_seconds_or_timedeltas(name: str) -> None:
    """Both ways give equal configs; the numbers are kept in seconds, two fields as timedeltas."""
    span = timedelta(seconds=2.5)
    given: list[dict[str, Any]] = [{name: span}, {name: 2.5}]
    config, seconds = (AdaptiveConfig(**fields) for fields in given)
    assert config == seconds
    assert hash(config) == hash(seconds)
    assert getattr(config, name) == (span if name in SPANS else 2.5)
    assert dataclasses.replace(config) == config


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("max_retries", "max_attempts"),
        ("max_atempts", "max_attempts"),
        ("MAX_ATTEMPTS", "max_attempts"),
        ("max-attempts", "max_attempts"),
        ("retries", "max_attempts"),
        ("status_forcelist", "retry_statuses"),
        ("retry_status", "retry_statuses"),
        ("backoff", "backoff_cap"),
        ("timeout", "attempt_timeout"),
        ("window_sise", "window_size"),
        ("hold_caps", "hold_cap"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        AdaptiveConfig,
        AdaptiveConfig.batch,
        AdaptiveStrategy,
        AdaptiveRetryMiddleware,
        lambda **fields: AdaptiveConfig.from_mapping(fields),
        lambda **fields: AdaptiveConfig.from_env(
            "X_", {f"X_{name.upper()}": "1" for name in fields}
        ),
    ],
    ids=["config", "preset", "strategy", "middleware", "mapping", "env"],
)
def test_a_misspelt_field_is_answered_with_the_likely_one(
    make: Any, wrong: str, right: str
) -> None:
    """Wherever fields are given, also by the names that other libraries have for them."""
    if wrong == "MAX_ATTEMPTS" and make.__name__ == "<lambda>":
        wrong = "MAX_ATEMPTS"
    with pytest.raises(TypeError) as caught:
        make(**{wrong: 1})
    assert wrong.lower() in str(caught.value).lower()
    # "backoff" alone is part of two names.
    assert re.search(rf"did you mean '(X_)?({right}|backoff_base)'", str(caught.value), re.I)


def test_a_name_that_is_like_none_is_answered_with_none() -> None:
    """No guess is better than a wrong one."""
    with pytest.raises(TypeError, match=r"AdaptiveConfig has no field 'zzz'$"):
        AdaptiveConfig(zzz=1)  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"no argument or field 'meterprovider'; .*'meter_provider'"
    ):
        AdaptiveRetryMiddleware(meterprovider=1)  # type: ignore[call-arg]


def test_a_mapping_as_files_give_it() -> None:
    """TOML and JSON have lists, numbers and no durations; what is not there has its default."""
    toml = tomllib.loads("max_attempts = 3\nwindow_duration = 1800\nretry_methods = ['get']\n")
    assert AdaptiveConfig.from_mapping(toml) == AdaptiveConfig(
        max_attempts=3, window_duration=timedelta(minutes=30), retry_methods={"GET"}
    )
    text = '{"attempt_timeout": null, "retry_statuses": [503, 429], "admission": true}'
    assert AdaptiveConfig.from_mapping(json.loads(text)) == AdaptiveConfig(
        retry_statuses={503, 429}, admission=True
    )
    assert AdaptiveConfig.from_mapping({}) == AdaptiveConfig()
    # What a config has can be read again.
    config = AdaptiveConfig.batch(retry_for=90)
    assert AdaptiveConfig.from_mapping(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("mapping", "text"),
    [
        ([("max_attempts", 3)], "mapping must be a mapping of fields to values, got"),
        (None, "mapping must be a mapping"),
        ("max_attempts=3", "mapping must be a mapping"),
        ({1: 2}, "fields with text for names, got 1"),
        ({"max_attempts": "3"}, "max_attempts must be an int, got '3'"),
        ({"hold_cap": "12s"}, "hold_cap must be a number of seconds or a timedelta, got '12s'"),
        ({"max_attempts": 0}, "max_attempts must be >= 1, got 0"),
    ],
    ids=range(7),
)
def test_what_is_wrong_with_a_mapping_is_named(mapping: Any, text: str) -> None:
    """By field and value, as everywhere."""
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        AdaptiveConfig.from_mapping(mapping)


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of field can be set; the process's own environment is read when asked."""
    assert AdaptiveConfig.from_env(environ={"OTHER": "1", "ADAPTIVE_RETRY_HOLD_CAP": " "}) == (
        AdaptiveConfig()
    )
    environ = {
        "ADAPTIVE_RETRY_MAX_ATTEMPTS": " 3 ",
        "ADAPTIVE_RETRY_BACKOFF_CAP": "2.5",
        "ADAPTIVE_RETRY_WINDOW_DURATION": "60",
        "ADAPTIVE_RETRY_ADMISSION": "True",
        "ADAPTIVE_RETRY_ATTEMPT_SPANS": "off",
        "ADAPTIVE_RETRY_RETRY_METHODS": "get, Post",
        "ADAPTIVE_RETRY_RETRY_STATUSES": "500,503",
        "ADAPTIVE_RETRY_ATTEMPT_TIMEOUT": "none",
        "ADAPTIVE_RETRY_RETRY_FOR": "60",
    }
    wanted = AdaptiveConfig(
        max_attempts=3,
        backoff_cap=2.5,
        window_duration=60,
        admission=True,
        retry_methods={"GET", "POST"},
        retry_statuses={500, 503},
        retry_for=60,
    )
    assert AdaptiveConfig.from_env(environ=environ) == wanted
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert AdaptiveConfig.from_env() == wanted
    monkeypatch.setenv("SHOP_MAX_ATTEMPTS", "7")
    assert AdaptiveConfig.from_env("SHOP_").max_attempts == 7


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_can_be_set_by_the_environment(name: str) -> None:
    """In the form that its default has as a text."""
    value = getattr(AdaptiveConfig(), name)
    if name in SETS:
        text = ",".join(map(str, value))
    else:
        text = str(value.total_seconds() if isinstance(value, timedelta) else value)
    config = AdaptiveConfig.from_env("A_", {f"A_{name.upper()}": text})
    assert config == AdaptiveConfig()


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("MAX_ATTEMPTS", "five", "ADAPTIVE_RETRY_MAX_ATTEMPTS must be an int, got 'five'"),
        ("MAX_ATTEMPTS", "2.5", "ADAPTIVE_RETRY_MAX_ATTEMPTS must be an int, got '2.5'"),
        ("MAX_ATTEMPTS", "0", "ADAPTIVE_RETRY_MAX_ATTEMPTS: max_attempts must be >= 1, got 0"),
        ("HOLD_CAP", "nan", "ADAPTIVE_RETRY_HOLD_CAP: hold_cap must be finite, got nan"),
        ("HOLD_CAP", "12s", "ADAPTIVE_RETRY_HOLD_CAP must be a number, got '12s'"),
        ("ADMISSION", "maybe", "ADAPTIVE_RETRY_ADMISSION must be true or false, got 'maybe'"),
        ("RETRY_STATUSES", "5xx", "ADAPTIVE_RETRY_RETRY_STATUSES must be an int, got '5xx'"),
        ("RETRY_STATUSES", "42", "ADAPTIVE_RETRY_RETRY_STATUSES: retry_statuses must lie in"),
    ],
)
def test_what_is_wrong_in_the_environment_names_the_variable(
    variable: str, value: str, text: str
) -> None:
    """And its value."""
    with pytest.raises(ValueError, match=re.escape(text)):
        AdaptiveConfig.from_env(environ={f"ADAPTIVE_RETRY_{variable}": value})


def test_an_unknown_variable_keeps_its_value_to_itself() -> None:
    """Nobody knows what it is for, so it may be a secret."""
    with pytest.raises(TypeError) as caught:
        AdaptiveConfig.from_env(environ={"ADAPTIVE_RETRY_API_KEY": "s3cret"})
    assert "ADAPTIVE_RETRY_API_KEY sets no field" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    with pytest.raises(TypeError, match="prefix must be a str, got None"):
        AdaptiveConfig.from_env(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="environ must be a mapping"):
        AdaptiveConfig.from_env(environ=["A=1"])  # type: ignore[arg-type]
    # Without a prefix, what is not ours is not ours.
    assert AdaptiveConfig.from_env("", {"HOME": "/", "MAX_ATTEMPTS": "2"}).max_attempts == 2


def test_the_defaults_of_windows_and_clean_up() -> None:
    """The fields about windows and clean-up keep their names and their defaults."""
    config = AdaptiveConfig()
    assert config.window_size == 1000
    assert config.window_duration == timedelta(minutes=30)
    assert config.cleanup_frequency == 100
    assert config.cleanup_interval == timedelta(minutes=5)
    assert config.memory_threshold_mb == 100
    assert config.max_error_message_length == 200
    assert (config.max_attempts, config.max_origins, config.max_labelled_origins) == (5, 1024, 100)
    assert (config.max_error_type_length, config.pressure_window_size) == (64, 100)
    assert (config.attempt_timeout, config.memory_baseline_mb) == (None, None)
    assert (config.record_error_messages, config.admission) == (False, False)
    assert config.attempt_spans is False


def test_the_defaults_of_waits_and_budget() -> None:
    """A hundred processes that know nothing may add a hundred retries to an outage, and no more."""
    config = AdaptiveConfig()
    assert (config.backoff_base, config.backoff_cap, config.retry_after_cap) == (0.2, 5.0, 30.0)
    assert (config.hold_cap, config.hold_share) == (12.0, 0.25)
    assert (config.budget_capacity, config.budget_initial) == (20.0, 1.0)
    assert (config.budget_deposit, config.budget_floor) == (0.1, 0.0)


#: What each preset sets; all else is as it is by default.
PRESETS: dict[str, dict[str, Any]] = {
    "interactive": {
        "max_attempts": 3,
        "backoff_base": 0.1,
        "backoff_cap": 0.3,
        "retry_after_cap": 0.5,
        "hold_cap": 0.0,
    },
    "batch": {
        "max_attempts": 10,
        "backoff_cap": 20.0,
        "retry_after_cap": 300.0,
        "hold_cap": 60.0,
        "hold_share": 0.7,
    },
}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_sets_these_fields_and_no_others(preset: str) -> None:
    """It is a config like any other, equal to one that is written out."""
    config = getattr(AdaptiveConfig, preset)()
    assert type(config) is AdaptiveConfig
    assert config == AdaptiveConfig(**PRESETS[preset])
    assert config == getattr(AdaptiveConfig, preset)()
    assert config != AdaptiveConfig()


@pytest.mark.parametrize("preset", PRESETS)
def test_an_override_wins_over_a_preset(preset: str) -> None:
    """One of a field that the preset sets, and one of a field that it does not."""
    make = getattr(AdaptiveConfig, preset)
    config = make(max_attempts=4, attempt_timeout=2.0)
    assert (config.max_attempts, config.attempt_timeout) == (4, 2.0)
    assert dataclasses.replace(config, attempt_timeout=None) == AdaptiveConfig(
        **PRESETS[preset] | {"max_attempts": 4}
    )
    # Nothing of it is left for the next one.
    assert make() == AdaptiveConfig(**PRESETS[preset])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_wrong_override_of_a_preset_is_named(preset: str) -> None:
    """As it is where no preset is used."""
    make = getattr(AdaptiveConfig, preset)
    with pytest.raises(TypeError, match="max_atempts"):
        make(max_atempts=4)
    with pytest.raises(TypeError, match=r"hold_cap must be a number of seconds .*, got '1'"):
        make(hold_cap="1")
    with pytest.raises(ValueError, match="max_attempts must be >= 1, got 0"):
        make(max_attempts=0)
    with pytest.raises(TypeError):
        make(4)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_of_a_subclass_is_of_the_subclass(preset: str) -> None:
    """So that a config of one's own has the presets too."""

    class Mine(AdaptiveConfig):
        pass

    assert type(getattr(Mine, preset)()) is Mine


def test_it_is_a_frozen_value() -> None:
    """Equal configs are equal and hash alike; nothing changes one later."""
    methods = {"get"}
    config = AdaptiveConfig(retry_methods=methods)
    methods.add("POST")
    assert config.retry_methods == {"GET"}
    assert config == AdaptiveConfig(retry_methods=["GET"])
    assert hash(config) == hash(AdaptiveConfig(retry_methods=("get",)))
    assert config != AdaptiveConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.window_size = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        AdaptiveConfig(object())  # type: ignore[arg-type, call-arg]


def test_overrides_are_the_same_fields() -> None:
    """What type checkers accept as an override is what the config has, with the same types.

    A duration is accepted in seconds and as a timedelta.
    """
    overrides, fields = map(typing.get_type_hints, (ConfigOverrides, AdaptiveConfig))
    assert list(overrides) == list(fields)
    for name, hint in fields.items():
        wide = hint | float | timedelta if name in SECONDS | SPANS else hint
        assert overrides[name] == wide, name


def test_every_field_is_explained() -> None:
    """The docstring speaks of each field."""
    text = AdaptiveConfig.__doc__ or ""
    missing = [name for name in FIELDS if f"{name}:" not in text]
    assert missing == []


@pytest.mark.parametrize("made", [AdaptiveRetryMiddleware, AdaptiveStrategy])
def test_arguments_beside_the_config(made: Any) -> None:
    """A config or a callable of a wrong type is named too."""
    with pytest.raises(TypeError, match="config must be an AdaptiveConfig or None, got 5"):
        made(5)
    with pytest.raises(TypeError, match="clock must be callable, got 5"):
        made(clock=5)
    with pytest.raises(TypeError, match="random must be callable, got None"):
        made(random=None)
    with pytest.raises(TypeError, match="no_such_field"):
        made(no_such_field=1)


@pytest.mark.parametrize("made", [AdaptiveRetryMiddleware, AdaptiveStrategy])
def test_a_config_of_another_kind(made: Any) -> None:
    """What was probably meant is said, and a sleep that blocks the loop is no sleep."""
    with pytest.raises(
        TypeError, match=r"got \{'max_attempts': 3\}; .* AdaptiveConfig.from_mapping"
    ):
        made({"max_attempts": 3})
    with pytest.raises(TypeError, match=r"sleep must be awaitable, as asyncio\.sleep is"):
        made(sleep=time.sleep)
    with pytest.raises(TypeError, match="positional argument"):
        made(None, 5)


def test_middleware_overrides_go_on_top_of_a_config() -> None:
    """Given both, the override wins and is checked; without any the config is the one given."""
    config = AdaptiveConfig(window_size=5, max_attempts=2)
    assert AdaptiveRetryMiddleware(config).config is config
    retry = AdaptiveRetryMiddleware(config, max_attempts=3, attempt_timeout=timedelta(seconds=1))
    assert retry.config == dataclasses.replace(config, max_attempts=3, attempt_timeout=1.0)
    with pytest.raises(ValueError, match="window_size must be >= 1, got 0"):
        AdaptiveRetryMiddleware(window_size=0)


def test_sleep_and_provider() -> None:
    """The middleware checks its own two as well."""
    with pytest.raises(TypeError, match="sleep must be callable, got 1"):
        AdaptiveRetryMiddleware(sleep=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="meter_provider must be a MeterProvider or None, got 'x'"):
        AdaptiveRetryMiddleware(meter_provider="x")  # type: ignore[arg-type]


def test_strategy_overrides_go_on_top_of_a_config() -> None:
    """Given both, the override wins and is checked."""
    strategy = AdaptiveStrategy(AdaptiveConfig(window_size=5, max_attempts=2), window_size=7)
    assert (strategy.window_size, strategy.config.max_attempts) == (7, 2)
    with pytest.raises(ValueError, match="window_size must be >= 1, got 0"):
        AdaptiveStrategy(window_size=0)
