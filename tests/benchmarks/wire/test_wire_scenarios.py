"""What must hold on the wire: short runs of the real middleware beside the plain loop."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import pytest

from aiohttp_adaptive_retry import AdaptiveConfig
from benchmarks.wire.driver import Result, run
from benchmarks.wire.policies import DEADLINE
from benchmarks.wire.report import in_plain_text, write_document
from benchmarks.wire.scenarios import SCENARIOS, arrivals, shortened

pytestmark = [pytest.mark.wire, pytest.mark.timeout(120)]

PLAIN, OURS, ADMITTING = "plain loop", "ours", "ours, admission"
OUTAGES = ("outage_refused", "outage_503")
# Seconds until the policy has learnt from the first failures.
LEARNT = 2.0


@functools.cache
def results(name: str) -> dict[str, Result]:
    """One short run of a scenario; its tests share it."""
    scenario = shortened(SCENARIOS[name], lead=3.0, fault=5.0, tail=5.0)
    if name == "brownout":
        # Deep enough that queues are longer than callers wait before it is over.
        scenario = dataclasses.replace(scenario, severity=0.35)
    return {result.policy: result for result in run(scenario, (PLAIN, OURS, ADMITTING))}


@pytest.mark.parametrize("name", ["outage_503", "one_bad_of_five", "rate_limit", "brownout"])
def test_what_is_sent_is_what_the_servers_receive(name: str) -> None:
    """The counts at both ends are equal, so none of the other checks counts past the truth."""
    for result in results(name).values():
        assert len(result.records) == len(arrivals(result.scenario, 0)) > 100
        assert len(result.sent) == len(result.received) > 100


@pytest.mark.parametrize("name", OUTAGES)
def test_an_outage_costs_one_attempt_a_request(name: str) -> None:
    """After its first seconds at most 1.05; the plain loop sends more than twice as many."""
    found = results(name)
    scenario = found[OURS].scenario
    span = (scenario.lead + LEARNT, scenario.over)
    assert found[PLAIN].amplification_in(*span) > 2.0
    assert found[OURS].amplification_in(*span) <= 1.05
    assert found[ADMITTING].amplification_in(*span) <= 0.5


@pytest.mark.parametrize("name", [*OUTAGES, "restart_2s"])
@pytest.mark.parametrize("policy", [OURS, ADMITTING])
def test_those_who_waited_do_not_come_at_once(name: str, policy: str) -> None:
    """In no tenth of a second after the end is more sent than the server serves in half of one."""
    result = results(name)[policy]
    scenario = result.scenario
    held = sum(record.began < scenario.over < record.ended for record in result.records)
    assert held > 50
    capacity = scenario.rate / scenario.load
    assert 0 < result.peak(scenario.over, scenario.over + 3.0) <= capacity / 2


@pytest.mark.parametrize("name", [*OUTAGES, "restart_2s"])
@pytest.mark.parametrize("policy", [OURS, ADMITTING])
def test_service_is_back_two_seconds_after_an_outage(name: str, policy: str) -> None:
    """Calls that begin then succeed, and most of those that began shortly before its end."""
    result = results(name)[policy]
    scenario = result.scenario
    assert result.success_of(scenario.over + 2.0, scenario.length) >= 0.99
    assert result.success_of(scenario.over - 1.5, scenario.over) > 0.9


@pytest.mark.parametrize("name", [*OUTAGES, "restart_2s"])
def test_nobody_waits_long_in_vain(name: str) -> None:
    """A call that fails has been held for a quarter of its time, so that callers don't pile up."""
    failed = [record for record in results(name)[OURS].records if not record.ok]
    assert len(failed) > 50
    held = AdaptiveConfig().hold_share * DEADLINE
    # The rest is for its attempts, and for a busy machine.
    assert max(record.ended - record.began for record in failed) <= held + 1.5


def test_a_brownout_is_not_made_worse() -> None:
    """Without admission hardly more is sent than was asked for; with it more calls succeed."""
    found = results("brownout")
    scenario = found[OURS].scenario
    assert found[OURS].amplification_in(scenario.lead, scenario.over) <= 1.15
    assert found[PLAIN].amplification > found[OURS].amplification
    assert found[ADMITTING].success >= found[PLAIN].success


def test_one_bad_server_of_five_is_retried_past() -> None:
    """Nearly all calls succeed, with hardly more attempts than failures."""
    result = results("one_bad_of_five")[OURS]
    assert result.success >= 0.98
    assert 1.02 < result.amplification <= 1.27


def test_a_limiter_is_heeded() -> None:
    """Calls wait for the moment it named, so next to all succeed, and few are refused twice."""
    found = results("rate_limit")
    scenario = found[OURS].scenario
    for policy in (OURS, ADMITTING):
        assert found[policy].success >= 0.95
        # It refuses one call in ten.
        assert 1.02 < found[policy].amplification_in(scenario.lead, scenario.over) <= 1.15


def test_the_page_has_every_policy_and_scenario(tmp_path: Path) -> None:
    """What is written is what was measured."""
    found = list(results("outage_503").values())
    page = tmp_path / "WIRE.md"
    write_document(page, [found])
    text = page.read_text()
    assert "## outage_503" in text
    for result in found:
        line = next(row for row in text.splitlines() if row.startswith(f"| {result.policy} |"))
        assert f"{len(result.received)} of {len(result.sent)}" in line
        assert f"{100 * result.success:.1f} %" in in_plain_text(found)
