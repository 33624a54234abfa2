"""The trend test itself: it finds growth that matters, and takes nothing else for it."""

from __future__ import annotations

import random

import pytest

from benchmarks.soak.trend import trend


def noisy(seed: int, slope: float, noise: float = 1.0, count: int = 90) -> list[float]:
    """A line with noise, of which each value resembles the one before, as memory does."""
    rng = random.Random(seed)
    values, drift = [], 0.0
    for number in range(count):
        drift = 0.5 * drift + rng.gauss(0.0, noise)
        values.append(100.0 + slope * number + drift)
    return values


@pytest.mark.parametrize("seed", range(200))
def test_noise_is_no_growth(seed: int) -> None:
    """Two hundred flat series, none of which may raise an alarm with this seed."""
    assert not trend(noisy(seed, 0.0), least=1.0).grows


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_under_noise_is_found(seed: int) -> None:
    """Growth of five times the noise over the run, and its size to within a third."""
    found = trend(noisy(seed, 5.0 / 90), least=1.0)
    assert found.grows
    assert found.growth == pytest.approx(5.0, rel=0.5)


def test_a_jump_is_no_growth_and_steps_are() -> None:
    """An arena that is taken once is not what a leak looks like; one that is taken every ten is."""
    assert not trend([1.0] * 89 + [50.0], least=1.0).grows
    assert trend([float(n // 10) for n in range(90)], least=1.0).grows


def test_what_is_too_little_to_matter_is_none() -> None:
    """However sure it is."""
    found = trend([100.0 + 0.001 * n for n in range(90)], least=1.0)
    assert found.chance < 0.001
    assert not found.grows


def test_what_shrinks_does_not_grow() -> None:
    """The test has one side."""
    assert not trend([float(-n) for n in range(90)], least=0.0).grows


def test_too_few_samples_are_refused() -> None:
    """Nothing can be told from them."""
    with pytest.raises(ValueError, match="samples must be 16 or more, got 15"):
        trend([1.0] * 15, least=1.0)
