"""`origins=`: settings by origin or host; `reconfigure`: other settings from now on."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest
from yarl import URL

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware
from aiohttp_adaptive_retry.config import Mode

from ..kit.clock import Clock
from ..kit.fakes import Rig, Upstream
from ..kit.faults import hang, reply
from ..kit.fixtures import Open, Serve, open_session, serve

__all__ = ("open_session", "serve")


def rig_of(origins: dict[str, AdaptiveConfig], *script: Any, **fields: Any) -> Rig:
    """A rig with settings by origin, which affords some retries."""
    rig = Rig(script or [500])
    rig.middleware = AdaptiveRetryMiddleware(
        AdaptiveConfig(**fields),
        origins=origins,
        meter_provider=rig.provider,
        clock=rig.clock,
        sleep=rig.clock.sleep,
        random=lambda: 0.5,
    )
    return rig


async def attempts(rig: Rig, url: str, method: str = "GET") -> int:
    """How often a call to that URL is sent."""
    before = rig.upstream.hits
    rig.clock.now += 1000
    await rig.call(URL(url), method)
    return rig.upstream.hits - before


def of(attempts: int, **fields: Any) -> AdaptiveConfig:
    return AdaptiveConfig(max_attempts=attempts, budget_initial=20, budget_capacity=20, **fields)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.com/", 2),
        ("https://API.example.com:443/x", 2),
        ("http://api.example.com/", 3),
        ("https://api.example.com:8443/", 3),
        ("http://batch.example.com:81/", 4),
        ("http://batch.example.com/", 3),
        ("wss://sock.example.com/", 2),
        ("http://[::1]:8080/", 4),
        ("http://xn--bcher-kva.example/", 2),
        ("http://other.example.com/", 1),
        ("http://notapi.example.com/", 1),
    ],
)
async def test_an_origins_key_wins_over_a_hosts(url: str, expected: int) -> None:
    """And a host with a port over the host alone; all else has the middleware's settings."""
    rig = rig_of(
        {
            "https://API.example.com": of(2),
            "api.example.com": of(3),
            "batch.example.com:81": of(4),
            "batch.example.com": of(3),
            "wss://sock.example.com:443/": of(2),
            "[::1]": of(4),
            "bücher.example": of(2),
        },
        max_attempts=1,
    )
    assert await attempts(rig, url) == expected


async def test_what_counts_as_a_failure_is_an_origins_own() -> None:
    """Statuses and methods are those of the origin that is called."""
    rig = rig_of(
        {"a.example": of(2, retry_statuses={418}, retry_methods={"POST"}), "b.example": of(2)}, 418
    )
    assert await attempts(rig, "http://a.example/", "POST") == 2
    assert await attempts(rig, "http://a.example/", "GET") == 1
    assert await attempts(rig, "http://b.example/", "GET") == 1
    requests = rig.middleware.snapshot().requests
    assert (requests.failed_after_retry, requests.failed_without_retry) == (1, 1)
    assert requests.first_success == 1


async def test_an_origins_attempt_timeout(serve: Serve, open_session: Open) -> None:
    """Holds for first attempts to that origin, on a session with others."""
    silent, slow = await serve(hang(), reply()), await serve(reply())
    clock = Clock()
    retry = AdaptiveRetryMiddleware(
        origins={f"http://127.0.0.1:{silent.url.port}": AdaptiveConfig(attempt_timeout=0.1)},
        clock=clock,
        sleep=clock.sleep,
    )
    session = open_session(retry)
    for server in (silent, slow):
        async with session.get(server.url) as answer:
            assert answer.status == 200
    assert (silent.hits, slow.hits) == (2, 1)


