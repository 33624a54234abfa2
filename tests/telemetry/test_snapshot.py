"""A snapshot is a value: frozen, readable, nothing secret in it, and right at its moment."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, CallView, FixedPolicy, GiveUp

from ..kit.fakes import ORIGIN, Rig, Step


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


async def test_reasons_are_counted_for_each_origin() -> None:
    """The origins' counts add up to the totals; an origin without trouble has none."""
    rig = Rig([503, 503, 200], max_attempts=1)
    await rig.call(URL("http://a.example/"))
    await rig.call(URL("http://b.example/"), method="POST")
    await rig.call(URL("http://c.example/"))
    snapshot = rig.middleware.snapshot()
    assert {origin.host: origin.suppressed for origin in snapshot.origins} == {
        "a.example": {"max_attempts": 1},
        "b.example": {"not_idempotent": 1},
        "c.example": {},
    }
    assert snapshot.suppressed == {"max_attempts": 1, "not_idempotent": 1}


async def test_words_of_a_users_policy_are_bounded_in_number() -> None:
    """A policy that makes up a reason for each call fills no memory."""
    words = (f"word {number}" for number in range(10**6))

    class Talkative(FixedPolicy):
        def outcome(self, now: float, call: CallView, outcome: AttemptOutcome) -> Action:
            return GiveUp(next(words))

    rig = Rig([503])
    rig.middleware = AdaptiveRetryMiddleware(
        policy=lambda origin: Talkative(), meter_provider=rig.provider
    )
    for _ in range(30):
        await rig.call()
    (origin,) = rig.middleware.snapshot().origins
    assert origin.suppressed == {"_OTHER": 30}


async def test_the_newest_texts_of_errors_are_there_if_they_are_recorded() -> None:
    """Oldest first, without what is secret in them, until they expire; nothing by default."""
    errors = [aiohttp.ClientOSError(f"no way to http://u:p@h.example/secret?n={n}") for n in (1, 2)]
    rig = Rig(
        errors, max_attempts=2, record_error_messages=True, window_duration=timedelta(seconds=10)
    )
    with pytest.raises(aiohttp.ClientOSError):
        await rig.call()
    (origin,) = rig.middleware.snapshot().origins
    assert origin.error_messages == ("no way to http://h.example",) * 2
    rig.clock.now += 11.0
    assert rig.middleware.snapshot().origins[0].error_messages == ()
    silent = Rig(errors, max_attempts=1)
    with pytest.raises(aiohttp.ClientOSError):
        await silent.call()
    assert silent.middleware.snapshot().origins[0].error_messages == ()


async def test_an_origin_is_not_healthy_while_its_calls_are_held() -> None:
    """In no moment of an outage, of whatever kind; the gauge says the same as the snapshot."""
    kinds: list[Step] = [
        aiohttp.ServerTimeoutError(),
        refused(),
        aiohttp.ServerDisconnectedError(),
        503,
    ]
    seen: list[tuple[str, int, list[str]]] = []
    for kind in kinds:
        for successes in (0, 50):
            rig = Rig([200] * successes + [kind])
            for _ in range(successes):
                await rig.call()

            async def look(rig: Rig = rig) -> None:
                # What is raised here would count as a fault of the sleep.
                (origin,) = rig.middleware.snapshot().origins
                states = rig.metrics()["adaptive_retry.origin.state"].items()
                shown = [dict(key)["adaptive_retry.state"] for key, count in states if count]
                seen.append((origin.state, origin.held, shown))

            rig.clock.meanwhile = look
            for _ in range(6):
                with suppress(aiohttp.ClientError):
                    await rig.call()
    assert sum(held for _, held, _ in seen) > 10
    assert [state for state, held, _ in seen if held and state == "healthy"] == []
    assert all(shown == [state] for state, _, shown in seen)


def refused() -> aiohttp.ClientConnectorError:
    """A connection that nobody accepted."""
    key = ConnectionKey("h", 80, False, True, None, None, None)
    return aiohttp.ClientConnectorError(key, OSError(111, "refused"))
