"""One call over all its runs: its deadline, aiohttp's hidden retry, and redirects.

aiohttp runs the chain of middlewares anew for a redirect, and for a connection that was lost. What
belongs to the call as a whole lives in variables of aiohttp's running call, which nothing public
gives. One of them is found from aiohttp's own handler, by the public type of what it holds.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import CellType, FunctionType
from typing import Any, Final, NamedTuple, cast

import aiohttp
import aiohttp.client
from aiohttp import ClientHandlerType, ClientRequest
from yarl import URL

from .._errors import without_paths
from .._origin.counters import Faults
from ..events import REPORT

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
_REPLAYED: Final = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)
#: Answers that aiohttp follows with a request of its own.
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
# A next run that has not come after so many seconds will not come. Middlewares before ours do what
# they want in between.
_LONGEST_PENDING: Final = 600.0
# The same where only the task tells a call, which may have gone on to its next call.
_LONGEST_IN_TASK: Final = 60.0

# Causes of an error that are kept with it, and notes (PEP 678).
_MOST_CAUSES: Final = 2
_MOST_NOTES: Final = 4


class _Parts(NamedTuple):
    """What an error is made of, as far as that is small."""

    kind: type[BaseException]
    args: tuple[Any, ...]
    attributes: dict[str, Any]
    cause: _Parts | None

    def together(self) -> BaseException:
        """The error made anew: type, arguments, attributes and causes, no traceback, no context."""
        new: Callable[..., BaseException] = self.kind.__new__
        error = new(self.kind, *self.args)
        error.args = self.args
        error.__dict__.update(self.attributes)
        if "__notes__" in self.attributes:
            # Whoever adds a note to this error adds it to no later one.
            error.__dict__["__notes__"] = [*self.attributes["__notes__"]]
        if self.cause is not None:
            # Of a class of its own that can't be made so, nothing is lost but the cause.
            with suppress(Exception):
                error.__cause__ = self.cause.together()
        return error


def total_timeout(request: ClientRequest, handler: ClientHandlerType) -> float | None:
    """Seconds that the whole call may take, None without a limit.

    From aiohttp 3.15 on a request says so itself. Before, aiohttp's handler holds the timeout of
    this very call, and the session the default one.
    """
    timeout = getattr(request, "timeout", None)
    if not isinstance(timeout, aiohttp.ClientTimeout):
        cell = _timeout_cell(handler)
        timeout = request.session.timeout if cell is None else cell.cell_contents
    total = cast(aiohttp.ClientTimeout, timeout).total
    return total if total else None


def _timeout_cell(handler: ClientHandlerType) -> CellType | None:
    """The variable of aiohttp's running call that holds its ClientTimeout.

    aiohttp's innermost handler is a closure over the call's variables, and the chain around it is
    made of closures too. Only a function of `aiohttp.client` counts: a closure of the user's may
    hold a ClientTimeout as well, which says nothing about the call. None where a middleware hides
    the handler in an object.
    """
    seen = 0
    handlers: list[object] = [handler]
    while handlers and seen < 64:
        candidate = handlers.pop()
        seen += 1
        if isinstance(candidate, functools.partial):
            handlers.append(candidate.func)
            continue
        if not isinstance(candidate, FunctionType):
            continue
        # `functools.wraps` copies a function's module, and never its globals.
        is_aiohttps = candidate.__globals__ is vars(aiohttp.client)
        for cell in candidate.__closure__ or ():
            try:
                contents = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if isinstance(contents, FunctionType | functools.partial):
                handlers.append(contents)
            elif is_aiohttps and isinstance(contents, aiohttp.ClientTimeout):
                return cell
    return None


@dataclass(slots=True, eq=False)
class Run:
    """What is noted of one run of the chain. No URL and no error: hashes and small values only."""

    #: When the run ended, when its call began, and how many requests the call has sent.
    at: float
    started: float
    sent: int
    #: What the run failed with; None for a run that a redirect ended.
    parts: _Parts | None
    #: What a next run goes to, as a hash, and what tells its call: aiohttp's variable or the task.
    target: int
    cell: CellType | None
    task: weakref.ref[asyncio.Task[Any]] | None
    request: weakref.ref[ClientRequest]
    #: Another session may come to stand at the same address.
    session: weakref.ref[aiohttp.ClientSession]
    #: The next run has come; `request` is that run's.
    repeated: bool = False
    #: The key that we have given the call, and the name of the origin that the key is for.
    idempotency_key: tuple[str, str] | None = None

    def error(self) -> BaseException | None:
        """The error made anew; None for a run that a redirect ended."""
        return None if self.parts is None else self.parts.together()

    def is_over(self, now: float) -> bool:
        """Whether no next run can come any more."""
        if self.cell is None:
            return not 0.0 <= now - self.at < _LONGEST_IN_TASK
        return self.has_ended() or not 0.0 <= now - self.at < _LONGEST_PENDING

    def has_ended(self) -> bool:
        """Whether aiohttp's call is known to have ended."""
        # Two references to its variable: this note's, and the question's own.
        return self.cell is not None and sys.getrefcount(self.cell) <= 2


