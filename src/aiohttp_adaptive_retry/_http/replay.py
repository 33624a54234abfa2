"""One call over all its runs: its deadline, aiohttp's hidden retry, and redirects.

aiohttp runs the chain of middlewares anew for a redirect, and for a connection that was lost. What
belongs to the call as a whole lives in variables of aiohttp's running call, which nothing public
gives; they are found by the public type of what they hold.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Final, cast

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
_REPLAYED: Final = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)
#: Answers that aiohttp follows with a request of its own.
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_PENDING: Final = 256
# Between two runs aiohttp waits at most for a cancelled upload, a .netrc or a proxy look-up.
_LONGEST_PENDING: Final = 5.0


def total_timeout(request: ClientRequest, handler: ClientHandlerType) -> float | None:
    """Seconds that the whole call may take, None without a limit.

    From aiohttp 3.15 on a request says so itself. Before, the chain of handlers holds the timeout
    of this very call, and the session the default one.
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
    made of closures too. The variable is known by the public type of what it holds. None where
    the chain is built in another way: what is asked of it has a second, coarser answer.
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
        for cell in candidate.__closure__ or ():
            try:
                contents = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if isinstance(contents, aiohttp.ClientTimeout):
                return cell
            if isinstance(contents, FunctionType | functools.partial):
                handlers.append(contents)
    return None


class Runs:
    """Recognises a call whose chain has run before, and what is to be known of that run.

    When ClientOSError or ServerDisconnectedError leaves the chain of an idempotent method, aiohttp
    rebuilds the request and runs the whole chain once more, behind our back. All attempts were made
    by then. So the failure is noted, and when the same call comes again with another request
    object, the same failure is raised again and nothing is sent. A redirect, too, comes as a new
    request; of it is noted when the call began, since its deadline counts from there.

    Which call it is, is told by the identity of one variable of aiohttp's running call (see
    `_timeout_cell`), which all its runs share and no other call can. Noted are that variable, a
    weak reference to the request, and what the error was made of; at most 256 of them, for
    seconds, since a run that never comes leaves one behind.
    """

    __slots__ = ("noted",)

    def __init__(self) -> None:
        #: Empty but in the moment between two runs: what every call looks at first.
        self.noted: dict[int, Run] = {}

    def failed(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        error: BaseException,
        now: float,
    ) -> None:
        """Note that `error` leaves the chain now, if aiohttp will answer it with a second run."""
        if (
            request.method in _IDEMPOTENT
            and isinstance(error, _REPLAYED)
            and not isinstance(error, aiohttp.ClientConnectorError)
        ):
            self._note(request, handler, Run(error, now, now))

    def redirected(
        self,
        request: ClientRequest,
        handler: ClientHandlerType,
        location: str,
        started: float,
        sent: int,
        now: float,
    ) -> None:
        """Note that the call, which began at `started`, will probably go on elsewhere.

        `sent` is how many requests it has sent so far.
        """
        self._note(request, handler, Run(None, started, now, sent))

    def earlier(
        self, request: ClientRequest, handler: ClientHandlerType, now: float
    ) -> Run | None:
        """What was noted of an earlier run of this call, if this is another one."""
        cell = _timeout_cell(handler)
        run = None if cell is None else self.noted.get(id(cell))
        if run is None:
            return None
        if run.recipe is None:
            del self.noted[id(cell)]
            return run
        if not run.repeated and run.request() is request:
            # The same request object again is no second run of aiohttp's, but a middleware before
            # ours that tries once more on its own account.
            del self.noted[id(cell)]
            return None
        # Such a middleware may try again in the second run as well: this note stays.
        run.repeated = True
        return run

    def forget(self, now: float) -> None:
        """Drop what is over; every tick of the origins calls this."""
        for key, run in tuple(self.noted.items()):
            if run.repeated or not 0.0 <= now - run.at < _LONGEST_PENDING:
                del self.noted[key]

    def _note(self, request: ClientRequest, handler: ClientHandlerType, run: Run) -> None:
        cell = _timeout_cell(handler)
        if cell is None:
            return
        while len(self.noted) >= _MOST_PENDING:
            del self.noted[next(iter(self.noted))]
        run.cell = cell
        run.request = weakref.ref(request)
        self.noted[id(cell)] = run


class Run:
    """What is noted of one run: when its call `started`, and how many requests that has `sent`.

    `recipe` is None for one that a redirect ended.
    """

    __slots__ = ("at", "cell", "recipe", "repeated", "request", "sent", "started")

    cell: CellType
    request: weakref.ref[ClientRequest]

    def __init__(
        self, error: BaseException | None, started: float, at: float, sent: int = 0
    ) -> None:
        # Plain values: the error itself must be collectable as soon as the call is over.
        self.recipe = None if error is None else (type(error), error.args, dict(error.__dict__))
        self.started = started
        self.sent = sent
        #: When it ended.
        self.at = at
        self.repeated = False

    def error(self) -> BaseException | None:
        """The noted error made anew: type, arguments and attributes, no traceback, no context."""
        if self.recipe is None:
            return None
        kind, args, attributes = self.recipe
        new: Callable[..., BaseException] = kind.__new__
        error = new(kind, *args)
        error.args = args
        error.__dict__.update(attributes)
        return error
