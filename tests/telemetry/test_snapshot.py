"""A snapshot is a value: frozen, readable, nothing secret in it, and right at its moment."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ..kit.fakes import ORIGIN, Rig


async def test_snapshot_is_a_frozen_readable_value() -> None:
    """It can be printed, compared and hashed, and says nothing of paths and queries."""
    rig = Rig([503, 200])
    await rig.call(ORIGIN / "private" / "path" % {"token": "s3cr3t"})
    snapshot = rig.middleware.snapshot()
    assert "retry_success=1" in repr(snapshot)
    assert "upstream.example" in repr(snapshot)
    assert "private" not in repr(snapshot)
    assert "s3cr3t" not in repr(snapshot)
    assert snapshot == rig.middleware.snapshot()
    assert hash(snapshot) == hash(rig.middleware.snapshot())
    with pytest.raises(AttributeError):
        snapshot.faults = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        snapshot.failures["503"] = 2  # type: ignore[index]


async def test_what_has_expired_is_in_the_length_or_among_the_evicted() -> None:
    """In a snapshot at any moment, both together are the attempts recorded."""
    rig = Rig(window_duration=timedelta(seconds=10), cleanup_frequency=10**6)
    for calls in range(1, 60):
        await rig.call()
        rig.clock.now += 0.7
        for _ in range(2):
            snapshot = rig.middleware.snapshot()
            length = snapshot.origins[0].window_length
            assert length <= 15
            assert length + sum(snapshot.evicted.values()) == calls
            rig.clock.now += 0.1
    metrics = rig.metrics()
    length = sum(metrics["adaptive_retry.window.length"].values())
    assert length + sum(metrics["adaptive_retry.window.evicted"].values()) == 59
