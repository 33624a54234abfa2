"""The known policies do what their sources do, checked step by step and, where they are installed,
against the libraries themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest

from aiohttp_adaptive_retry.policy import Action, AttemptOutcome, GiveUp, Policy, Send, Wait
from benchmarks.efficacy.policy import Call, PolicyFactory, failure
from benchmarks.efficacy.registry import POLICIES

OK = AttemptOutcome(True, "", 0.01)
_idents = itertools.count()


class Driver:
    """Drives one policy by hand; ``half`` is all the luck there is."""

    def __init__(self, factory: PolicyFactory, luck: Callable[[], float] = lambda: 0.5) -> None:
        self.now = 0.0
        self.policy: Policy = factory(lambda: self.now, luck)

    def call(
        self, error: str, retry_after: float | None = None, succeed_after: int = 10**9
    ) -> list[float]:
        """Make one call whose attempts fail with ``error``; return the waits between attempts.

        After ``succeed_after`` failures the next attempt succeeds. The list ends where the policy
        ended; a refused first attempt gives [-1].
        """
        call = Call(next(_idents), 0, self.now, self.now + 1e6, 0, False)
        waits: list[float] = []
        waited = 0.0
        action: Action = self.policy.arrive(self.now, call)
        while True:
            if isinstance(action, GiveUp):
                return waits if call.attempts else [-1.0]
            if isinstance(action, Wait):
                self.now += action.seconds
                waited += action.seconds
                action = self.policy.wake(self.now, call)
                continue
            assert isinstance(action, Send)
            if call.attempts:
                waits.append(round(waited, 9))
            waited = 0.0
            call.attempts += 1
            if call.attempts > succeed_after:
                self.policy.outcome(self.now, call, OK)
                return waits
            action = self.policy.outcome(self.now, call, failure(error, 0.01, retry_after))


@pytest.mark.parametrize(
    ("policy", "error", "waits"),
    [
        ("none", "503", []),
        ("fixed3", "503", [1.0, 2.0]),
        ("fixed3", "ConnectionRefused", [1.0, 2.0]),
        ("aiohttp_retry", "503", [0.2, 0.4]),
        ("aiohttp_retry", "ConnectionRefused", []),
        ("aiohttp_retry", "429", []),
        ("tenacity", "503", [1.0, 1.5, 2.5, 4.5, 8.5]),
        ("stamina", "503", [0.6, 0.7, 0.9, 1.3, 2.1, 3.7, 5.0, 5.0, 5.0]),
        ("grpc_a6", "503", [0.05, 0.1, 0.2]),
        ("grpc_a6", "500", []),
        ("envoy", "Timeout", [0.0125]),
        ("envoy", "429", []),
        ("boto_std", "503", [0.025, 0.05]),
        ("boto_std", "429", [0.5, 1.0]),
        ("resilience4j", "503", [0.5, 0.5]),
    ],
)
def test_waits_of_a_first_call(policy: str, error: str, waits: list[float]) -> None:
    """A fresh client's first call, all attempts failing, all luck one half."""
    assert Driver(POLICIES[policy]).call(error) == pytest.approx(waits)


def test_grpc_stops_retrying_below_half_of_its_tokens() -> None:
    """Four failures leave six tokens, the fifth five: no retry. 21 successes bring 2.1 back."""
    driver = Driver(POLICIES["grpc_a6"])
    assert len(driver.call("503")) == 3
    assert driver.call("503") == []
    for _ in range(21):
        driver.call("", succeed_after=0)
    assert len(driver.call("503")) == 2


def test_grpc_waits_what_the_server_says_then_starts_anew() -> None:
    """Pushback resets the backoff."""
    assert Driver(POLICIES["grpc_a6"]).call("429", 7.0) == [7.0, 7.0, 7.0]


def test_finagle_spends_a_fifth_of_its_balance_on_one_call() -> None:
    """Balance 100: at most 20 requeues, at once; the reserve lasts for about 100 in 10 s."""
    driver = Driver(POLICIES["finagle"])
    assert driver.call("503") == [0.0] * 20
    total = sum(len(driver.call("503")) for _ in range(30))
    assert 60 <= total <= 100
    driver.now += 11.0
    assert len(driver.call("503")) >= 20


def test_envoy_allows_three_concurrent_retries() -> None:
    """With few active requests the fourth retry at the same time is refused."""
    driver = Driver(POLICIES["envoy"])
    calls = [Call(i, 0, 0.0, 1e6, 0, False) for i in range(4)]
    for call in calls:
        driver.policy.arrive(0.0, call)
        call.attempts = 1
    actions = [driver.policy.outcome(0.0, call, failure("503", 0.01)) for call in calls]
    assert [type(a) for a in actions] == [Wait, Wait, Wait, GiveUp]
    driver.policy.cancel(0.0, calls[0])
    calls.append(Call(9, 0, 0.0, 1e6, 0, False))
    driver.policy.arrive(0.0, calls[-1])
    calls[-1].attempts = 1
    action = driver.policy.outcome(0.0, calls[-1], failure("503", 0.01))
    assert isinstance(action, Wait)