class Runs:
    """Recognises a call whose chain has run before, and knows what that run came to.

    When ClientOSError or ServerDisconnectedError leaves the chain of an idempotent method, aiohttp
    rebuilds the request and runs the whole chain once more, behind our back. All attempts were made
    by then. So the failure is noted. When the same call comes again with another request object,
    the same failure is raised again and nothing is sent. A redirect comes as a new request, too; of
    it is noted when the call began, since its deadline counts from there.

    A call is told by a variable of aiohttp's running call, which no other call shares. Where a
    middleware hides that variable, a call is told by its task, session, method and URL. A note is
    used up by the run that it was for. It ends with its call or its task, also when no other call
    comes, and by time wherever it is read; so there are no more notes than calls under way.
    """

    __slots__ = ("noted",)

    def __init__(self) -> None:
        #: By the identity of the variable or the task. Empty but between two runs of a call, which
        #: is why every call looks here first.
        self.noted: dict[int, Run] = {}

    def failed(
        self, request: ClientRequest, handler: ClientHandlerType, error: BaseException, now: float
    ) -> None:
        """Note that `error` leaves the chain now, if aiohttp will answer it with a second run."""
        if (
            request.method in _IDEMPOTENT
            and isinstance(error, _REPLAYED)
            and not isinstance(error, aiohttp.ClientConnectorError)
        ):
            target = _target(request, request.original_url, request.method)
            self._note(request, handler, now, now, 0, _parts(error), target)

    def redirected(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        location: str,
        started: float,
        sent: int,
        now: float,
        idempotency_key: tuple[str, str] | None = None,
    ) -> None:
        """Note that the call, which began at `started`, will probably go on at `location`.

        `sent` is how many requests it has sent so far.
        """
        try:
            target = _target(request, request.url.join(URL(location)))
        except ValueError:
            # aiohttp will not follow this one.
            return
        self._note(request, handler, now, started, sent, None, target, idempotency_key)

    def met(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        clock: Callable[[], float],
        faults: Faults,
    ) -> tuple[BaseException | None, Run | None]:
        """If aiohttp ran the chain for this call before: the error it met, and that run."""
        try:
            run = self.earlier(request, handler, clock())
            return None if run is None else run.error(), run
        except Exception as error:
            faults(error)
            return None, None

    def earlier(self, request: ClientRequest, handler: ClientHandlerType, now: float) -> Run | None:
        """What was noted of an earlier run of this call, if this is another one."""
        cell = _timeout_cell(handler)
        key = id(asyncio.current_task()) if cell is None else id(cell)
        run = self.noted.get(key)
        if run is None or run.cell is not cell:
            return None
        if cell is None:
            method = "" if run.parts is None else request.method
            is_next = run.target == _target(request, request.original_url, method)
            is_next = is_next and run.session() is request.session
            if run.is_over(now) or (run.repeated and run.request() is not request):
                # The task has gone on to another call.
                del self.noted[key]
                return None
            if not is_next:
                return None
        if run.parts is None:
            del self.noted[key]
            return run
        if run.request() is request and not run.repeated:
            # The same request object again is no second run of aiohttp's: a middleware before ours
            # tries once more on its own account.
            del self.noted[key]
            return None
        # A middleware before ours may try again in the second run as well, with the request that
        # the second run has; for that this note stays.
        run.repeated = True
        run.request = self._watched(request, key)
        return run

    def forget(self, now: float) -> None:
        """Drop what is over; every tick calls this."""
        for key, run in tuple(self.noted.items()):
            if run.is_over(now):
                del self.noted[key]

    def _note(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        now: float,
        started: float,
        sent: int,
        parts: _Parts | None,
        target: int,
        idempotency_key: tuple[str, str] | None = None,
    ) -> None:
        noted, cell, task = self.noted, _timeout_cell(handler), None
        key = id(cell)
        if cell is None:
            current = asyncio.current_task()
            if current is None:
                return
            key = id(current)
            task = weakref.ref(current, lambda _: noted.pop(key, None))
        request_ref = self._watched(request, key)
        session = weakref.ref(request.session)
        run = Run(now, started, sent, parts, target, cell, task, request_ref, session)
        run.idempotency_key = idempotency_key
        noted[key] = run

    def _watched(self, request: ClientRequest, key: int) -> weakref.ref[ClientRequest]:
        """A reference to a request, whose end may be that of its call, and so of the note."""
        loop = asyncio.get_running_loop()

        def drop(reference: weakref.ref[ClientRequest]) -> None:
            run = self.noted.get(key)
            if run is not None and run.request is reference and run.has_ended():
                del self.noted[key]

        def gone(reference: weakref.ref[ClientRequest]) -> None:
            run = self.noted.get(key)
            if run is not None and run.request is reference and run.cell is not None:
                # The call's own variables go in a moment. Of a closed loop no call goes on.
                with suppress(RuntimeError):
                    loop.call_soon(drop, reference)

        return weakref.ref(request, gone)


def _target(request: ClientRequest, url: URL, method: str = "") -> int:
    """A hash of what a request goes to; fragment and userinfo are no part of that."""
    return hash((id(request.session), method, url.with_fragment(None).with_user(None)))


def _parts(error: BaseException, causes: int = _MOST_CAUSES) -> _Parts:
    """What an error is made of, as far as it is small: no head of an answer, no path or query."""
    args, attributes, cause = error.args, error.__dict__, error.__cause__
    if isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str):
        # aiohttp puts the whole head of a broken answer here.
        default = aiohttp.ServerDisconnectedError()
        args, attributes = default.args, {**attributes, "message": default.message}
    return _Parts(
        type(error),
        tuple(map(_small, args)),
        {name: _kept(name, value) for name, value in attributes.items()},
        None if cause is None or causes <= 0 else _parts(cause, causes - 1),
    )


def _small(value: object) -> object:
    if isinstance(value, str):
        return without_paths(value, 200)
    return value if isinstance(value, int | float | None) else None


def _kept(name: str, value: object) -> object:
    if name == "__notes__":
        return _notes(value)
    # Our own report is small, and names nothing.
    return value if name == REPORT else _small(value)


def _notes(notes: object) -> list[object]:
    return [_small(note) for note in notes[:_MOST_NOTES]] if isinstance(notes, list) else []
