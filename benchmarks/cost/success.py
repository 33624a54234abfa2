"""Many successes through one middleware, in a process of its own: what benchmarks/before.py starts.

Prints a line of JSON: where the package was found, and microseconds of the process's time for one
call, by variant. With `--only` it just makes the calls, for an instrument that counts instructions
from outside.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json

import aiohttp
from aiohttp import ClientRequest
from aiohttp.client_middlewares import ClientMiddlewareType

import aiohttp_adaptive_retry
from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

from .in_process import BARE, NO_OP, per_call
from .rivals import no_op
from .stand_ins import requests_to

OURS = "ours"
_URL = "https://api.example.com:8443/v1/items?page=2"
_TURNS = 9


async def _measured(calls: int, only: str | None) -> dict[str, float]:
    async with aiohttp.ClientSession() as session:
        return await _with(await requests_to(session, [_URL]), calls, only)


async def _with(requests: list[ClientRequest], calls: int, only: str | None) -> dict[str, float]:
    variants: dict[str, ClientMiddlewareType | None] = {
        BARE: None,
        NO_OP: no_op,
        OURS: AdaptiveRetryMiddleware(),
    }
    gc.collect()
    gc.freeze()
    if only is not None:
        await per_call(variants[only], requests, calls)
        return {}
    turns: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(_TURNS):
        for name, middleware in variants.items():
            turns[name].append(await per_call(middleware, requests, calls))
    # The least of some turns is what the code costs; the rest is what the machine added.
    return {name: min(figures) for name, figures in turns.items()}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("calls", type=int)
    parser.add_argument("--only")
    options = parser.parse_args()
    figures = asyncio.run(_measured(options.calls, options.only))
    # The caller can check that the intended revision was measured.
    print(json.dumps({"source": aiohttp_adaptive_retry.__file__, **figures}))


if __name__ == "__main__":
    main()
