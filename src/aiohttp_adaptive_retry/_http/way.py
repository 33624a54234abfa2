"""What leads to an origin, if that is not the network itself: a proxy, or a socket file.

A proxy that is down says nothing about the origin behind it, and two socket files behind one name
are two servers. A way is told by a hash, so that nothing of a proxy's password or a path is kept.
"""

from __future__ import annotations

import hashlib

import aiohttp
from aiohttp import ClientRequest

_BY_PATH = (aiohttp.UnixConnector, aiohttp.NamedPipeConnector)


def way_of(request: ClientRequest) -> str:
    """The way that a request takes; "" for the network itself. A few attributes are read."""
    proxy = getattr(request, "proxy", None)
    if proxy is not None:
        return _hashed(f"{proxy.scheme}://{proxy.host_port_subcomponent}")
    connector = getattr(request.session, "connector", None)
    if isinstance(connector, _BY_PATH):
        return _hashed(str(connector.path))
    return ""


def _hashed(way: str) -> str:
    data = way.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=8).hexdigest()
