"""Laws of the adaptive policy, through the driver that ships, whatever calls and outcomes come."""

from __future__ import annotations

import math
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry._policy.cost import RetryFlow
from aiohttp_adaptive_retry._policy.state import CallState
from aiohttp_adaptive_retry._policy.tuning import TUNING
from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, Send, Wait

from .bench import ANSWERED, OVERLOADED, REFUSED, TIMED_OUT, View, limited
from .crowd import Crowd
from .driving import Call, Driving, adaptive

FAILURES = [
    REFUSED,
    TIMED_OUT,
    ANSWERED,
    OVERLOADED,
    limited(),
    limited(2.0),
    OVERLOADED._replace(limited=True, retry_after=1.0),
    REFUSED._replace(reused_connection=True),
]

# What retries may waste.


class Counting(RetryFlow):
    """Counts what comes in: by successes, and by the token that the end of an outage leaves."""

    __slots__ = ("earned", "left")
    earned: float
    left: float

    def earn(self, successes: int = 1) -> None:
        self.earned += self.share * successes
        super().earn(successes)


def counted(driving: Driving) -> Counting:
    """Put a flow that counts in the place of the policy's."""
    flow = driving.adaptive._flow = Counting(driving.config, driving.clock.now, TUNING)
    flow.earned = flow.left = 0.0
    return flow


STEPS = st.tuples(
    st.sampled_from(["go"] * 6 + ["ok"] * 3 + ["cancel", "pass", "fast"]),
    st.integers(0, 11),
    st.builds(
        lambda outcome, latency, can_wait, replayable: outcome._replace(
            latency=latency, can_wait=can_wait, replayable=replayable
        ),
        st.sampled_from(FAILURES),
        st.floats(0.0, 3.0),
        st.booleans(),
        st.sampled_from([True] * 9 + [False]),
    ),
    st.floats(0.0, 3.0),
    st.none() | st.floats(0.05, 90.0),
    st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(STEPS, max_size=150),
    admission=st.booleans(),
    initial=st.floats(0.0, 5.0),
    floor=st.sampled_from([0.0, 0.05]),
    chance=st.floats(0.0, 1.0),
)
def test_what_retries_waste_is_bounded_by_what_successes_earned(
    steps: list[tuple[str, int, AttemptOutcome, float, float | None, bool]],
    admission: bool,
    initial: float,
    floor: float,
    chance: float,
) -> None:
    """Paid retries that failed, those under way, and what is left never exceed what came in.

    That are the initial tokens, the share of each success, the floor's, and at most one token for
    each time that two failures in a row ended. A retry of another layer is paid too.
    """
    driving = Driving(
        adaptive,
        chance=chance,
        admission=admission,
        budget_initial=initial,
        budget_floor=floor,
        max_attempts=9,
    )
    flow, policy, clock = counted(driving), driving.adaptive, driving.clock
    calls: dict[int, tuple[Call, Action]] = {}
    wasted = 0.0

    def price(call: Call) -> float:
        return call.state.paid if isinstance(call.state, CallState) else 0.0

    for step, number, failure, seconds, time, is_resend in steps:
        before, ended = flow.tokens, policy.outage.streak >= 2.0
        call, action = calls.get(number, (None, None))
        outcome = AttemptOutcome(True, latency=seconds) if step == "ok" else failure
        if step == "pass":
            clock.now += seconds
        elif step == "fast":
            driving.origin.begun += 1
            driving.driver.first_success(clock.now, driving.origin, seconds)
        elif call is None:
            call, action = driving.begin(time)
            call.is_resend = is_resend and isinstance(action, Send)
            calls[number] = call, action
        elif step == "cancel":
            driving.cancel(call)
            del calls[number]
        elif isinstance(action, Wait):
            clock.now += action.seconds
            calls[number] = call, driving.wake(call)
        else:
            first, spent = call.state is None, price(call)
            calls[number] = call, driving.outcome(call, outcome)
            if not outcome.ok and not outcome.reused_connection:
                wasted += spent
                if first and call.is_resend:
                    wasted += max(0.0, before - flow.tokens - price(call))
        if (step == "fast" or outcome.ok) and ended and policy.outage.streak < 2.0:
            flow.left += 1.0
        calls = {number: pair for number, pair in calls.items() if not pair[0].ended}
        reserved = sum(price(call) for call, _ in calls.values())
        allowed = initial + flow.earned + flow.left + floor * (clock.now - 1000.0)
        balance = flow.balance(clock.now)
        assert reserved + wasted + balance <= allowed + 1e-6
        assert 0.0 <= balance <= flow.capacity
        assert TUNING.share_least <= flow.share <= TUNING.share_most
        for call, action in calls.values():
            # A committed retry has its tokens before its wait, unless it is free.
            assert not price(call) or not (isinstance(action, Wait) and not action.committed)
    before, reserved = flow.tokens, sum(price(call) for call, _ in calls.values())
    for call, _ in calls.values():
        driving.cancel(call)
    assert flow.tokens == pytest.approx(min(flow.capacity, before + reserved))
    assert policy.parked_calls == policy.callers.pending == 0
    assert driving.faults.count == 0


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("failing", [0.05, 0.3])
def test_an_origin_that_fails_at_random_gets_a_small_share_of_retries_in_vain(
    share: float, failing: float
) -> None:
    """Errors of which retries mend none cost a few tokens, and hardly more over an hour."""
    chance = random.Random(1)
    bad = set[int]()

    def origin(now: float) -> tuple[AttemptOutcome, float]:
        fails = chance.random() < failing or int(now * 1000) in bad
        return (ANSWERED if fails else AttemptOutcome(True)), 0.02

    crowd = Crowd(origin, budget_deposit=share, chance=chance.random)
    for number in range(3000):
        crowd.call(1000.0 + 0.1 * number, 10.0)
    crowd.run()
    crowd.assert_nothing_left()
    failed = sum(1 for _, why in crowd.ended.values() if why)
    assert len(crowd.retries) <= 3000 * failing * 1.6
    assert failed <= 3000 * failing * max(0.1, failing) * 3


