"""Attach the middleware to a session and fetch some URLs: the smallest whole use.

    python examples/attach.py https://example.org/ https://example.net/

One line per URL, then what the middleware knows. The exit code is 1 if a URL brought no response
at all, 2 for wrong usage; an answer such as 404 is a response.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

import aiohttp

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware, Snapshot

# The middleware plans its waits so that they end within the session's own limit.
TIMEOUT = aiohttp.ClientTimeout(total=30)


async def fetch(session: aiohttp.ClientSession, url: str) -> bool:
    """Fetch one URL and print what came of it; False if there was no whole response."""
    try:
        async with session.get(url) as response:
            length = 0
            # In pieces, as a URL given by hand may well be a disk image.
            async for chunk in response.content.iter_chunked(65_536):
                length += len(chunk)
    except Exception as error:
        # Whatever is wrong with one URL (no such host, no URL at all) must not stop the others.
        print(f"{'failed':>6}  {type(error).__name__}  {url}")
        return False
    print(f"{response.status:>6}  {length:>11,} bytes  {url}")
    return True


def report(snapshot: Snapshot) -> list[str]:
    """A snapshot in lines for people."""
    requests, attempts, memory = snapshot.requests, snapshot.attempts, snapshot.memory
    failed = requests.failed_without_retry + requests.failed_after_retry
    lines = [
        f"requests  {requests.total}: {requests.first_success} at once, "
        f"{requests.retry_success} by a retry, {failed} failed, "
        f"{requests.refused} refused, {requests.ignored} ignored",
        f"attempts  {attempts['original']} original, {attempts['retry']} retries",
    ]
    if snapshot.failures:
        lines.append(f"failures  {_listed(snapshot.failures)}")
    if snapshot.suppressed:
        lines.append(f"not retried, because of  {_listed(snapshot.suppressed)}")
    lines += [
        f"origin    {origin.scheme}://{origin.host}:{origin.port}  "
        f"success {origin.success_rate:.0%} of the last {origin.window_length} attempts, "
        f"budget {origin.budget_available:.1f} of {origin.budget_limit:g} retries"
        for origin in snapshot.origins
    ]
    lines.append(
        f"memory    {memory.windows:,} bytes in windows, at most {memory.windows_limit:,}; "
        f"process {memory.usage / 2**20:.0f} MiB, pressure from {memory.threshold / 2**20:.0f} MiB"
    )
    return lines


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


async def run(urls: list[str]) -> int:
    """Fetch all URLs at once through one session; give back the exit code."""
    retry = AdaptiveRetryMiddleware()
    async with aiohttp.ClientSession(middlewares=[retry], timeout=TIMEOUT) as session:
        fetched = await asyncio.gather(*(fetch(session, url) for url in urls))
    print()
    print("\n".join(report(retry.snapshot())))
    return 0 if all(fetched) else 1


def main() -> int:
    """Read the URLs from the command line and run."""
    parser = argparse.ArgumentParser(description="Fetch URLs with adaptive retries.")
    parser.add_argument("urls", metavar="URL", nargs="+", help="what to fetch, http or https")
    return asyncio.run(run(parser.parse_args().urls))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
