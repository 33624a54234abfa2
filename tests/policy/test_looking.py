"""Laws about outages, through the driver that ships: who looks, who waits, and for how long."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._policy.tuning import TUNING
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, Wait

from .bench import ANSWERED, OVERLOADED, REFUSED, TIMED_OUT, Bench
from .crowd import Crowd, refuses
from .driving import Call, tuned


@settings(max_examples=150, deadline=None)
@given(
    gaps=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=120),
    times=st.lists(st.none() | st.floats(0.1, 90.0), min_size=1, max_size=5),
    late=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=7),
    kinds=st.lists(st.sampled_from([REFUSED, ANSWERED, OVERLOADED]), min_size=1, max_size=4),
    hold_cap=st.sampled_from([0.0, 12.0, 60.0]),
    chance=st.integers(0, 2**32),
)
def test_looks_are_few_however_many_call(
    gaps: list[float],
    times: list[float | None],
    late: list[float],
    kinds: list[AttemptOutcome],
    hold_cap: float,
    chance: int,
) -> None:
    """Free retries to an origin that is away: at most 3 + log3(age / 0.4) after the first one.

    Whenever calls come, however late they wake, and whatever they have for time.
    """
    source, number = random.Random(chance), 0

    def origin(now: float) -> tuple[AttemptOutcome, float]:
        return source.choice(kinds), 0.001

    crowd = Crowd(
        origin,
        # Nobody is taken for a caller who waits, whatever the gaps look like.
        tuned(replace(TUNING, serial_surprise=1e9)),
        late=lambda: source.choice(late),
        chance=source.random,
        hold_cap=hold_cap,
        hold_share=0.7,
    )
    began = when = crowd.clock.now
    for number, gap in enumerate(gaps):
        crowd.call(when, times[number % len(times)])
        when += gap
    crowd.run()
    crowd.assert_nothing_left()
    looks = [sent.at for sent in crowd.retries if not sent.price]
    for count, at in enumerate(looks):
        age = at - began
        assert count <= 3 + max(0.0, math.log(age / TUNING.look_least, 1 + TUNING.look_growth))


def test_a_thousand_clients_that_start_in_an_outage_add_a_retry_and_a_few_looks_each() -> None:
    """At ten calls a second for a minute: each client sends one paid retry, and five free ones."""
    for seed in range(5):
        source = random.Random(seed)
        crowd = Crowd(refuses(0.0, math.inf), chance=source.random)
        when = 1000.0
        for _ in range(600):
            when += source.expovariate(10.0)
            crowd.call(when, 5.0)
        crowd.run()
        assert sum(1 for sent in crowd.retries if sent.price) <= 1
        assert sum(1 for sent in crowd.retries if not sent.price) <= 5
        assert not crowd.adaptive.callers.wait


@settings(max_examples=100, deadline=None)
@given(chances=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=20))
@pytest.mark.parametrize("away", [0.05, 0.3, 1.0])
def test_a_lone_caller_with_three_seconds_is_mended(away: float, chances: list[float]) -> None:
    """Whatever the jitter: refused for 0.3 or 1 s, it succeeds; its first retry comes at once."""
    crowd = Crowd(refuses(0.0, 1000.0 + away), chance=iter_of(chances))
    crowd.call(1000.0, 3.0)
    crowd.run()
    assert [why for _, why in crowd.ended.values()] == [""]
    config = AdaptiveConfig()
    assert crowd.retries[0].at <= 1000.001 + config.backoff_base
    assert len(crowd.retries) < config.max_attempts
    crowd.assert_nothing_left()


def iter_of(numbers: list[float]) -> Callable[[], float]:
    """A source that gives these numbers, again and again."""
    left: list[float] = []

    def source() -> float:
        if not left:
            left.extend(reversed(numbers))
        return left.pop()

    return source


@settings(max_examples=200, deadline=None)
@given(
    starts=st.lists(st.floats(0.0, 0.2), min_size=1, max_size=50),
    time=st.floats(1.0, 50.0),
    kind=st.sampled_from([REFUSED, ANSWERED]),
    known=st.booleans(),
    rate=st.sampled_from([0.1, 1.0, 20.0]),
    chance=st.integers(0, 2**32),
)
def test_of_those_who_are_held_one_is_sent(
    starts: list[float], time: float, kind: AttemptOutcome, known: bool, rate: float, chance: int
) -> None:
    """Nobody waits for news that nobody brings: a retry is sent well before the deadline.

    All calls in flight fail at about the same time, and nobody calls after them.
    """
    source = random.Random(chance)
    crowd = Crowd(
        lambda now: (AttemptOutcome(True), 0.02) if now < 1000.0 else (kind, 0.001),
        chance=source.random,
        # No token is there for a retry that would be sent without a look.
        budget_initial=0.0,
        budget_deposit=0.0,
    )
    crowd.clock.now = 0.0
    if known:
        for number in range(40):
            crowd.call(1000.0 - (number + 1) / rate)
    crowd.run()
    crowd.clock.now = 1000.0
    # Enough failures for an outage, of calls that can't be sent again.
    for _ in range(14):
        crowd.outcome(crowd.sent(), kind._replace(replayable=False))
    for start in starts:
        crowd.call(1000.0 + start, time)
    crowd.run()
    crowd.assert_nothing_left()
    assert crowd.retries
    assert crowd.retries[0].at <= 1000.201 + TUNING.look_share * time


@settings(max_examples=150, deadline=None)
@given(
    rate=st.floats(0.1, 100.0),
    time=st.none() | st.floats(0.1, 400.0),
    back=st.floats(0.01, 30.0),
    fields=st.sampled_from([{}, {"hold_cap": 3.0}, {"hold_share": 0.8, "hold_cap": 60.0}]),
    chance=st.integers(0, 2**32),
)
def test_no_call_is_held_beyond_its_share(
    rate: float, time: float | None, back: float, fields: dict[str, Any], chance: int
) -> None:
    """`hold_share` of its time, and `hold_cap`; longer only for its turn or its own look."""
    source = random.Random(chance)
    held_until: dict[Call, float] = {}

    class Watched(Crowd):
        def _go(self, call: Call, action: Action) -> None:
            if isinstance(action, Wait) and not action.committed:
                outage, state = self.adaptive.outage, call.state
                is_back = not outage.streak and outage.last_success >= state.failed_at
                alone = outage.last_known <= state.failed_at
                until = self.clock.now + action.seconds
                if not is_back and not alone:
                    held_until[call] = until - call.started
                # A look may come half a pause late.
                assert until <= state.look_until + TUNING.poll_most or until <= state.hold_until
            super()._go(call, action)

    crowd = Watched(refuses(1001.0, 1001.0 + back), chance=source.random, **fields)
    when = 1000.0
    while when < 1001.0 + back + 1.0 and len(crowd._events) < 300:
        crowd.call(when, time)
        when += source.expovariate(rate)
    crowd.run()
    crowd.assert_nothing_left()
    config = crowd.config
    longest = min(config.hold_cap, config.hold_share * (math.inf if time is None else time))
    if time is None or time > TUNING.told_most:
        longest = min(config.hold_cap, TUNING.untold_hold, config.hold_share * TUNING.untold)
    assert all(held <= longest + 0.002 for held in held_until.values())


@pytest.mark.parametrize("serial", [True, False])
@pytest.mark.parametrize(
    "failure", [REFUSED, ANSWERED, OVERLOADED, TIMED_OUT], ids=lambda failure: failure.error_type
)
def test_nobody_waits_longer_than_the_longest_backoff_where_nothing_is_held(
    serial: bool, failure: AttemptOutcome
) -> None:
    """With `hold_cap=0` a call looks soon or not at all, also while others' looks lie ahead."""
    bench = Bench({"backoff_base": 0.1, "backoff_cap": 0.3, "hold_cap": 0.0})
    if serial:
        bench.serial()
    actions = []
    for _ in range(10):
        bench.lose(failure)
        actions += [bench.fail(failure, bench.view(2.4)) for _ in range(10)]
        bench.clock.now += 0.1
    waits = [action.seconds for action in actions if isinstance(action, Wait)]
    assert waits or failure is TIMED_OUT
    assert all(seconds <= 0.3 for seconds in waits)