def test_errors_that_never_mend_stop_being_retried_and_are_tried_now_and_then() -> None:
    """Of thousands of bad requests a few per cent are retried; others are mended as ever."""
    chance = random.Random(2)
    kinds = {0: ANSWERED, 1: ANSWERED._replace(error_type="502")}
    hopeless = set[Call]()

    class Mixed(Crowd):
        def _known(self, call: Call, outcome: AttemptOutcome) -> None:
            if call in hopeless:
                outcome = kinds[0]._replace(latency=0.02)
            elif call.attempts == 1 and chance.random() < 0.05:
                outcome = kinds[1]._replace(latency=0.02)
            super()._known(call, outcome)

    crowd = Mixed(lambda now: (AttemptOutcome(True), 0.02), chance=chance.random)
    crowd.ended_hopeless = 0  # type: ignore[attr-defined]
    for number in range(5000):

        def begin(number: int = number) -> None:
            call, action = crowd.begin(10.0)
            if number % 10 == 0:
                hopeless.add(call)
            crowd._go(call, action)

        crowd.at(1000.0 + 0.05 * number, begin)
    crowd.run()
    crowd.assert_nothing_left()
    in_vain = [sent for sent in crowd.retries if sent.call in hopeless]
    assert 5 <= len(in_vain) <= 0.1 * len(hopeless)
    others = [why for call, (_, why) in crowd.ended.items() if call not in hopeless and why]
    assert len(others) <= 3


# Whatever comes.


@pytest.mark.parametrize("admission", [False, True])
def test_a_hundred_thousand_calls_with_nonsense_in_them_break_nothing(admission: bool) -> None:
    """Clocks that leap, latencies and chance that are no numbers: all ends, and nothing is left."""
    source = random.Random(3)
    odd = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300, 5e-324]
    chances = [0.0, 1.0, 0.5, 0.5, 0.5, math.nan, -1.0, 7.0]
    driving = Driving(adaptive, chance=lambda: source.choice(chances), admission=admission)
    calls: list[tuple[Call, Action]] = []
    for number in range(100_000):
        if number % 1000 == 999:
            driving.clock.now = source.choice([*odd, 1e9, 1000.0, 2000.0])
        elif number % 1000 == 0:
            driving.clock.now = 1000.0 + number
        driving.clock.now += source.random() * 0.1
        if len(calls) < 20:
            calls.append(driving.begin(source.choice([None, None, 0.5, 5.0, 100.0])))
            continue
        at = source.randrange(20)
        call, action = calls[at]
        latency = source.choice(odd) if source.random() < 0.05 else source.random()
        if source.random() < 0.02:
            driving.cancel(call)
        elif isinstance(action, Wait):
            driving.clock.now += action.seconds * source.choice([0.0, 1.0, 1.0])
            action = driving.wake(call)
        elif source.random() < 0.4:
            driving.outcome(call, AttemptOutcome(True, latency=latency))
        else:
            action = driving.outcome(call, source.choice(FAILURES)._replace(latency=latency))
        calls[at] = call, action
        if call.ended:
            del calls[at]
    for call, _ in calls:
        driving.cancel(call)
    assert driving.faults.count == 0
    assert driving.policy.parked_calls == driving.adaptive.callers.pending == 0
    assert driving.origin.in_flight == 0
    assert 0.0 <= driving.policy.tokens_at(1e6, 0) <= driving.policy.capacity


def test_a_policy_is_small_whatever_it_saw() -> None:
    """Less than 2048 bytes each, by the allocator, after an outage and retries of 255 errors.

    The errors' names are not counted: they belong to the catalogue, which all origins share.
    """
    names = [str(number) for number in range(255)]
    config = AdaptiveConfig(budget_initial=20)

    def make(calls: int) -> AdaptivePolicy:
        policy, now = AdaptivePolicy(config, 0.0, random.random), 0.0
        for number in range(calls):
            now += 0.1
            policy.outcome(now, View(), AttemptOutcome(True, latency=0.05 + 0.001 * (number % 7)))
            call = View()
            for _ in range(2):
                policy.outcome(now, call, ANSWERED._replace(error_type=names[number % 255]))
            policy.cancel(now, call)
        for outcome in [limited(20.0)] + [REFUSED._replace(replayable=False)] * 20:
            now += 0.1
            policy.outcome(now, View(), outcome)
        assert policy.state(now) == "down"
        return policy

    def size(calls: int) -> float:
        make(calls)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            kept = [make(calls) for _ in range(10)]
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # The list that keeps them is counted too: 8 bytes and a little for each.
        return (after - before) / len(kept)

    few, many = size(300), size(900)
    assert few < 2048
    assert many < few + 256
