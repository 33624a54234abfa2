"""One origin: a scheme, host and port, and what is kept of it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .._policy.adaptive import AdaptivePolicy
from .._policy.asking import reconfigure
from .._policy.protocol import Policy, State
from ..config import AdaptiveConfig
from ..events import Listener
from .counters import OTHER_NAME, LabelCounters
from .newcomers import ANY_NUMBER, Newcomers
from .window import Window

# Texts are the only thing recorded that is not a small number, so they are few.
_MOST_TEXTS: Final = 100


class UserPolicy:
    """A user's own policy, with what an origin's policy has beside the Protocol."""

    __slots__ = ("arrive", "cancel", "outcome", "wake")

    quiet_until: Final = -math.inf
    is_troubled: Final = True
    parked_calls: Final = 0
    capacity: Final = 0.0

    def __init__(self, policy: Policy) -> None:
        self.arrive, self.outcome = policy.arrive, policy.outcome
        self.wake, self.cancel = policy.wake, policy.cancel

    def catch_up(self, successes: int) -> None:
        """Since it is never quiet, no success is only written down."""

    def succeeded(self, now: float, latency: float) -> None:
        """It is told of outcomes."""

    def state(self, now: float) -> State:
        """What it knows is its own affair."""
        return "healthy"

    def tokens_at(self, now: float, successes: int) -> float:
        """It has no budget that is known here."""
        return 0.0


@dataclass(slots=True, eq=False)
class Mood:
    """What was told of an origin's state, while that is or lately was more than healthy."""

    state: State
    since: float
    #: When the log's newest line about it was written, and whether that said "down".
    line_at: float = -math.inf
    line_is_down: bool = False


@dataclass(slots=True, eq=False)
class Origin:
    """A scheme, host and port, and what is kept of it."""

    key: str
    scheme: str
    host: str
    port: int | None
    config: AdaptiveConfig
    policy: AdaptivePolicy | UserPolicy
    window: Window
    counters: LabelCounters
    #: Told of its calls; the counters are the first of them.
    listeners: tuple[Listener, ...]
    #: Calls that began, and calls whose end was told: not those that ended on the fast path.
    begun: int = 0
    ended: int = 0
    #: The policy's cursor on `window.fast_total`, and the sweeper's on `window.end`.
    caught_up: int = 0
    swept: int = 0
    #: Texts of errors, if they are recorded: (number of the attempt, text), newest last.
    texts: deque[tuple[int, str]] | None = None
    #: Calls that got no further attempt, by reason; None while there are none.
    suppressed: dict[str, int] | None = None
    #: What was told of its state; None while there is nothing to tell.
    mood: Mood | None = None
    #: When the configuration was changed last, and what it was for calls from before.
    changed_at: float = -math.inf
    former: AdaptiveConfig | None = None
    #: A call began here, and did not only come by a redirect; and one has succeeded.
    named: bool = True
    proven: bool = False
    #: Both. What is not settled has no lasting place in the table.
    settled: bool = False
    #: Permits for origins that are not proven, and whether this one has one.
    newcomers: Newcomers = ANY_NUMBER
    permitted: bool = False

    @property
    def name(self) -> str:
        """The origin as "scheme://host:port"; without what it has not got."""
        if self.is_shared:
            return OTHER_NAME
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port is None else f":{self.port}")

    @property
    def is_shared(self) -> bool:
        """Whether it stands for all that have no place of their own."""
        return self.key == OTHER_NAME

    def may_retry(self) -> bool:
        """Whether its calls may be retried, as far as that depends on other origins."""
        if not self.proven and not self.permitted:
            self.permitted = self.newcomers.take()
            return self.permitted
        return True

    def prove(self) -> None:
        """Note that a call succeeded."""
        self.proven = True
        if self.permitted:
            self.permitted = False
            self.newcomers.give_back()

    def move_to(self, counters: LabelCounters) -> None:
        """Count under another label from now on; what was counted stays where it is."""
        self.catch_up()
        window, old = self.window, self.counters
        total = window.fast_total
        # Another thread may miss some for a moment, and counts none twice.
        window.appended += total
        old.first_success += total
        self.ended += total
        self.caught_up = 0
        self.counters = counters
        self.listeners = (counters, *self.listeners[1:])

    @property
    def in_flight(self) -> int:
        """Calls that have begun and not ended. The loop's thread."""
        return self.begun - self.ended - self.window.fast_total

    @property
    def untold(self) -> int:
        """Successes of the fast path that the policy has not been told of. Any thread."""
        return max(0, self.window.fast_total - self.caught_up)

    def catch_up(self) -> None:
        """Tell the policy of successes that were only written into the window."""
        behind = self.untold
        # In this order another thread may miss some for a moment, and counts none twice.
        self.caught_up += behind
        self.policy.catch_up(behind)
        self.newcomers.earn(behind)

    def retry_in(self, now: float) -> float | None:
        """Seconds until a first attempt may be sent again, where the policy knows."""
        # Only a policy that keeps first attempts back has an answer.
        ask: Callable[[float], float | None] | None = getattr(self.policy, "retry_in", None)
        return None if ask is None else ask(now)

    def note_text(self, text: str) -> None:
        """Keep the text of the newest attempt's error."""
        if self.texts is None:
            # Not before the first: an empty deque takes more than all the rest of an origin.
            self.texts = deque(maxlen=_MOST_TEXTS)
        self.texts.append((self.window.end - 1, text))

    def reconfigure(self, config: AdaptiveConfig, now: float, pressure: bool) -> None:
        """Go by another configuration; window and policy keep what they have."""
        former, self.config = self.config, config
        self.former, self.changed_at = former, now
        reconfigure(self.policy, config)
        if config.window_duration != former.window_duration:
            self.window.set_duration(config.window_duration.total_seconds())
        if pressure:
            self.on_pressure(now)
        elif config.window_size != self.window.size:
            self.window.set_limit(config.window_size, now)
        # The fast path comes by, and finds what is due.
        self.window.lease_end = 0

    # What a `Sweeper` asks for.

    def sweep(self, now: float) -> None:
        """Drop what has expired, and the arrays it stood in."""
        self.window.expire(now)
        self.window.compact()
        while self.texts and self.texts[0][0] < self.window.start:
            self.texts.popleft()

    def on_pressure(self, now: float) -> None:
        """Keep the newest attempts only, and no texts."""
        self.texts = None
        config = self.config
        self.window.set_limit(min(config.window_size, config.pressure_window_size), now)

    def on_relief(self, now: float) -> None:
        """Let the window grow again."""
        self.window.set_limit(self.config.window_size, now)
