"""examples/standalone.py, as a process."""

from __future__ import annotations

import re

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig

from .runs import run


@pytest.mark.wire
def test_flaky_is_mended_and_gone_is_left_alone() -> None:
    """Retries mend a flaky server, and cost a dead one no more than a full budget would."""
    done = run("standalone.py")
    assert (done.returncode, done.stderr) == (0, "")
    flaky = re.search(r"flaky: (\d+) of 60 calls succeeded, (\d+) attempts", done.stdout)
    gone = re.search(r"gone:  (\d+) of 60 calls succeeded, (\d+) attempts", done.stdout)
    assert flaky
    assert gone
    assert int(flaky[1]) >= 50
    assert int(flaky[2]) > 60
    assert int(gone[1]) == 0
    assert 60 <= int(gone[2]) <= 60 + AdaptiveConfig().budget_capacity
    assert "window: 100 of at most 100 attempts" in done.stdout
