"""The public surface of `aiohttp_adaptive_retry.policy`: what users write policies against."""

from __future__ import annotations

import dataclasses
import inspect
import math
import random
import time
from datetime import timedelta
from typing import Any, get_args, get_type_hints

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig, policy
from aiohttp_adaptive_retry.policy import (
    REASONS,
    SEND,
    Action,
    AttemptOutcome,
    CallView,
    FixedPolicy,
    GiveUp,
    Policy,
    Reason,
    Send,
    Wait,
    make_adaptive_policy,
)

from .bench import View


def members(protocol: type) -> set[str]:
    """The methods and attributes of a Protocol."""
    names = {name for name in vars(protocol) if not name.startswith("_")}
    return names | set(vars(protocol).get("__annotations__", {}))


def test_the_exported_names() -> None:
    """These, and nothing else, are public."""
    assert set(policy.__all__) == {
        "REASONS",
        "SEND",
        "Action",
        "AttemptOutcome",
        "CallView",
        "FixedPolicy",
        "GiveUp",
        "Policy",
        "Reason",
        "Send",
        "Wait",
        "make_adaptive_policy",
    }
    assert all(hasattr(policy, name) for name in policy.__all__)


def test_the_fields_of_an_outcome() -> None:
    """Names, order and defaults, as a user's own driver writes them."""
    assert AttemptOutcome._fields == (
        "ok",
        "error_type",
        "latency",
        "no_response",
        "overload",
        "limited",
        "retry_after",
        "reused_connection",
        "replayable",
        "can_wait",
    )
    latency = AttemptOutcome._field_defaults["latency"]
    assert math.isnan(latency)
    assert AttemptOutcome(True, latency=0.0) == (
        True,
        "",
        0.0,
        False,
        False,
        False,
        None,
        False,
        True,
        True,
    )
    assert "ok" not in AttemptOutcome._field_defaults


def test_what_a_policy_sees_of_a_call() -> None:
    """Four attributes; only `state` is the policy's to write."""
    assert members(CallView) == {"attempts", "started", "deadline", "state"}
    for name in ("attempts", "started", "deadline"):
        attribute = inspect.getattr_static(CallView, name)
        assert isinstance(attribute, property)
        assert attribute.fset is None


def test_what_a_policy_is_asked() -> None:
    """Four methods, with these parameters in this order."""
    assert members(Policy) == {"arrive", "outcome", "wake", "cancel"}
    for name in ("arrive", "wake", "cancel"):
        assert list(inspect.signature(getattr(Policy, name)).parameters) == ["self", "now", "call"]
    parameters = list(inspect.signature(Policy.outcome).parameters)
    assert parameters == ["self", "now", "call", "outcome"]
    assert get_type_hints(Policy.cancel)["return"] is type(None)


def test_what_a_policy_may_answer() -> None:
    """Three frozen values, equal to their equals."""
    assert set(get_args(Action)) == {Send, Wait, GiveUp}
    assert Send() == SEND
    assert [f.name for f in dataclasses.fields(Send)] == []
    assert [(f.name, f.default) for f in dataclasses.fields(Wait)] == [
        ("seconds", dataclasses.MISSING),
        ("committed", False),
    ]
    assert [f.name for f in dataclasses.fields(GiveUp)] == ["reason"]
    assert Wait(1.0) == Wait(1.0) != Wait(1.0, committed=True)
    assert GiveUp("deadline") == GiveUp("deadline") != GiveUp("limited")
    for action, name in ((Wait(1.0), "seconds"), (GiveUp("limited"), "reason")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(action, name, "other")
        assert hash(action) == hash(dataclasses.replace(action))
        assert not hasattr(action, "__dict__")


def test_the_reasons() -> None:
    """They are labels of metrics, so they are pinned."""
    assert get_args(Reason) == REASONS
    assert set(REASONS) == {
        "not_idempotent",
        "max_attempts",
        "not_retryable",
        "body_not_replayable",
        "memory_pressure",
        "retry_after",
        "limited",
        "congested",
        "unpromising",
        "origin_down",
        "deadline",
        "budget_exhausted",
    }


def test_the_fixed_policy_waits_growing_spans_and_stops() -> None:
    """Three attempts by default; all that it reads of a call is what a `CallView` has."""
    fixed = FixedPolicy(random=lambda: 1.0)
    call, failed = View(), AttemptOutcome(False, "503")
    assert fixed.arrive(0.0, call) is SEND
    actions = []
    for call.attempts in (1, 2, 3):
        actions.append(fixed.outcome(0.0, call, failed))
    *waits, end = actions
    assert end == GiveUp("max_attempts")
    assert [wait.committed for wait in waits if isinstance(wait, Wait)] == [True, True]
    assert [wait.seconds for wait in waits if isinstance(wait, Wait)] == pytest.approx([0.2, 0.6])
    assert fixed.wake(0.0, call) is SEND
    fixed.cancel(0.0, call)
    assert call.state is None


def test_the_fixed_policy_waits_as_long_as_the_server_asks() -> None:
    """At least that long, and never less than its own span."""
    fixed, call = FixedPolicy(random=lambda: 1.0), View(attempts=1)
    assert fixed.outcome(0.0, call, AttemptOutcome(False, retry_after=7.0)) == Wait(7.0, True)
    assert fixed.outcome(0.0, call, AttemptOutcome(False, retry_after=0.1)) == Wait(0.2, True)


def test_the_fixed_policy_leaves_alone_what_cannot_be_sent_again() -> None:
    """A success needs nothing more, and a request that can't be replayed gets nothing more."""
    fixed, call = FixedPolicy(), View(attempts=1)
    assert fixed.outcome(0.0, call, AttemptOutcome(True)) is SEND
    assert fixed.outcome(0.0, call, AttemptOutcome(False, replayable=False)) == GiveUp(
        "not_retryable"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"attempts": 0}, r"^attempts must be >= 1, got 0$"),
        ({"attempts": -3}, r"^attempts must be >= 1, got -3$"),
        ({"base": 0.0}, r"^base must be > 0 and <= cap \(5.0\), got 0.0$"),
        ({"base": -1.0}, r"^base must be > 0 and <= cap \(5.0\), got -1.0$"),
        ({"base": math.nan}, r"^base must be > 0 and <= cap \(5.0\), got nan$"),
        ({"base": 6.0}, r"^base must be > 0 and <= cap \(5.0\), got 6.0$"),
        ({"cap": 0.1}, r"^base must be > 0 and <= cap \(0.1\), got 0.2$"),
        ({"cap": math.nan}, r"^base must be > 0 and <= cap \(nan\), got 0.2$"),
    ],
)
def test_the_fixed_policy_refuses_contradictions(arguments: dict[str, Any], text: str) -> None:
    """Where it is made, with the argument and its value named."""
    with pytest.raises(ValueError, match=text):
        FixedPolicy(**arguments)


