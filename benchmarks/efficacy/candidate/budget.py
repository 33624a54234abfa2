"""The package's budget, with a reward for retries that mend."""

from __future__ import annotations

from typing import Final

from aiohttp_adaptive_retry.budget import RetryBudget

__all__ = ("RewardingBudget",)

# What a retry that mended earns beyond its own token: those held together are mended together.
_REWARD: Final = 1.0


class RewardingBudget(RetryBudget):
    """Retries may waste as much as they mend, beside what successes earn."""

    __slots__ = ()

    def reward(self) -> None:
        """Earn a whole token: a retry mended, or the origin came back from a silence."""
        self.tokens = min(self.capacity, self.tokens + _REWARD)