def test_botocore_has_a_quota() -> None:
    """500 buys 35 retries at 14; a success without retries gives 1 back."""
    driver = Driver(POLICIES["boto_std"])
    assert sum(len(driver.call("503")) for _ in range(40)) == 35
    for _ in range(4):
        driver.call("", succeed_after=0)
    assert len(driver.call("503")) == 1


def test_botocore_adaptive_limits_its_rate_after_throttling() -> None:
    """After a 429 attempts are spaced; without one they are not."""
    driver = Driver(POLICIES["boto_adapt"])
    for _ in range(100):
        driver.now += 0.1
        assert driver.call("", succeed_after=0) == []
    before = driver.now
    driver.call("429", succeed_after=1)
    for _ in range(40):
        driver.call("", succeed_after=0)
    assert driver.now - before > 2.0


def test_sre_throttles_itself_when_nothing_is_accepted() -> None:
    """After many refusals nearly all calls are refused locally; retries stay below 10 %."""
    driver = Driver(POLICIES["sre_k2"])
    sent = [driver.call("503") for _ in range(200)]
    assert sent.count([-1.0]) > 190
    driver = Driver(POLICIES["sre_k2"], luck=lambda: 0.999)
    for _ in range(300):
        driver.now += 0.1
        driver.call("", succeed_after=0)
    retries = sum(len(driver.call("503", succeed_after=1)) for _ in range(100))
    assert 30 <= retries <= 45


def test_resilience4j_opens_at_half_of_a_hundred_failures() -> None:
    """100 outcomes must be known; then nothing is sent for 60 s, then ten trials decide."""
    driver = Driver(POLICIES["resilience4j"])
    for _ in range(50):
        driver.call("", succeed_after=0)
    sent = [driver.call("503") for _ in range(17)]
    assert [-1.0] not in sent
    assert driver.call("503") == [-1.0]
    driver.now += 60.0
    for _ in range(10):
        assert driver.call("", succeed_after=0) == []
    assert driver.call("503") != [-1.0]


def test_polly_breaks_at_a_tenth_and_tries_again_after_five_seconds() -> None:
    """100 calls in 30 s with 10 % failures break the circuit; one good trial closes it."""
    driver = Driver(POLICIES["polly"])
    for _ in range(89):
        driver.call("", succeed_after=0)
    call = Call(0, 0, 0.0, 1e6, 0, False)
    for _ in range(11):
        driver.policy.arrive(0.0, call)
        call.attempts = 1
        driver.policy.outcome(0.0, call, failure("503", 0.01))
    assert driver.call("503") == [-1.0]
    driver.now += 5.0
    assert driver.call("", succeed_after=0) == []
    assert driver.call("503", 3.0)[:1] == [3.0]


def test_polly_waits_about_two_four_and_eight_seconds() -> None:
    """The sum of the first n waits has its middle near 2 * (2**n - 1) s, by decorrelated jitter."""
    waits = Driver(POLICIES["polly"]).call("503")
    assert waits[0] == pytest.approx(2**0.5 * 0.8884 / 1.4 * 2, rel=0.01)
    assert len(waits) == 3
    assert sum(waits) == pytest.approx(2**2.5 / 1.4 * 2, rel=0.01)


def test_aiohttp_retry_as_installed() -> None:
    """Our copy waits as the library computes."""
    library = pytest.importorskip("aiohttp_retry")
    options = library.ExponentialRetry()
    expected = [options.get_timeout(attempt) for attempt in range(1, options.attempts)]
    assert Driver(POLICIES["aiohttp_retry"]).call("503") == pytest.approx(expected)
    assert not options.exceptions
    assert not options.statuses


def test_tenacity_as_installed() -> None:
    """Each wait lies in the interval that the library draws from."""
    tenacity = pytest.importorskip("tenacity")
    library = tenacity.wait_exponential(multiplier=1, min=1, max=60)
    for luck in (0.0, 0.999999):
        waits = Driver(POLICIES["tenacity"], luck=partial(float, luck)).call("503")
        state = tenacity.RetryCallState(tenacity.Retrying(), None, (), {})
        for attempt, wait in enumerate(waits, 1):
            state.attempt_number = attempt
            assert wait == pytest.approx(library(state) if luck else 1.0, rel=1e-3)
