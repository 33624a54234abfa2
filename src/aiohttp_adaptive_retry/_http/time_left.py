"""How much time a call has left, with all that passed before its request came to us.

A call's limit of time counts from its start. Middlewares listed before ours, trace callbacks and
earlier hops may have used some of that time. aiohttp's timer knows how much is left. The timer is a
local variable of aiohttp's running call, which is found among the callers. Where it is not found,
as behind a middleware that runs the chain in a task of its own, the limit counts from our entry.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

from aiohttp import ClientRequest, ClientSession

from .call import _HttpCall
from .replay import total_timeout

_REQUEST: Final = ClientSession._request.__code__
_TIMER: Final = "handle"
# Where aiohttp enters, if it calls us directly.
_ENTRY: Final = f"{__package__}.middleware"
# Our own frames, and those of the middlewares before ours.
_MOST_FRAMES: Final = 128


def limit_time(call: _HttpCall, now: float) -> None:
    """Set the deadline of a call that runs now, by its limit of time."""
    total = total_timeout(call.request, call.handler)
    call.limit(total)
    if total is not None:
        left = _seconds_left(call.request, not call.requests_before)
        if left is not None:
            call.end_by(now + left)


def _seconds_left(request: ClientRequest, first: bool) -> float | None:
    """Seconds until aiohttp ends the call; None if unknown, or if nobody took any before us.

    `first`: no hop of the call came before this one.
    """
    frame, below = sys._getframe(1), None
    for _ in range(_MOST_FRAMES):
        if frame.f_code is _REQUEST:
            break
        if frame.f_back is None:
            return None
        below, frame = frame, frame.f_back
    else:
        return None
    if first and below is not None and below.f_globals.get("__name__") == _ENTRY:
        session = request.session
        if not (session.trace_configs or session.trust_env):
            # Nobody was there before us. Reading the variables of a frame takes microseconds.
            return None
    timer: Any = frame.f_locals.get(_TIMER)
    try:
        # Of another class for each event loop.
        return None if timer.cancelled() else timer.when() - asyncio.get_running_loop().time()
    except AttributeError:
        return None
