"""How far a reader has to go to follow one call: so many files, so many Python calls."""

from __future__ import annotations

import pytest

from tools.walk import SCENARIOS, Walk, walk

#: For each scenario the most files and calls, and the answer to the caller.
MOST = {
    # As many as before the package was divided into rooms: the success path is one function.
    "a first success at a quiet moment": (1, 1, 200),
    # The policy is a third of it: four estimators, and deciding apart from doing.
    # Eight calls measure what the call keeps while it waits, and how full the container is.
    # Seven see whether anybody wants to know of it, and put a report on the answer.
    # Three find out how much time the call has left, and four whether its session is closed.
    # Two find the configuration that the call began with, and three the way to its origin.
    # Three see that the origin is one that may be retried, and note that it has succeeded.
    "a 503, then a 200": (24, 101, 200),
    # Five attempts: who has no token looks for itself.
    "a 503 for ever": (24, 570, 503),
}


async def walked(title: str) -> Walk:
    """The walk of one scenario, which has to have come through the middleware."""
    (scenario,) = (found for found in SCENARIOS if found.title == title)
    found = await walk(scenario)
    assert found.steps
    assert found.steps[0][:3] == (1, "_http/middleware.py", "AdaptiveRetryMiddleware.__call__")
    return found


def test_every_scenario_is_measured() -> None:
    """A scenario without bounds here would hold nothing."""
    assert {scenario.title for scenario in SCENARIOS} == set(MOST)


@pytest.mark.parametrize("title", MOST)
async def test_the_way_of_a_call_is_short(title: str) -> None:
    """No call passes through more files or Python functions than it is allowed."""
    files, calls, status = MOST[title]
    found = await walked(title)
    assert found.status == status
    assert len(found.files) <= files, str(found)
    assert len(found.steps) <= calls, str(found)


async def test_a_retry_passes_through_the_driver_and_the_policy() -> None:
    """The measure sees functions, coroutines and generated constructors, each once."""
    found = await walked("a 503, then a 200")
    names = [step.function for step in found.steps]
    assert found.requests == 2
    assert names.count("AdaptiveRetryMiddleware.__call__") == 1
    assert names.count("CallDriver.outcome") == 2
    assert names.count("AdaptivePolicy.outcome") == 2
    assert {step.function for step in found.steps if step.generated} >= {
        "_HttpCall.__init__",
        "CallState.__init__",
    }
    assert found.depth == max(step.depth for step in found.steps) > 5


async def test_retries_that_all_fail_are_all_seen() -> None:
    """A call that is given up has asked the driver after each of its attempts.

    The first retry has used up the one token that an unknown origin has; the others look.
    """
    found = await walked("a 503 for ever")
    names = [step.function for step in found.steps]
    assert found.requests == names.count("CallDriver.outcome") == 5


async def test_the_command_prints_the_tree() -> None:
    """Each step has a line, indented by its depth, with its file."""
    found = await walked("a first success at a quiet moment")
    title, files, *tree = str(found).splitlines()
    assert title.startswith("a first success at a quiet moment: 1 files, 1 calls, 1 deep")
    assert files.strip() == "_http/middleware.py"
    assert tree == ["  AdaptiveRetryMiddleware.__call__  (_http/middleware.py)"]
