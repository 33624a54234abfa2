"""docs/RECIPES.md: each snippet runs as it stands, and does what its title says."""

from __future__ import annotations

import ast
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig

from .kit.faults import Action, FaultServer, raw, reply, reset
from .kit.fixtures import open_session, serve

__all__ = ("open_session", "serve")

PAGE = (Path(__file__).parents[1] / "docs/RECIPES.md").read_text(encoding="utf-8")
PREAMBLE, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
RECIPES: dict[str, str] = dict(
    re.findall(r"\n### ([^\n]+)\n.*?```python\n(.*?)```", PAGE, re.DOTALL)
)

JSON = "Content-Type: application/json\r\n"
BUSY = reply(200, b'{"errors": ["busy"]}', headers=JSON)
DONE = reply(200, b'{"data": 1}', headers=JSON)
CUT = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nhalf", then="close")
FAILS, WORKS = reply(503, b"no"), reply(200, b"yes")

Check = Callable[[SimpleNamespace, FaultServer], bool]
#: For each recipe: what the server does, and what must have come of it.
SCENES: dict[str, tuple[list[Action], Check]] = {
    "Retries for some requests of a session that somebody else made": (
        [FAILS, WORKS],
        lambda it, server: it.body == b"yes" and server.hits == 2,
    ),
    "This POST may be sent twice": (
        [FAILS, WORKS],
        lambda it, server: [body.data for body in server.bodies] == [b"order 17"] * 2,
    ),
    "Not this call, and that one twice at most": (
        [FAILS],
        lambda it, server: (it.never, it.twice, server.hits) == (503, 503, 3),
    ),
    "This call has three seconds": (
        [reply(503, headers="Retry-After: 5\r\n")],
        lambda it, server: (it.status, server.hits) == (503, 1),
    ),
    "A 200 with an error in its body": (
        [BUSY, DONE],
        lambda it, server: it.answer == {"data": 1} and server.hits == 2,
    ),
    "A body that breaks off is retried too": (
        [CUT, WORKS],
        lambda it, server: it.body == b"yes" and server.hits == 2,
    ),
    "Rate limits": (
        [reply(429, headers="Retry-After: 90\r\n")],
        lambda it, server: it.come_back_in == 90.0 and server.hits == 1,
    ),
    "Other settings for one host": (
        [FAILS, WORKS],
        lambda it, server: it.body == b"yes" and server.hits == 2,
    ),
    "A handler that has to answer within two seconds": (
        [FAILS, WORKS],
        lambda it, server: it.body == b"yes" and server.hits == 2,
    ),
    "A nightly job that tries for a minute": (
        [FAILS, WORKS],
        lambda it, server: it.body == b"yes" and server.hits == 2,
    ),
    "Five requests to a host at a time": (
        [WORKS],
        lambda it, server: it.bodies == [b"yes"] * 20 and server.connections <= 5,
    ),
    "A line in the log for each retry": (
        [FAILS, WORKS],
        lambda it, server: it.body == b"yes" and any("attempt 1 failed" in line for line in it.log),
    ),
    "A function of mine for each retry": (
        [FAILS, WORKS],
        lambda it, server: it.kinds == ["retry", "mended"],
    ),
    "Why was this call not retried?": (
        [reply(500)],
        lambda it, server: it.why == "not_idempotent",
    ),
    "Why did this exception come?": (
        [reset()],
        lambda it, server: it.note.endswith("no further retry: max_attempts"),
    ),
    "Metrics": (
        [FAILS, WORKS],
        lambda it, server: "adaptive_retry.attempts" in it.metrics.to_json(),
    ),
    "A switch for emergencies": (
        [FAILS],
        lambda it, server: (it.status, server.hits) == (503, 1),
    ),
    "Other settings while it runs": (
        [FAILS],
        lambda it, server: (it.status, server.hits) == (503, 1),
    ),
    "Settings from the environment": (
        [FAILS],
        lambda it, server: server.hits == it.retry.config.max_attempts == 2,
    ),
    "Tests that don't wait": (
        [FAILS, WORKS],
        lambda it, server: it.status == 200 and len(it.waits) == 1,
    ),
    "A slip in the settings": (
        [WORKS],
        lambda it, server: "max_attempts" in it.told,
    ),
}


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """A recipe sets the log's level; the next test has the usual one."""
    logger = logging.getLogger("aiohttp_adaptive_retry")
    level = logger.level
    yield
    logger.setLevel(level)


def test_each_recipe_has_a_scene() -> None:
    """No recipe stands there untried."""
    assert list(RECIPES) == list(SCENES)
    assert PAGE.count("```python") == len(RECIPES) + 1


@pytest.mark.parametrize("title", RECIPES)
def test_recipes_are_short(title: str) -> None:
    """Ten lines at most, empty ones left out."""
    assert len([line for line in RECIPES[title].splitlines() if line.strip()]) <= 10


@pytest.mark.parametrize("title", RECIPES)
async def test_the_recipe_does_what_it_says(
    serve: Callable[..., Any],
    title: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It runs against a real server, in real time."""
    monkeypatch.setenv("ADAPTIVE_RETRY_MAX_ATTEMPTS", "2")
    actions, check = SCENES[title]
    server = await serve(*actions)
    names: dict[str, Any] = {"url": server.url}
    exec(PREAMBLE, names)  # noqa: S102
    code = compile(RECIPES[title], title, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(code, names)  # noqa: S307
    if inspect.iscoroutine(running):
        await running
    names["log"] = [record.getMessage() for record in caplog.records]
    seen = SimpleNamespace(**names)
    assert check(seen, server), {name: value for name, value in names.items() if name[0] != "_"}


def test_fields_that_recipes_set_exist() -> None:
    """The page's settings are those of the configuration."""
    fields = set(AdaptiveConfig.__dataclass_fields__)
    used = set(re.findall(r"[(, ]([a-z_]+)=\d", "".join(RECIPES.values())))
    assert {"retry_after_cap", "retry_for"} <= used
    assert used - {"total", "limit_per_host", "deadline", "max_retries"} <= fields
