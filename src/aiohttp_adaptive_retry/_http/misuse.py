"""Ways to attach the middleware that can't work, each told where it is first seen."""

from __future__ import annotations

import functools
import logging
from types import FunctionType
from typing import Final

import aiohttp.client_middlewares
from aiohttp import ClientHandlerType, ClientRequest

_log: Final = logging.getLogger("aiohttp_adaptive_retry")
# A longer chain of middlewares is not looked through to its end.
_LONGEST_CHAIN: Final = 64


class MisuseError(TypeError):
    """The middleware is attached where it can't work. Not a fault of ours, so it is not hidden."""


def refuse_arguments(name: str, config: object, beside: tuple[object, ...]) -> None:
    """Tell a class that stands where an instance should: aiohttp calls it with a request."""
    if isinstance(config, ClientRequest):
        raise MisuseError(
            f"middlewares= has the class {name} in it, and needs an instance: {name}()"
        )
    if beside:
        raise TypeError(
            f"{name} takes one positional argument, config; "
            f"the others are given by name, got {len(beside)} more"
        )


def refuse_server(name: str, request: object) -> None:
    """Tell a client middleware that a web server calls. Costs nothing where `aiohttp.web` isn't."""
    for kind in type(request).__mro__:
        if kind.__module__ in ("aiohttp.web_app", "aiohttp.web_request"):
            raise MisuseError(of_server(name)) from None


def of_server(name: str) -> str:
    """What is told of ours in a web application."""
    return (
        f"{name} is a client middleware, and belongs into ClientSession(middlewares=), "
        "not into web.Application(middlewares=)"
    )


def warn_of_two(kind: type[object], handler: ClientHandlerType) -> bool:
    """Log a middleware of ours behind another, whose attempts multiply; whether there is one.

    No error, as such a chain works, and may be in production.
    """
    found = any(isinstance(middleware, kind) for middleware in _behind(handler))
    if found:
        _log.warning(
            "%s is twice in one chain of middlewares, so attempts multiply; leave one out",
            kind.__name__,
        )
    return found


def _behind(handler: ClientHandlerType) -> list[object]:
    """The middlewares that a handler leads to, as far as aiohttp's own closures show them."""
    found: list[object] = []
    handlers: list[object] = [handler]
    seen = 0
    while handlers and seen < _LONGEST_CHAIN:
        seen += 1
        candidate = handlers.pop()
        if isinstance(candidate, functools.partial):
            handlers.append(candidate.func)
            continue
        if not isinstance(candidate, FunctionType):
            continue
        if candidate.__globals__ is not vars(aiohttp.client_middlewares):
            continue
        for cell in candidate.__closure__ or ():
            contents = cell.cell_contents
            found.append(contents)
            handlers.append(contents)
    return found
