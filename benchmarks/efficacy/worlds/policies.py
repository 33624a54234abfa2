"""The policies that run through the worlds, by name, and the purses that they are judged on."""

from __future__ import annotations

from importlib import import_module

from ..ours import OursBatch, OursInteractive
from ..policy import PolicyFactory
from ..registry import POLICIES as ALL

PURSES: dict[str, float | None] = {"patience": None, "second": 1.0, "minute": 60.0}
"""Waiting costs 0.25 of a success for so many seconds; None: for the caller's patience."""


POLICIES: dict[str, PolicyFactory] = ALL | {
    "interactive": OursInteractive,
    "batch": OursBatch,
}
"""Makes each policy for one client: those of the nominal conditions, and the presets."""

JUDGED: dict[str, tuple[str, ...]] = {
    "ours": ("patience", "minute"),
    "ours_admit": ("patience", "minute"),
    "interactive": ("second",),
    "batch": ("minute",),
}
"""Which purses a policy is judged on, where these are not all."""


def find(name: str) -> PolicyFactory:
    """Return the policy of that name; ``package.module:Class`` names one that is elsewhere."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        found: PolicyFactory = getattr(import_module(module), attribute)
        return found
    return POLICIES[name]


def judged(name: str, purse: str) -> bool:
    """Tell whether a policy is judged on a purse."""
    return purse in JUDGED.get(name, PURSES)
