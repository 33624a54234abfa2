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

from aiohttp_adaptive_retry import AdaptiveConfig
from aiohttp_adaptive_retry._errors import error_text
from aiohttp_adaptive_retry._http.moments import LONGEST
from aiohttp_adaptive_retry._http.retry_after import _KNOWN, heard
from aiohttp_adaptive_retry._origin.window import Window
from aiohttp_adaptive_retry._policy.adaptive import AdaptivePolicy
from aiohttp_adaptive_retry._policy.state import Arrival, CallState
from aiohttp_adaptive_retry._policy.tuning import TUNING
from aiohttp_adaptive_retry.policy import (
    SEND,
    Action,
    AttemptOutcome,
    GiveUp,
    Wait,
    make_adaptive_policy,
)

__all__ = ("TARGETS",)

_FIELDS: Final = tuple(field.name for field in dataclasses.fields(AdaptiveConfig))
_HEADERS: Final = sorted(_KNOWN | {"date"})


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
    headers = dict[str, str]()
    while reader.left and len(headers) < 8:
        headers[_HEADERS[reader.byte() % len(_HEADERS)]] = reader.text()
    for status in (403, 429, 503):
        word = heard(status, headers, wall=lambda: 1.8e9)
        assert word.seconds is None or 0.0 <= word.seconds <= LONGEST
        assert word.wait is None or word.wait > 0.0


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
            if code or not ring.record_fast(now):
                ring.append(now, code)
                # Most owners do so at once, and some bound it.
                ring.renew_lease(ring.end + 5 * action, now + 20.0)
            naive = [*naive, (now, code)][-bound:]
        elif action == 4:
            ring.expire(now)
        elif action == 5:
            ring.compact()
        elif action == 6:
            bound = max(1, size // 2)
            ring.set_limit(bound, now)
            naive = [pair for pair in naive if pair[0] > now - 10.0][-bound:]
        else:
            ring.set_limit(size, now)
            bound = size
        live = [pair for pair in naive if pair[0] > now - 10.0]
        assert ring.length_at(now) == len(live)
        assert ring.failures_at(now) == sum(code > 0 for _, code in live)
        assert sum(ring.errors_at(now).values()) == ring.failures_at(now)
        assert [ring.at(n) for n in range(ring.start_at(now), ring.end)] == live
        assert sum(ring.evicted_at(now)) + len(live) == ring.end
        assert ring.memory <= 9 * max(8, size)


@dataclasses.dataclass(eq=False)
class _Call:
    """A call as a policy sees it, and whether it waits."""

    started: float
    attempts: int = 0
    deadline: float | None = None
    state: Any = None
    waiting: Wait | None = None


def deciding(data: bytes) -> None:
    """Calls in any order: few retries without tokens, none lost, waits of finite length."""
    reader = Reader(data)
    now = 0.0
    policy = make_adaptive_policy(
        AdaptiveConfig(admission=bool(reader.byte() % 2), hold_cap=float(reader.byte() % 15)),
        clock=lambda: now,
        random=lambda: reader.byte() / 256,
    )
    calls: list[_Call] = []
    # When an attempt last came to something.
    heard = -math.inf
    while reader.left:
        now += reader.byte() / 32
        kind = reader.byte() % 6
        remaining = None if reader.byte() % 2 else reader.byte() / 8
        if kind == 0:
            call = _Call(now)
            calls.append(call)
        elif not calls:
            continue
        else:
            call = calls[reader.byte() % len(calls)]
        call.deadline = None if remaining is None else now + remaining
        is_due = call.waiting is not None and call.waiting.committed
        if kind == 0:
            action = policy.arrive(now, call)
        elif kind == 1 and call.waiting is None:
            policy.outcome(now, call, AttemptOutcome(True, latency=reader.byte() / 16))
            heard = now
            _end(policy, calls, now, call)
            continue
        elif kind == 2:
            policy.cancel(now, call)
            _end(policy, calls, now, call)
            continue
        elif kind == 3 and call.waiting is not None:
            action = policy.wake(now, call)
            # The answer was let go of before a committed wait, so the call can't end with it.
            assert not is_due or action == SEND
        elif call.waiting is not None:
            continue
        else:
            action = policy.outcome(now, call, _failure(reader))
            heard = now
        if isinstance(action, GiveUp):
            _end(policy, calls, now, call)
        elif isinstance(action, Wait):
            assert 0.0 <= action.seconds < math.inf
            assert remaining is None or action.seconds < remaining
            call.waiting = action
        else:
            call.waiting = None
            call.attempts += 1
        if isinstance(call.state, CallState) and not call.state.held and not is_due:
            _paid(policy, call.state, heard, now, action)
        _check(policy, calls)
    for call in tuple(calls):
        policy.cancel(now, call)
        _end(policy, calls, now, call)
    assert policy.parked_calls == policy.callers.pending == 0
    _check(policy, calls)


def _paid(
    policy: AdaptivePolicy, state: CallState, heard: float, now: float, action: Action
) -> None:
    """A retry has its tokens, unless callers wait for their answers, or it looks."""
    if isinstance(action, GiveUp) or state.paid or policy.callers.wait:
        return
    if heard <= policy.outage.failing_since:
        # The first look of a trouble.
        return
    at = now + (action.seconds if isinstance(action, Wait) else 0.0)
    assert at - heard >= 0.99 * TUNING.look_least


def _failure(reader: Reader) -> AttemptOutcome:
    """A failure of some kind."""
    kind = reader.byte()
    return AttemptOutcome(
        False,
        str(1 + kind % 5),
        # Who says that it limits has answered.
        no_response=kind & 40 == 8,
        overload=bool(kind & 16),
        limited=bool(kind & 32),
        retry_after=reader.byte() / 4 if kind & 64 else None,
        replayable=not kind & 128,
        can_wait=bool(kind & 1),
    )


def _check(policy: AdaptivePolicy, calls: list[_Call]) -> None:
    """Tokens are within their bounds, and those that are held or under way are all counted."""
    assert 0.0 <= policy._flow.tokens <= policy.capacity
    failed = [call.state for call in calls if isinstance(call.state, CallState)]
    unsent = [call for call in calls if isinstance(call.state, Arrival)]
    assert policy.parked_calls == sum(state.held for state in failed) + len(unsent)
    assert policy.callers.pending == len(failed)
    assert not any(state.held and state.paid for state in failed)


def _end(policy: AdaptivePolicy, calls: list[_Call], now: float, call: _Call) -> None:
    """A call is over: what it reserved is back or spent, it is not held, and stays so."""
    for _ in range(2):
        assert call.state is None or not (call.state.paid or call.state.held)
        tokens = policy._flow.tokens
        policy.cancel(now, call)
        assert policy._flow.tokens == tokens
    calls.remove(call)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    function.__name__: function
    for function in (retry_after, message, configuration, window, deciding)
}
