"""Section 3: windows from a hundred to a million attempts, origins from one to their bound."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from time import thread_time

import aiohttp
from aiohttp import ClientRequest
from opentelemetry.metrics import NoOpMeterProvider

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, AdaptiveStrategy

from .collection import collection
from .effort import Effort
from .figures import Samples, Spread, interleaved, median_of_ratios, minus, ratio_of_medians
from .in_process import per_call
from .result import Goal, Section, Table, compared
from .stand_ins import requests_to

__all__ = ("scaling",)

_WINDOWS = (100, 1_000, 10_000, 100_000, 1_000_000)
_ORIGINS = (1, 10, 100, 1_000, 1_024)
# The usual, and as many as the catalogue has names for.
_ERROR_TYPES = (1, 254)
_URL = "https://api.example.com:8443/v1/items"


def scaling(effort: Effort) -> Section:
    """Measure, and judge."""
    section = Section(
        title="Scaling",
        text=(
            "Windows are filled to their size before they are measured, so that every insertion "
            "drops one. Origins are real distinct URLs in real requests, taken in turn: the worst "
            "order for a table in order of use. Ratios are of what comes on top of a bare handler "
            f"over the same requests. {effort.scaling_rounds} interleaved rounds."
        ),
    )
    asyncio.run(_windows_and_origins(effort, section))
    _expiry(effort, section)
    collection(effort, section)
    return section


async def _windows_and_origins(effort: Effort, section: Section) -> None:
    async with aiohttp.ClientSession() as session:
        one = await requests_to(session, [_URL])
        many = await requests_to(
            session, [f"https://host-{n}.example.com/v1/items" for n in range(max(_ORIGINS))]
        )
        windows = {"bare": _turn(None, one, effort)}
        for size in _WINDOWS:
            middleware = _ours(AdaptiveConfig(window_size=size))
            await per_call(middleware, one, size + 1)
            windows[f"{size:,}"] = _turn(middleware, one, effort)
        origins = {}
        for count in _ORIGINS:
            origins[f"bare {count:,}"] = _turn(None, many[:count], effort)
            origins[f"{count:,}"] = _turn(_ours(AdaptiveConfig()), many[:count], effort)
        gc.collect()
        gc.freeze()
        try:
            by_window = await interleaved(windows, effort.scaling_rounds)
            by_count = await interleaved(origins, effort.scaling_rounds)
        finally:
            gc.unfreeze()
    over_window = {
        f"{size:,}": minus(by_window[f"{size:,}"], by_window["bare"]) for size in _WINDOWS
    }
    over_count = {
        f"{count:,}": minus(by_count[f"{count:,}"], by_count[f"bare {count:,}"])
        for count in _ORIGINS
    }
    section.tables += [
        _table("window of", by_window, over_window),
        _table("live origins", by_count, over_count),
    ]
    section.goals += [
        _goal("window of 1,000,000 over window of 100", over_window, "1,000,000", "100", 1.1),
        _goal("1,000 live origins over one", over_count, "1,000", "1", 2.0),
    ]


def _ours(config: AdaptiveConfig) -> AdaptiveRetryMiddleware:
    return AdaptiveRetryMiddleware(config, meter_provider=NoOpMeterProvider())


def _turn(
    middleware: AdaptiveRetryMiddleware | None, requests: list[ClientRequest], effort: Effort
) -> Callable[[], Awaitable[float]]:
    # About a turn's time at two microseconds a call, and at least one call for every request.
    calls = max(int(effort.turn * 1e6 / 2), len(requests))
    return lambda: per_call(middleware, requests, calls)


def _table(what: str, samples: Samples, over: Samples) -> Table:
    first = next(iter(over.values()))
    return Table(
        f"CPU per call by {what}, microseconds",
        (
            what,
            "median",
            "interquartile range",
            "over bare",
            "x first, of medians",
            "x first, median of rounds",
        ),
        [
            (
                name,
                f"{Spread.of(samples[name]).median:.3f}",
                f"{Spread.of(samples[name]).low:.3f} to {Spread.of(samples[name]).high:.3f}",
                f"{Spread.of(net).median:.3f}",
                f"{ratio_of_medians(net, first):.3f}",
                f"{median_of_ratios(net, first):.3f}",
            )
            for name, net in over.items()
        ],
    )


def _goal(what: str, over: Samples, large: str, small: str, limit: float) -> Goal:
    return compared(what, over[large], over[small], limit)


# Expiry: a million attempts that have all grown too old by the next call.


def _expiry(effort: Effort, section: Section) -> None:
    size = effort.expiring
    cases: dict[str, Callable[[], float]] = {}
    for kinds in _ERROR_TYPES:
        for share in (1.0, 0.5):
            name = f"error types: {kinds}, {share:.0%} expired"
            cases[f"record_success, {name}"] = _expiring(size, kinds, share, _record)
            cases[f"success_rate, {name}"] = _expiring(size, kinds, share, _read)
    samples: Samples = {name: [] for name in cases}
    for _ in range(effort.expiry_rounds):
        for name, case in cases.items():
            samples[name].append(case())
    section.tables.append(
        Table(
            f"Expiry of up to {size:,} attempts at once: the one call that meets it, milliseconds",
            ("call and window", "median", "interquartile range"),
            [
                (name, f"{spread.median:.3f}", f"{spread.low:.3f} to {spread.high:.3f}")
                for name, spread in ((name, Spread.of(f)) for name, f in samples.items())
            ],
        )
    )
    for kinds in _ERROR_TYPES:
        mark = f"error types: {kinds},"
        worst = max(Spread.of(figures).median for name, figures in samples.items() if mark in name)
        section.goals.append(
            Goal(f"a call that meets the expiry of {size:,}, {mark[:-1]}", worst, 5.0, "ms")
        )


def _record(strategy: AdaptiveStrategy) -> None:
    strategy.record_success()


def _read(strategy: AdaptiveStrategy) -> None:
    assert 0.0 <= strategy.success_rate <= 1.0


def _expiring(
    size: int, kinds: int, share: float, call: Callable[[AdaptiveStrategy], None]
) -> Callable[[], float]:
    """Milliseconds that a call takes when that share of a full window has just expired."""
    errors = [_error_class(n)() for n in range(kinds)]

    def measured() -> float:
        now = 0.0
        strategy = AdaptiveStrategy(
            window_size=size, cleanup_frequency=1_000_000_000, clock=lambda: now
        )
        _fill(strategy, int(size * share), errors)
        # The duration is half an hour; what comes now outlives what came before.
        now = 1_000.0
        _fill(strategy, size - int(size * share), errors)
        now = 1_801.0 if share < 1.0 else 10_000.0
        began = thread_time()
        call(strategy)
        return (thread_time() - began) * 1e3

    return measured


def _fill(strategy: AdaptiveStrategy, count: int, errors: list[Exception]) -> None:
    """Successes, with a failure among every four if there are errors to fail with."""
    for number in range(count):
        if errors and number % 4 == 0:
            _step(strategy, errors[number // 4 % len(errors)])
        else:
            strategy.record_success()


def _step(strategy: AdaptiveStrategy, error: Exception) -> None:
    # should_retry never suspends: one step runs it to its end.
    try:
        strategy.should_retry(error).send(None)
    except StopIteration:
        return
    raise AssertionError("should_retry suspended")


def _error_class(number: int) -> type[Exception]:
    return type(f"Error{number}", (Exception,), {})
