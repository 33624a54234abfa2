"""Asking a policy by another configuration than its own, for one question or from now on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import AdaptiveConfig
from .adaptive import AdaptivePolicy
from .protocol import Action


def ask_by(
    config: AdaptiveConfig, policy: object, ask: Callable[..., Action], *told: Any
) -> Action:
    """What a policy answers to a call that has a configuration of its own; `ask` is a method.

    Nothing else runs meanwhile, as policies never suspend. A user's own policy knows no
    configuration of ours.
    """
    if not isinstance(policy, AdaptivePolicy):
        return ask(*told)
    usual, policy._config = policy._config, config
    try:
        return ask(*told)
    finally:
        policy._config = usual
