"""Asking a policy by another configuration than its own, for one question or from now on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..config import AdaptiveConfig
from .adaptive import AdaptivePolicy
from .admission import AdmittingPolicy
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


def reconfigure(policy: object, config: AdaptiveConfig) -> None:
    """Let a policy go by another configuration from now on; what it has learnt stays.

    Tokens beyond the new capacity are lost. The share that a success earns is begun anew only if
    its setting changes. A policy that never kept first attempts back can begin to. One that did has
    calls waiting perhaps, and can stop when it is no longer asked about first attempts.
    """
    if not isinstance(policy, AdaptivePolicy):
        return
    if config.admission and type(policy) is AdaptivePolicy:
        policy.__class__ = AdmittingPolicy
    flow, before = policy._flow, policy._config
    policy._config = config
    flow.capacity = float(config.budget_capacity)
    flow.tokens = min(flow.tokens, flow.capacity)
    flow._floor = float(config.budget_floor)
    if config.budget_deposit != before.budget_deposit:
        flow.share = float(config.budget_deposit)
