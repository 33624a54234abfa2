"""What the fuzzer calls with bytes of its own making, and what must hold whatever they are.

Each target takes bytes and raises if a promise is broken. `make fuzz` lets a coverage-guided fuzzer
choose the bytes; tests/tools/test_fuzz_targets.py lets Hypothesis do so in every test run.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveStrategy
from aiohttp_adaptive_retry.backoff import parse_retry_after
from aiohttp_adaptive_retry.errors import error_text
from aiohttp_adaptive_retry.trial import Evidence, Trial
from aiohttp_adaptive_retry.window import Window

__all__ = ("TARGETS",)

_FIELDS: Final = tuple(field.name for field in dataclasses.fields(AdaptiveConfig))


class Reader:
    """Bytes as a source of choices; zeros when they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there is more."""
        return self._at < len(self._data)

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def take(self, count: int) -> bytes:
        """The next bytes."""
        found = self._data[self._at : self._at + count].ljust(count, b"\0")
        self._at += count
        return found

    def number(self) -> float:
        """Any float there is, infinities and no numbers among them."""
        found: float = struct.unpack("<d", self.take(8))[0]
        return found

    def text(self) -> str:
        """Up to 255 characters of any kind."""
        return self.take(self.byte()).decode("utf-8", "surrogateescape")


def retry_after(data: bytes) -> None:
    """Headers that no server should send ask for no wait, or for one of finite length."""
    reader = Reader(data)
    value, date = reader.text(), reader.text()
    for sent in (None, date):
        seconds = parse_retry_after(value, sent, wall=lambda: 1.8e9)
        assert seconds is None or 0.0 < seconds < math.inf


def message(data: bytes) -> None:
    """Nothing of a URL but its scheme, host and port comes through, whatever stands around it."""
    reader = Reader(data)
    before, path, after = reader.text(), reader.text(), reader.text()
    path = "".join(c for c in path if not c.isspace() and c not in "'\"<>")
    secret = "s3cr3t"
    if secret in before + after:
        return
    text = f"{before} https://{secret}:{secret}@example.com:8443/{secret}{path}{secret} {after}"
    for length in (1, 40, 200, 10_000):
        found = error_text(ValueError(text), length)
        assert len(found) <= length
        assert secret not in found, found


def configuration(data: bytes) -> None:
    """A field of any type and value is taken, or refused by name."""
    reader = Reader(data)
    name = _FIELDS[reader.byte() % len(_FIELDS)]
    makers: tuple[Callable[[], Any], ...] = (
        reader.number,
        reader.text,
        lambda: reader.take(reader.byte()),
        lambda: int.from_bytes(reader.take(reader.byte() % 20), "little", signed=True),
        lambda: bool(reader.byte() % 2),
        lambda: None,
        lambda: timedelta(seconds=reader.byte() - 100, days=reader.byte()),
        lambda: [reader.text() for _ in range(reader.byte() % 4)],
        lambda: {reader.byte() * 4 for _ in range(reader.byte() % 4)},
        object,
        lambda: int,
        lambda: {reader.text(): reader.number()},
        lambda: reader.number() * 1j,
    )
    value = makers[reader.byte() % len(makers)]()
    values: dict[str, Any] = {name: value}
    try:
        config = AdaptiveConfig(**values)
    except (TypeError, ValueError) as error:
        assert name in str(error), error
    else:
        hash(config)
        assert config == AdaptiveConfig(**values)


def window(data: bytes) -> None:
    """The ring shows what a list would, whatever happens to it and to its clock."""
    reader = Reader(data)
    size = 1 + reader.byte() % 80
    ring, naive, bound, now = Window(size, 10.0), list[tuple[float, int]](), size, 0.0
    while reader.left:
        now += reader.byte() / 16
        action, code = reader.byte() % 8, reader.byte() % 5
        if action < 4:
            if code or not ring.succeed(now):
                ring.append(now, code)
                # Most owners do so at once, and some bound it.
                ring.open(ring.end + 5 * action, now + 20.0)
            naive = [*naive, (now, code)][-bound:]
        elif action == 4:
            ring.settle(now)
        elif action == 5:
            ring.compact()
        elif action == 6:
            bound = max(1, size // 2)
            ring.restrict(bound, now)
            naive = [pair for pair in naive if pair[0] > now - 10.0][-bound:]
        else:
            ring.relax(size)
            bound = size
        live = [pair for pair in naive if pair[0] > now - 10.0]
        assert ring.length_at(now) == len(live)
        assert ring.failures_at(now) == sum(code > 0 for _, code in live)
        assert sum(ring.errors_at(now).values()) == ring.failures_at(now)
        assert [ring.at(n) for n in range(ring.start_at(now), ring.end)] == live
        assert sum(ring.evicted_at(now)) + len(live) == ring.end
        assert ring.memory <= 9 * max(8, size)


def deciding(data: bytes) -> None:
    """Calls in any order: no retry without a token, none lost, waits of finite length."""
    reader = Reader(data)
    now = 0.0
    strategy = AdaptiveStrategy(
        clock=lambda: now,
        random=lambda: reader.byte() / 256,
        admission=bool(reader.byte() % 2),
        hold_cap=float(reader.byte() % 15),
    )
    budget = strategy.budget
    calls: list[Trial] = []
    asking: dict[int, Trial] = {}
    while reader.left:
        now += reader.byte() / 32
        action = reader.byte() % 6
        remaining = None if reader.byte() % 2 else reader.byte() / 8
        if action == 0:
            trial = Trial()
            calls.append(trial)
            decision = strategy.admit(now, trial, remaining)
        elif not calls:
            continue
        else:
            trial = calls[reader.byte() % len(calls)]
            if action == 1:
                strategy.succeeded(now, reader.byte() / 16, trial)
                _end(strategy, calls, asking, trial)
                continue
            if action == 2:
                _end(strategy, calls, asking, trial)
                continue
            if action == 3 and id(trial) in asking:
                decision = strategy.woken(now, trial, remaining)
            elif id(trial) in asking:
                continue
            else:
                kind = reader.byte()
                decision = strategy.failed(
                    now,
                    1 + kind % 5,
                    trial,
                    Evidence(
                        absent=bool(kind & 8),
                        overload=bool(kind & 16),
                        limited=bool(kind & 32),
                        retry_after=reader.byte() / 4 if kind & 64 else None,
                    ),
                    obstacle="max_attempts" if kind & 128 else None,
                    remaining=remaining,
                    patient=bool(kind & 1),
                )
        assert 0.0 <= decision.delay < math.inf
        if remaining is not None and decision.reason is None:
            assert decision.delay <= remaining or not decision.delay
        if decision.reason is not None:
            _end(strategy, calls, asking, trial)
        elif decision.hold:
            asking[id(trial)] = trial
        else:
            asking.pop(id(trial), None)
            # What is sent again has been paid for.
            assert trial.reserved or not trial.failures
        assert 0.0 <= budget.tokens <= budget.capacity
        assert strategy.health.held == sum(trial.holding for trial in calls)
    for trial in tuple(calls):
        _end(strategy, calls, asking, trial)
    assert strategy.health.held == 0
    assert 0.0 <= budget.tokens <= budget.capacity


def _end(
    strategy: AdaptiveStrategy, calls: list[Trial], asking: dict[int, Trial], trial: Trial
) -> None:
    """A call is over: what it reserved is back or spent, and it is held no more."""
    strategy.abandoned(trial)
    assert not trial.reserved
    assert not trial.holding
    asking.pop(id(trial), None)
    calls.remove(trial)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    function.__name__: function
    for function in (retry_after, message, configuration, window, deciding)
}
