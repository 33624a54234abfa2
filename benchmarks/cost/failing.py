"""Section 5, processor time: what a call costs that fails.

Each variant is measured over the bare attempts that it makes, as the handler's time and the
exceptions that it raises are no cost of ours. Waits end at once, so that a retry costs all
but its time.
"""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import process_time
from typing import cast

import aiohttp
import tenacity
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
from aiohttp.client_middlewares import ClientMiddlewareType, build_client_middlewares
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from aiohttp_adaptive_retry import AdaptiveRetryMiddleware

from .effort import Effort
from .figures import Samples, Spread, interleaved, median_of_ratios, minus
from .result import Goal, Table, compared
from .rivals import ManualRetry, no_op
from .stand_ins import Answer, refused, requests_to

__all__ = ("failing",)

NO_OP = "a success: no-op middleware"
RETRIED = "503, then 200: ours, metrics on"
_OFF = "503, then 200: ours, metrics off"
_LOOP = "503, then 200: aiohttp's documented loop"
_TENACITY = "503, then 200: tenacity"
_REFUSED = "refused, then 200: ours, metrics on"
_AMONG = "49 successes, then 503 and 200: ours, metrics on"
_SUCCESSES = "49 successes: ours, metrics on"
NOT_RETRIED = "POST, 503, not retried: ours, metrics on"
_URL = "https://api.example.com:8443/v1/items?page=2"
_MOST_OVER = 25.0
# What a no-op middleware costs on the machine for which that limit was written.
_NO_OP_COSTS = 0.41

#: Status codes, in the order in which attempts meet them; None for a connection that is refused.
Script = tuple[int | None, ...]
_MENDED: Script = (503, 200)


def handler_following(script: Script) -> ClientHandlerType:
    """A handler that follows a script, again and again."""
    answers = [
        None if status is None else cast(ClientResponse, Answer(status)) for status in script
    ]
    at = -1

    async def handler(request: ClientRequest) -> ClientResponse:
        nonlocal at
        at = at + 1 if at + 1 < len(answers) else 0
        answer = answers[at]
        if answer is None:
            raise refused(request)
        return answer

    return handler


async def at_once(_: float) -> None:
    """A wait that is over when it begins."""


@dataclass(frozen=True)
class Case:
    """A middleware, and what its attempts meet; `calls` calls make one pass of the script."""

    script: Script
    middleware: ClientMiddlewareType | None
    calls: int = 1
    method: str = "GET"


def ours(metrics: bool = True) -> AdaptiveRetryMiddleware:
    """Ours as a service has it, but for its waits."""
    provider = (
        MeterProvider(metric_readers=[InMemoryMetricReader()]) if metrics else NoOpMeterProvider()
    )
    return AdaptiveRetryMiddleware(meter_provider=provider, sleep=at_once)