def test_the_fixed_policys_spans_are_seconds_or_timedeltas() -> None:
    """The waits are the same; what is neither is named."""
    outcome = AttemptOutcome(False, "500")
    waits = [
        FixedPolicy(base=base, cap=cap, random=lambda: 1.0).outcome(0.0, View(attempts=1), outcome)
        for base, cap in ((2, 4), (timedelta(seconds=2), timedelta(seconds=4)))
    ]
    assert waits[0] == waits[1] == Wait(2.0, committed=True)
    for wrong in ("1", True, None):
        arguments: Any = {"base": wrong}
        with pytest.raises(TypeError, match=f"base must be a number of seconds or a t.*{wrong!r}"):
            FixedPolicy(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"attempts": math.nan},
        {"attempts": 2.5},
        {"attempts": True},
        {"base": math.inf, "cap": math.inf},
    ],
    ids=repr,
)
def test_the_fixed_policy_refuses_what_is_no_number_of_attempts_or_seconds(
    arguments: dict[str, Any],
) -> None:
    """Neither a number of attempts that is not whole, nor a wait without an end."""
    with pytest.raises((TypeError, ValueError)):
        FixedPolicy(**arguments)


def test_making_the_adaptive_policy_with_the_defaults() -> None:
    """Neither configuration, clock nor chance has to be given."""
    parameters = inspect.signature(make_adaptive_policy).parameters
    assert list(parameters) == ["config", "clock", "random"]
    assert parameters["config"].default is None
    assert parameters["clock"].default is time.monotonic
    assert parameters["random"].default is random.random
    assert {parameters[name].kind for name in ("clock", "random")} == {
        inspect.Parameter.KEYWORD_ONLY
    }
    made: Policy = make_adaptive_policy()
    assert made.arrive(0.0, View()) is SEND


def test_making_the_adaptive_policy_with_a_clock_and_chance() -> None:
    """The budget counts from the clock's reading, and waits are where chance says."""
    config = AdaptiveConfig(budget_initial=1, budget_floor=1.0)
    made = make_adaptive_policy(config, clock=lambda: 100.0, random=lambda: 0.25)
    assert made.tokens_at(100.0, 0) == 1.0
    assert made.tokens_at(102.0, 0) == 3.0
    assert made.capacity == config.budget_capacity
    failed = AttemptOutcome(False, "500")
    assert made.outcome(100.0, View(attempts=1), failed) == Wait(0.05, committed=True)


def test_the_configuration_decides_about_first_attempts() -> None:
    """Only with `admission=True` is a first attempt held where an origin is down."""
    for admission in (False, True):
        made = make_adaptive_policy(AdaptiveConfig(admission=admission), clock=lambda: 0.0)
        for _ in range(5):
            made.outcome(0.0, View(attempts=1), AttemptOutcome(False, "500"))
        assert made.state(0.0) == "down"
        # The first one probes.
        assert made.arrive(0.0, View()) is SEND
        assert isinstance(made.arrive(0.0, View()), Wait) is admission
