"""The policies by name, in the order of the table.

To add one, write its class against ``policy.Policy`` with a constructor ``(clock, random)`` and
enter it here; one object is made per client.
"""

from __future__ import annotations

from .anchors_botocore import BotocoreAdaptive, BotocoreStandard
from .anchors_breakers import PollyStandard, Resilience4j
from .anchors_budgets import EnvoyBudget, FinagleBudget, GrpcThrottle, SreThrottle
from .anchors_loops import AiohttpRetry, FixedThree, Loop, Stamina, Tenacity
from .anchors_sketches import EightLines, SixtyLines
from .ours import Ours, OursAdmitting
from .policy import PolicyFactory

NONE = "none"
FIXED = "fixed3"
BOUND = "clairvoyant"
"""The zero of the scale: sends every first attempt at once, as clients do, and then retries with
full knowledge. It needs the whole world, so ``runner`` makes it, not ``POLICIES``."""
ADMITTING_BOUND = "clairvoyant_admit"
"""Chooses with full knowledge when, and whether, to send first attempts too. It is below zero."""

POLICIES: dict[str, PolicyFactory] = {
    NONE: Loop,
    FIXED: FixedThree,
    "aiohttp_retry": AiohttpRetry,
    "tenacity": Tenacity,
    "stamina": Stamina,
    "grpc_a6": GrpcThrottle,
    "finagle": FinagleBudget,
    "envoy": EnvoyBudget,
    "boto_std": BotocoreStandard,
    "boto_adapt": BotocoreAdaptive,
    "sre_k2": SreThrottle,
    "resilience4j": Resilience4j,
    "polly": PollyStandard,
    "eight_lines": EightLines,
    "sixty_lines": SixtyLines,
    "ours": Ours,
    "ours_admit": OursAdmitting,
}
"""Makes each policy for one client."""
