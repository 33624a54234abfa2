"""One session with the middleware for a whole aiohttp application, made and closed with it.

    python examples/aiohttp_app.py https://example.org --port 8080
    curl http://127.0.0.1:8080/proxy/some/path?and=query
    curl http://127.0.0.1:8080/stats

One session and one middleware per application, not per request: connections are reused, and what
was learnt of the upstream serves all requests.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware

UPSTREAM = web.AppKey("UPSTREAM", URL)
RETRY = web.AppKey("RETRY", AdaptiveRetryMiddleware)
SESSION = web.AppKey("SESSION", aiohttp.ClientSession)


async def upstream_session(app: web.Application) -> AsyncIterator[None]:
    """Open the session when the application starts, close it when it stops."""
    retry = AdaptiveRetryMiddleware(AdaptiveConfig(max_attempts=3))
    async with aiohttp.ClientSession(
        middlewares=[retry], timeout=aiohttp.ClientTimeout(total=10)
    ) as session:
        app[RETRY] = retry
        app[SESSION] = session
        yield


async def proxy(request: web.Request) -> web.Response:
    """Fetch the same path from the upstream; the middleware has retried what was worth it."""
    path = request.match_info["path"].lstrip("/")
    if ".." in path.split("/"):
        # Nobody may climb out of the part of the upstream that is shown here.
        raise web.HTTPNotFound
    upstream = request.app[UPSTREAM]
    url = (upstream / path if path else upstream).with_query(request.query)
    try:
        async with request.app[SESSION].get(url) as response:
            return web.Response(
                status=response.status,
                body=await response.read(),
                content_type=response.content_type,
                charset=response.charset,
            )
    except TimeoutError:
        # Before ClientError: aiohttp's own timeouts are both.
        raise web.HTTPGatewayTimeout from None
    except aiohttp.ClientError as error:
        raise web.HTTPBadGateway(text=f"upstream: {type(error).__name__}\n") from None


async def stats(request: web.Request) -> web.Response:
    """The middleware's snapshot as JSON."""
    snapshot = dataclasses.asdict(request.app[RETRY].snapshot())
    # Its counts are read-only mappings, which json does not know.
    return web.json_response(snapshot, dumps=functools.partial(json.dumps, default=dict))


def make_app(upstream: URL) -> web.Application:
    """The application: `/proxy/...` and `/stats`."""
    app = web.Application()
    app[UPSTREAM] = upstream
    app.cleanup_ctx.append(upstream_session)
    app.router.add_get("/proxy/{path:.*}", proxy)
    app.router.add_get("/stats", stats)
    return app


def http_url(text: str) -> URL:
    """An absolute http or https URL, for argparse."""
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise argparse.ArgumentTypeError(f"must be an http:// or https:// URL, got {text!r}")
    return url


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A proxy that retries.")
    parser.add_argument("upstream", metavar="URL", type=http_url, help="where to fetch from")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    web.run_app(make_app(arguments.upstream), host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
