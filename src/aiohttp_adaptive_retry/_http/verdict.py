"""What a user's own `classify` says about an answer, asked so that it can do no harm."""

from __future__ import annotations

import inspect
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Self, get_args

import aiohttp.helpers
from aiohttp import ClientResponse

from .._origin.counters import Faults
from .unread import Unread

_Kind = Literal["success", "retry", "fail", "ignore"]
_KINDS: Final[tuple[_Kind, ...]] = get_args(_Kind)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer is: a success, a failure worth a retry, a final failure, or no evidence.

    Made by the methods below, and returned by `AdaptiveRetryMiddleware(classify=)`.

    Raises:
        TypeError, ValueError: a field is wrong; the text names it and its value.

    Example:
        >>> def classify(response: ClientResponse) -> Verdict | None:
        ...     # A gateway that answers 200 while it starts; all else is left to the rules.
        ...     starting = response.headers.get("X-State") == "starting"
        ...     return Verdict.retry(after=2, name="starting") if starting else None
    """

    kind: _Kind
    after: float | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {self.kind!r}")
        after: object = self.after
        name: object = self.name
        if isinstance(after, timedelta):
            after = after.total_seconds()
            object.__setattr__(self, "after", after)
        if after is not None:
            if not isinstance(after, int | float) or isinstance(after, bool):
                raise TypeError(f"after must be a number, a timedelta or None, got {after!r}")
            if not 0.0 <= after < math.inf:
                raise ValueError(f"after must be >= 0 and finite, got {after}")
            if self.kind != "retry":
                raise ValueError(f"after is for retry, got {after} with {self.kind}")
        if name is not None:
            if not isinstance(name, str):
                raise TypeError(f"name must be a str or None, got {name!r}")
            if not name:
                raise ValueError("name must not be empty, got ''")
            if self.kind not in ("retry", "fail"):
                raise ValueError(f"name is for retry and fail, got {name!r} with {self.kind}")

    @classmethod
    def success(cls) -> Self:
        """The answer is what was asked for, whatever its status; it counts as a success."""
        return cls("success")

    @classmethod
    def retry(cls, after: float | timedelta | None = None, name: str | None = None) -> Self:
        """The attempt failed, and another one may mend that.

        Args:
            after: seconds, or a timedelta, until the next attempt at the earliest. What the answer
                asks for in Retry-After holds if it is longer. Above `retry_after_cap` the answer is
                handed back.
            name: what the failure is counted under, as `error.type`; None for the status. Few
                names: 254 of them are told apart, the rest is `_OTHER`.

        It is no proof that nothing was processed: a POST is sent again only where that would be so
        without it.
        """
        seconds = after.total_seconds() if isinstance(after, timedelta) else after
        return cls("retry", seconds, name)

    @classmethod
    def fail(cls, name: str | None = None) -> Self:
        """The attempt failed for good: no retry, and the answer is handed back; `name` as above."""
        return cls("fail", None, name)

    @classmethod
    def ignore(cls) -> Self:
        """The answer says nothing about its origin: no retry, and nothing is learnt from it."""
        return cls("ignore")


Classify = Callable[[ClientResponse], Verdict | Awaitable[Verdict | None] | None]


class Verdicts:
    """Asks a user's `classify` about answers. Where it fails the built-in rules hold. One loop."""

    __slots__ = ("_classify", "_faults")

    def __init__(self, classify: Classify, faults: Faults) -> None:
        self._classify, self._faults = classify, faults

    async def ask(self, response: ClientResponse) -> Verdict | Exception | None:
        """The verdict; the body's error where that broke off while it was read; None for neither.

        Raises:
            BaseException: the call is cancelled, or its time is over.
        """
        try:
            found: object = self._classify(response)
            if inspect.isawaitable(found):
                with Unread(response):
                    found = await found
        except Exception as error:
            if error is response.content.exception():
                return error
            if isinstance(error, TimeoutError) and _is_the_deadline(error):
                # aiohttp raises it once: who goes on reads for ever.
                raise
            self._faults.of_callback("classify", error)
            return None
        if found is None or isinstance(found, Verdict):
            return found
        kind = type(found).__qualname__
        wrong = TypeError(f"classify must return a Verdict or None, got {kind}")
        self._faults.of_callback("classify", wrong, f"returned {kind}, not a Verdict or None")
        return None


def _is_the_deadline(error: TimeoutError) -> bool:
    """Whether a time-out came from the timer of aiohttp's call, and not from classify itself."""
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals is vars(aiohttp.helpers):
            return True
        traceback = traceback.tb_next
    return False