@pytest.mark.parametrize(
    ("switch", "whole", "own", "hits", "counted"),
    [
        ("on", "on", "off", 1, 0),
        ("on", "on", "observe", 1, 1),
        ("on", "observe", "on", 1, 1),
        ("on", "off", "on", 1, 0),
        ("observe", "on", "off", 1, 0),
        ("off", "on", "on", 1, 0),
        ("on", "on", "on", 2, 1),
    ],
)
async def test_the_strictest_mode_holds(
    switch: Mode, whole: Mode, own: Mode, hits: int, counted: int
) -> None:
    """Of the switch, the configuration's and the origin's."""
    rig = rig_of({"a.example": of(2, mode=own)}, mode=whole, max_attempts=2)
    rig.middleware.mode = switch
    assert await attempts(rig, "http://a.example/") == hits
    assert rig.middleware.snapshot().requests.total == counted


async def test_other_origins_are_not_touched() -> None:
    """What holds for one origin changes nothing for the others: admission, modes, statuses."""
    rig = rig_of({"a.example": of(2, mode="off"), "c.example": of(2, admission=True)}, 500, 200)
    assert await attempts(rig, "http://b.example/") == 2
    assert rig.middleware.snapshot().requests.retry_success == 1


def test_what_all_share_is_the_middlewares() -> None:
    """Memory bounds and what is recorded are one for all."""
    rig = rig_of({"a.example": AdaptiveConfig(window_size=10, hold_cap=1)}, window_size=50)
    origin = rig.middleware._registry.find(URL("http://a.example/"))
    assert (origin.window.size, origin.config.window_size, origin.config.hold_cap) == (50, 50, 1)


@pytest.mark.parametrize(
    ("origins", "text"),
    [
        ([("a.example", None)], "origins must be a mapping of origins or hosts to AdaptiveConfigs"),
        ({"a.example": {"max_attempts": 1}}, "origins['a.example'] must be an AdaptiveConfig, got"),
        ({"a.example": AdaptiveConfig}, "origins['a.example'] must be an AdaptiveConfig, got"),
        ({5: AdaptiveConfig()}, "each key of origins must be a str, got 5"),
        ({"": AdaptiveConfig()}, "each key of origins must be an origin, as 'https://example.com'"),
        ({"https://": AdaptiveConfig()}, "each key of origins must be an origin"),
        ({"*.example.com": AdaptiveConfig()}, "or a host, as 'example.com', got '*.example.com'"),
        ({"a b": AdaptiveConfig()}, "got 'a b'"),
        ({"a.example/path": AdaptiveConfig()}, "got 'a.example/...'"),
        ({"https://a.example/path": AdaptiveConfig()}, "got 'https://a.example/...'"),
        ({"https://a.example?x=1": AdaptiveConfig()}, "got 'https://a.example/...'"),
        ({"https://a.example:99999": AdaptiveConfig()}, "got 'https://a.example:99999'"),
        ({"ftp://a.example": AdaptiveConfig()}, "one of the schemes http, https, ws, wss, got"),
        (
            {"https://a.example": AdaptiveConfig(), "https://A.example:443": AdaptiveConfig()},
            "origins has two keys for the same place, one is 'https://A.example:443'",
        ),
    ],
    ids=range(14),
)
def test_bad_keys_and_values_are_named(origins: Any, text: str) -> None:
    """When the middleware is made."""
    with pytest.raises((TypeError, ValueError), match=re.escape(text)):
        AdaptiveRetryMiddleware(origins=origins)


@pytest.mark.parametrize("key", ["https://me:s3cret@a.example", "a.example/s3cret", "a?s3cret"])
def test_what_may_be_a_secret_in_a_key_is_not_shown(key: str) -> None:
    """Userinfo, path and query."""
    with pytest.raises(ValueError, match="each key of origins") as caught:
        AdaptiveRetryMiddleware(origins={key: AdaptiveConfig()})
    assert "s3cret" not in str(caught.value)


# Other settings from now on.


