"""What each constant of the policy is for: what it changes, and in which direction."""

from __future__ import annotations

import dataclasses

import pytest

from aiohttp_adaptive_retry._policy.tuning import TUNING, Tuning

from . import measures_learnt
from .bench import Bench
from .measures import SHOWN

#: Other values than half and double, where those would make no sense.
VALUES: dict[str, tuple[float, float]] = {"mending_memory": (0.9, 0.98)}

# Its measures are entered when it is imported.
assert measures_learnt


@pytest.mark.parametrize("name", SHOWN)
def test_a_constant_is_for_something(name: str) -> None:
    """Half of it and twice as much change what it is for, in the direction that is said."""
    measure, direction = SHOWN[name]
    value = getattr(TUNING, name)
    low, high = VALUES.get(name, (value / 2, value * 2))
    changed: list[float] = []
    for other in (low, value, high):
        tuning = dataclasses.replace(TUNING, **{name: type(value)(other)})
        changed.append(direction * measure(tuning))
    assert changed == sorted(changed), (low, value, high)
    assert changed[0] < changed[2]


def test_every_constant_is_shown() -> None:
    """A constant of which nobody knows what it is for goes."""
    assert set(SHOWN) == {field.name for field in dataclasses.fields(Tuning)}


def test_nobody_changes_a_constant_at_run_time() -> None:
    """The constants are frozen, and one object serves all policies."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        TUNING.lost = 1.0  # type: ignore[misc]
    assert Bench().policy._tuning is Bench({"admission": True}).policy._tuning is TUNING
