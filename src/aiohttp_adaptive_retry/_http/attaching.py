"""Attaching to sessions that others make: to one that exists, or to all that will be made.

aiohttp keeps a session's middlewares under a private name, `_middlewares`, and reads them anew for
every request. A release that does so no longer is told from one that does, and nothing is changed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakSet

from aiohttp import ClientMiddlewareType, ClientSession

from .._checks import shown
from .middleware import AdaptiveRetryMiddleware

_MIDDLEWARES: Final = "_middlewares"


def attach(session: ClientSession, retry: AdaptiveRetryMiddleware) -> None:
    """Put a middleware behind those of a session that exists, for its requests from now on.

    Args:
        session: the session, which a library may have made. Not closed.
        retry: the middleware. It may be attached to any number of sessions of one loop.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: the session has another `AdaptiveRetryMiddleware`.
        RuntimeError: the session is closed, or this release of aiohttp can't be attached to.

    Attaching again changes nothing. O(middlewares).
    """
    _check(session)
    _check_retry(retry)
    if session.closed:
        raise RuntimeError("Session is closed")
    present = _middlewares(session)
    ours = _ours(present)
    if ours is retry:
        return
    if ours is not None:
        raise ValueError("session has another AdaptiveRetryMiddleware; detach that one first")
    setattr(session, _MIDDLEWARES, (*present, retry))
    _attached.add(session)
    _watch()


def detach(session: ClientSession, retry: AdaptiveRetryMiddleware | None = None) -> None:
    """Take a middleware off a session, or, without `retry`, whichever of ours it has.

    Calls that are under way go on with it. Nothing is changed if the session has none.
    """
    _check(session)
    if retry is not None:
        _check_retry(retry)
    left = tuple(
        middleware
        for middleware in _middlewares(session)
        if not (middleware is retry or (retry is None and _is_ours(middleware)))
    )
    setattr(session, _MIDDLEWARES, left)
    _attached.discard(session)
    _unwatch()


def instrument(retry: AdaptiveRetryMiddleware) -> None:
    """Attach a middleware to every session that is made from now on and has none of ours.

    A session whose middlewares have one of ours already keeps that. Called again, the newest
    `retry` is attached. The sessions must belong to one loop, as those of any middleware.

    Raises:
        TypeError: `retry` is no `AdaptiveRetryMiddleware`.
    """
    global _instrumented
    _check_retry(retry)
    _instrumented = retry
    _patch("__init__", _initialising)
    _watch()


def uninstrument() -> None:
    """Attach to new sessions no longer. Sessions that were made meanwhile keep the middleware."""
    global _instrumented
    _instrumented = None
    _restore("__init__")
    _unwatch()


_instrumented: AdaptiveRetryMiddleware | None = None
_attached: Final = WeakSet[ClientSession]()


#: Our methods in the place of aiohttp's, by name.
_active: Final[dict[str, Callable[..., Any]]] = {}


def _patch(name: str, wrapper: Callable[..., Any]) -> None:
    """Put a method of ours in the place of one of `ClientSession`, once."""
    if name in _active:
        return
    original: Callable[..., Any] = getattr(ClientSession, name)

    @functools.wraps(original)
    def patched(session: ClientSession, *args: Any, **kwargs: Any) -> Any:
        # Restored, and somebody else's patch on top still calls it.
        if _active.get(name) is not patched:
            return original(session, *args, **kwargs)
        return wrapper(original, session, *args, **kwargs)

    _active[name] = patched
    setattr(ClientSession, name, patched)


def _restore(name: str) -> None:
    """Undo a patch of ours; where somebody else has patched on top, it does nothing more."""
    patched = _active.pop(name, None)
    if patched is not None and getattr(ClientSession, name) is patched:
        setattr(ClientSession, name, patched.__wrapped__)  # type: ignore[attr-defined]


def _watch() -> None:
    """See requests whose own `middlewares=` leave ours out."""
    _patch("_request", _requesting)


def _unwatch() -> None:
    """See them no longer, if nobody is attached any more."""
    if _instrumented is None and not _attached:
        _restore("_request")


def _initialising(
    original: Callable[..., None], session: ClientSession, *args: Any, **kwargs: Any
) -> None:
    original(session, *args, **kwargs)
    present = getattr(session, _MIDDLEWARES, None)
    if _instrumented is not None and present is not None and _ours(present) is None:
        setattr(session, _MIDDLEWARES, (*present, _instrumented))


def _requesting(
    original: Callable[..., Any], session: ClientSession, *args: Any, **kwargs: Any
) -> Any:
    own = kwargs.get("middlewares")
    if own is not None:
        ours = _ours(getattr(session, _MIDDLEWARES, ()))
        if ours is not None and _ours(own) is None:
            ours._bypassed()
    return original(session, *args, **kwargs)


def _is_ours(middleware: object) -> bool:
    return isinstance(middleware, AdaptiveRetryMiddleware)


def _ours(middlewares: Sequence[ClientMiddlewareType]) -> AdaptiveRetryMiddleware | None:
    """The first of ours among some middlewares."""
    for middleware in middlewares:
        if isinstance(middleware, AdaptiveRetryMiddleware):
            return middleware
    return None


def _middlewares(session: ClientSession) -> Sequence[ClientMiddlewareType]:
    present: Sequence[ClientMiddlewareType] | None = getattr(session, _MIDDLEWARES, None)
    if present is None:
        raise RuntimeError(
            "this release of aiohttp keeps middlewares elsewhere; "
            "pass ours to ClientSession(middlewares=)"
        )
    return present


def _check(session: object) -> None:
    if not isinstance(session, ClientSession):
        raise TypeError(f"session must be an aiohttp.ClientSession, got {shown(session)}")


def _check_retry(retry: object) -> None:
    if not _is_ours(retry):
        hint = "; an instance is needed" if isinstance(retry, type) else ""
        raise TypeError(f"retry must be an AdaptiveRetryMiddleware, got {shown(retry)}{hint}")