async def test_reconfigure_keeps_windows_and_what_was_learnt() -> None:
    """Counts, windows and the budget stay; attempts are those of the new settings."""
    rig = Rig([500], budget_initial=20, max_attempts=2)
    await rig.call()
    retry, before = rig.middleware, rig.middleware.snapshot()
    origin = retry._registry.listed()[0]
    policy = origin.policy
    config = AdaptiveConfig(max_attempts=1, window_size=500, budget_capacity=3)
    retry.reconfigure(config)
    assert retry.config is config
    after = retry.snapshot()
    assert after.requests == before.requests
    assert after.origins[0].window_length == before.origins[0].window_length == 2
    assert retry._registry.listed()[0].policy is policy
    assert (after.origins[0].budget_limit, after.origins[0].budget_available) == (3.0, 3.0)
    hits = rig.upstream.hits
    await rig.call()
    assert rig.upstream.hits == hits + 1
    assert origin.window.size == 500
    retry.reconfigure(AdaptiveConfig(max_attempts=3, window_size=1, retry_statuses={418}))
    assert origin.window.size == len(origin.window) == 1
    assert (await rig.call()).status == 500
    assert retry.snapshot().requests.first_success == 1


async def test_calls_under_way_go_on_as_they_began() -> None:
    """Those in their first attempt, and those that wait."""
    rig = Rig([500], budget_initial=20, max_attempts=2)
    upstream = rig.upstream
    configs = [AdaptiveConfig(max_attempts=1, retry_statuses={418})]

    async def changing(request: Any) -> Any:
        rig.clock.now += 0.01
        if configs:
            rig.middleware.reconfigure(configs.pop())
        return await upstream(request)

    rig.upstream = changing  # type: ignore[assignment]
    await rig.call()
    assert upstream.hits == 2

    waiting = Rig([500, 500, 500], budget_initial=20, max_attempts=3)

    async def meanwhile() -> None:
        if waiting.middleware.config.max_attempts == 3:
            waiting.middleware.reconfigure(AdaptiveConfig(max_attempts=1))

    waiting.clock.meanwhile = meanwhile
    await waiting.call()
    assert waiting.upstream.hits == 3
    await waiting.call()
    assert waiting.upstream.hits == 4


async def test_reconfigure_of_everything_else() -> None:
    """Durations of windows, the table's bound, time-outs, admission and the mode."""
    rig = Rig([200])
    retry = rig.middleware
    for name in "abc":
        await rig.call(URL(f"http://{name}.example/"))
    retry.reconfigure(
        AdaptiveConfig(
            max_origins=2,
            window_duration=timedelta(seconds=5),
            attempt_timeout=0.05,
            admission=True,
            max_held_calls=7,
            cleanup_frequency=3,
        )
    )
    assert [origin.host for origin in retry.snapshot().origins] == ["b.example", "c.example"]
    assert sum(origin.window_length for origin in retry.snapshot().origins) == 2
    rig.clock.now += 6
    assert sum(origin.window_length for origin in retry.snapshot().origins) == 0
    assert retry._registry.waiting._most == 7

    async def hanging(request: Any) -> Any:
        await asyncio.sleep(30)

    rig.upstream = hanging  # type: ignore[assignment]
    with pytest.raises(TimeoutError):
        await rig.call(URL("http://c.example/"))
    retry.reconfigure(AdaptiveConfig(mode="off"))
    rig.upstream = Upstream([200])
    before = retry.snapshot().requests.total
    await rig.call()
    assert retry.snapshot().requests.total == before
    assert retry.mode == "off"


async def test_origins_keep_their_own_settings() -> None:
    """Only the middleware's own are replaced."""
    rig = rig_of({"a.example": of(2)}, max_attempts=1)
    assert await attempts(rig, "http://a.example/") == 2
    rig.middleware.reconfigure(AdaptiveConfig(max_attempts=3, budget_initial=20))
    assert await attempts(rig, "http://a.example/") == 2
    assert await attempts(rig, "http://b.example/") == 3


def test_reconfigure_takes_a_config() -> None:
    """Anything else is named, and nothing is changed."""
    retry = AdaptiveRetryMiddleware(max_attempts=3)
    for wrong in (None, {"max_attempts": 1}, AdaptiveConfig):
        with pytest.raises(TypeError, match="config must be an AdaptiveConfig, got"):
            retry.reconfigure(wrong)  # type: ignore[arg-type]
    assert retry.config.max_attempts == 3
