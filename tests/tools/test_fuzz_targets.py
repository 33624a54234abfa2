"""The fuzzer's targets, with bytes that Hypothesis makes up; and that they can fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiohttp_adaptive_retry._origin.window import Window
from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry._policy.cost import RetryFlow
from aiohttp_adaptive_retry._policy.state import Decision
from aiohttp_adaptive_retry.policy import SEND
from tools import fuzz_targets
from tools.fuzz_targets import TARGETS

ANY = st.binary(max_size=600)


@pytest.mark.parametrize("name", TARGETS)
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=ANY)
def test_promises_hold_for_any_bytes(name: str, data: bytes) -> None:
    """Foreign headers and texts, odd configuration, any order of what can happen."""
    TARGETS[name](data)


def broken(name: str) -> bool:
    """Whether some of the same bytes break the target now."""

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(data=ANY)
    def run(data: bytes) -> None:
        TARGETS[name](data)

    try:
        run()
    except BaseException:
        return True
    return False


def test_a_window_that_forgets_to_expire_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The target can fail."""
    monkeypatch.setattr(Window, "_expired_at", lambda self, now: 0)
    assert broken("window")


def test_a_token_that_is_not_asked_for_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without tokens, beyond the few that look, break the target."""

    def free(self: Any, *arguments: Any) -> Decision:
        return Decision(SEND)

    monkeypatch.setattr(AdaptivePolicy, "_retry", free)
    assert broken("deciding")


def test_a_flow_without_a_cap_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does one that saves up for ever."""

    def grow(self: RetryFlow, price: float) -> None:
        self.tokens += 30.0

    monkeypatch.setattr(RetryFlow, "give_back", grow)
    assert broken("deciding")


def test_a_text_that_keeps_its_url_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one with a secret in it."""
    monkeypatch.setattr(fuzz_targets, "error_text", lambda error, length: str(error)[:length])
    assert broken("message")
