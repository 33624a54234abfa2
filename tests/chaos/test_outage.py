"""A thousand calls at a time through an outage and back, with the loop's debug mode on."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable

import pytest
from aiohttp import ClientRequest, ClientResponse

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._call import Call

from ..kit.waiting import until
from .crowd import Crowd, SlowCallbacks

THOUSAND = 1000
#: Seconds for which the server is away, once all calls have met that.
AWAY = 0.5
#: Seconds of the processor in one step that would be felt.
LONG = 0.1


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, object], None]:
    """Put a figure into the report: for people, and with `-rP` on the terminal."""

    def note(name: str, value: object) -> None:
        request.node.user_properties.append((name, value))
        sys.stdout.write(f"{name}: {value}\n")

    return note


def _blocks(crowd: Crowd) -> int:
    crowd.forget()
    gc.collect()
    return sys.getallocatedblocks()


async def test_a_thousand_calls_through_an_outage_and_back(
    record: Callable[[str, object], None],
) -> None:
    """Held calls ask nothing of a server that is away. They come back no faster than the server
    is seen to cope. All of them end, nothing of them stays, and the loop never stops.
    """
    # Longer than the default, since a slow machine must not end the holds.
    config = AdaptiveConfig(hold_cap=35.0, hold_share=0.5)
    # Objects that other tests left are not judged here. They are kept alive, so that no new object
    # gets one of their identities.
    gc.collect()
    earlier = {id(thing): thing for thing in gc.get_objects() if isinstance(thing, _OF_A_CALL)}
    async with Crowd(config) as crowd:
        with SlowCallbacks() as slow, crowd.meter:
            assert await _all(crowd) == {200: THOUSAND}
            retry = crowd.retry
            (origin,) = retry.snapshot().origins
            before = _blocks(crowd)

            # Away.
            crowd.begin(up=False)
            calls = [asyncio.create_task(crowd.call()) for _ in range(THOUSAND)]
            await _until_all_have_asked(crowd)
            await asyncio.sleep(AWAY)
            peak = _blocks(crowd)
            (down,) = retry.snapshot().origins
            ended = sum(call.done() for call in calls)
            assert down.state == "down"
            assert down.held > THOUSAND / 2
            assert down.in_flight == THOUSAND - ended
            # Each call has asked once, and what the budget had is all that was asked beyond that.
            assert sum(crowd.arrivals.values()) == THOUSAND + crowd.retries
            assert crowd.retries <= origin.budget_available + config.budget_floor * crowd.elapsed
            away = crowd.retries

            # Back. Held calls hear of it from a call that is not held.
            crowd.begin(up=True)
            assert await crowd.call() == 200
            others = asyncio.create_task(_others(crowd))
            ends = await asyncio.gather(*calls)
            others.cancel()
            await asyncio.wait([others])

        mended = sum(end == 200 for end in ends)
        assert set(ends) <= {200, "ClientConnectorError"}
        assert mended > THOUSAND / 2
        assert crowd.retries >= mended - away
        assert crowd.unlawful == []

        # Nothing stays.
        del calls, ends, others
        await asyncio.sleep(0)
        (origin,) = retry.snapshot().origins
        assert (origin.in_flight, origin.held) == (0, 0)
        assert retry.snapshot().faults == 0
        after = _blocks(crowd)
        left = [
            thing
            for thing in gc.get_objects()
            if isinstance(thing, _OF_A_CALL) and id(thing) not in earlier
        ]
        assert left == []
        assert after - before < (peak - before) / 10

        # Nobody was stopped: of what our own code did, no step took long by the processor's time.
        assert crowd.meter.steps > 3 * THOUSAND
        assert crowd.meter.longest < LONG
        record("callbacks over 100 ms, by anybody", len(slow.texts))
        record("our longest step, ms of processor", round(1e3 * crowd.meter.longest, 3))
        record("our steps", crowd.meter.steps)
        record("ours, s of processor", round(crowd.meter.total, 3))
        record("retries while away", away)
        record("mended", mended)
        record("attempts each 100 ms after", sorted(crowd.arrivals.items()))
        record("blocks before, held, after", (before, peak, after))


_OF_A_CALL = (ClientRequest, ClientResponse, Call)


async def _all(crowd: Crowd) -> dict[int | str, int]:
    ends = await asyncio.gather(*(crowd.call() for _ in range(THOUSAND)))
    return {end: ends.count(end) for end in set(ends)}


async def _until_all_have_asked(crowd: Crowd) -> None:
    await until(lambda: len(crowd.retry.snapshot().failures) > 0)
    await until(lambda: sum(crowd.retry.snapshot().failures.values()) >= THOUSAND)


async def _others(crowd: Crowd) -> None:
    """Somebody who calls now and then."""
    while True:
        await crowd.call()
        await asyncio.sleep(0.02)