def cases() -> dict[str, Case]:
    """What is measured, by name."""
    tenacious = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_result(lambda response: response.status >= 500),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_random_exponential(max=5),
        sleep=at_once,
    )

    async def with_tenacity(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        return cast(ClientResponse, await tenacious(handler, request))

    among = (*(200,) * 49, *_MENDED)
    return {
        NO_OP: Case((200,), no_op),
        RETRIED: Case(_MENDED, ours()),
        _OFF: Case(_MENDED, ours(metrics=False)),
        _LOOP: Case(_MENDED, ManualRetry()),
        _TENACITY: Case(_MENDED, with_tenacity),
        _REFUSED: Case((None, 200), ours()),
        _AMONG: Case(among, ours(), 50),
        _SUCCESSES: Case((200,) * 49, ours(), 49),
        NOT_RETRIED: Case((503,), ours(), method="POST"),
    }


async def per_pass(case: Case, request: ClientRequest, passes: int) -> float:
    """Microseconds of the process's time for one pass of the case's script."""
    handler, middleware = handler_following(case.script), case.middleware
    calls = passes * (len(case.script) if middleware is None else case.calls)
    middlewares = () if middleware is None else (middleware,)
    began = process_time()
    if middleware is None:
        for _ in range(calls):
            try:
                await handler(request)
            except aiohttp.ClientError:
                continue
    else:
        for _ in range(calls):
            await build_client_middlewares(handler, middlewares)(request)
    return (process_time() - began) * 1e6 / passes


async def measured(every: dict[str, Case], turn: float, rounds: int) -> tuple[Samples, Samples]:
    """Microseconds for one pass of each case, and for the bare attempts in it.

    Raises:
        RuntimeError: a call was not retried, or was, where it was meant otherwise.
    """
    async with aiohttp.ClientSession() as session:
        requests = {
            "GET": (await requests_to(session, [_URL]))[0],
            "POST": (await requests_to(session, [_URL], "POST", b"{}"))[0],
        }
        turns: dict[str, Callable[[], Awaitable[float]]] = {}
        for name, case in every.items():
            request = requests[case.method]
            trial = await per_pass(case, request, 20)
            passes = max(1, int(turn * 1e6 / trial))
            turns[name] = _turn(case, request, passes)
            turns[_bare(name)] = _turn(Case(case.script, None), request, passes)
        gc.collect()
        gc.freeze()
        try:
            samples = await interleaved(turns, rounds)
        finally:
            gc.unfreeze()
    for name, case in every.items():
        if isinstance(case.middleware, AdaptiveRetryMiddleware):
            _check(name, case, case.middleware)
    return {name: samples[name] for name in every}, {name: samples[_bare(name)] for name in every}


def _bare(name: str) -> str:
    return f"bare: {name}"


def _turn(case: Case, request: ClientRequest, passes: int) -> Callable[[], Awaitable[float]]:
    return lambda: per_pass(case, request, passes)


def _check(name: str, case: Case, middleware: AdaptiveRetryMiddleware) -> None:
    """Every call did what its case says."""
    seen = middleware.snapshot()
    counted = seen.requests
    # Each failure in a script is a call of its own.
    failures = sum(status != 200 for status in case.script)
    passes = counted.total // case.calls
    mended = passes * failures if case.method == "GET" else 0
    expected = (counted.total - passes * failures, mended, passes * failures - mended)
    found = (counted.first_success, counted.retry_success, counted.failed_without_retry)
    if seen.faults or found != expected or counted.total != sum(found):
        raise RuntimeError(f"{name}: {counted}, {seen.suppressed}, {seen.faults} faults")


async def failing(effort: Effort) -> tuple[Table, list[Goal]]:
    """Measure, and judge."""
    every = cases()
    samples, bare = await measured(every, effort.turn, effort.failing_rounds)
    over = {name: minus(samples[name], bare[name]) for name in every}
    rows = []
    for name in every:
        net = Spread.of(over[name])
        rows.append(
            (
                name,
                f"{net.median:.2f}",
                f"{net.low:.2f} to {net.high:.2f}",
                f"{median_of_ratios(over[name], over[NO_OP]):.1f}",
                f"{len(every[name].script)}",
                f"{Spread.of(bare[name]).median:.2f}",
            )
        )
    table = Table(
        "CPU of calls that fail, microseconds",
        (
            "calls",
            "over bare attempts",
            "interquartile range",
            "x no-op",
            "bare attempts",
            "their time",
        ),
        rows,
    )
    spread, no_op_costs = Spread.of(over[RETRIED]), Spread.of(over[NO_OP]).median
    ratio = median_of_ratios(over[RETRIED], over[NO_OP])
    goals = [
        Goal(
            f"a retried call over two bare calls (where a no-op costs {_NO_OP_COSTS})",
            spread.median,
            _MOST_OVER,
            "µs",
            quartiles=(spread.low, spread.high),
            why=(
                f"a no-op middleware costs {no_op_costs:.2f} here; at the same ratio it would be "
                f"{_NO_OP_COSTS * ratio:.1f} where one costs {_NO_OP_COSTS}. An SDK histogram has "
                "its part in it, as the rows with and without metrics show."
            ),
        ),
        compared(
            "a retried call over two bare calls, in no-op middlewares",
            over[RETRIED],
            over[NO_OP],
            round(_MOST_OVER / _NO_OP_COSTS),
        ),
    ]
    return table, goals
