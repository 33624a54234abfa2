"""Counts requests against a limit."""

from __future__ import annotations

import math

from .plan import Limit


class Limiter:
    """Counts requests by a `Limit`'s rule; 0 is everybody's account where it is shared."""

    __slots__ = ("_accounts", "_banned", "_limit", "_room")

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        # A window holds whole requests, at least one; a bucket is at least one deep.
        self._room = max(1.0, limit.rate * limit.span)
        if limit.kind == "window":
            self._room = max(1.0, round(self._room))
        self._accounts: dict[int, tuple[float, float]] = {}
        self._banned: dict[int, float] = {}

    def refuse(self, client: int, time: float) -> float | None:
        """Count a request; return when there is room again, s from now, if it is one too many."""
        limit = self._limit
        if not limit.start <= time < limit.end:
            return None
        who = 0 if limit.shared else client
        wait = self._wait(who, client, time)
        if limit.punish:
            banned = self._banned.get(who, 0.0) - time
            if banned > 0.0 or wait > 0.0:
                banned = max(banned, wait, limit.punish)
                self._banned[who] = time + banned
                return banned
        return wait if wait > 0.0 else None

    def _wait(self, who: int, client: int, time: float) -> float:
        limit = self._limit
        if limit.kind == "window":
            # The golden ratio spreads the clients' windows evenly.
            phase = 0.0 if limit.shared else client * 0.6180339887498949 % 1.0
            # A window that is rounded to one request is longer instead.
            span = self._room / limit.rate
            index = float(math.floor(time / span - phase))
            seen, count = self._accounts.get(who, (index, 0.0))
            if seen != index:
                count = 0.0
            if count >= self._room:
                return max(1e-9, (index + 1.0 + phase) * span - time)
            self._accounts[who] = index, count + 1.0
            return 0.0
        seen, tokens = self._accounts.get(who, (time, self._room))
        tokens = min(self._room, tokens + (time - seen) * limit.rate)
        if tokens < 1.0:
            self._accounts[who] = time, tokens
            return (1.0 - tokens) / limit.rate
        self._accounts[who] = time, tokens - 1.0
        return 0.0

    def said(self, wait: float) -> float | None:
        """Return Retry-After, s."""
        says = self._limit.says
        if says == "exact":
            return wait
        if says == "rounded":
            return float(math.ceil(wait))
        return self._limit.absurd if says == "absurd" else None
