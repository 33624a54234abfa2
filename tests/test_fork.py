"""A process that forks after set-up, as gunicorn does with `preload_app`: each counts its own.

The scripts run in processes of their own: forking one with pytest's threads proves nothing.
"""

from __future__ import annotations

import os

import pytest

from .kit.processes import printed_by

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

PRELUDE = """
import asyncio, os, signal, sys, threading
from tests.kit.fakes import ORIGIN, Rig
from tests.kit.metrics import by, metrics_in
from aiohttp_adaptive_retry._origin import counters
from aiohttp_adaptive_retry._telemetry import hub as hubs

def child(run):
    # Forks, runs it there, and gives the exit status; what hangs is killed by the alarm.
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        try:
            run()
            sys.stdout.flush()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]

def requests(rig):
    return by(rig.metrics().get("adaptive_retry.requests", {}), "adaptive_retry.outcome")
"""


def run(script: str) -> list[str]:
    """Run the script behind the prelude; the lines that it printed."""
    return printed_by(PRELUDE + script)


def test_parent_and_child_report_what_each_has_counted() -> None:
    """What was counted before the fork stays the parent's: together they tell the truth."""
    lines = run("""
rig = Rig([200, 503, 200, 200])
async def calls(number):
    for _ in range(number):
        await rig.call()
asyncio.run(calls(3))
rig.middleware._faults(ValueError())
rig.metrics()                                  # an exporter has seen them
def forked():
    snapshot = rig.middleware.snapshot()
    print("child", requests(rig), snapshot.origins, snapshot.faults)
    asyncio.run(calls(2))
    print("child", requests(rig), rig.middleware.snapshot().attempts["original"])
assert child(forked) == 0
print("parent", requests(rig))
""")
    assert lines == [
        "child {} () 0",
        "child {'first_success': 2, 'retry_success': 0, 'failed_without_retry': 0, "
        "'failed_after_retry': 0, 'refused': 0, 'ignored': 0} 2",
        "parent {'first_success': 2, 'retry_success': 1, 'failed_without_retry': 0, "
        "'failed_after_retry': 0, 'refused': 0, 'ignored': 0}",
    ]


def test_counts_of_collected_middlewares_stay_the_parents_too() -> None:
    """The totals of middlewares that are gone are not the child's either."""
    lines = run("""
rig = Rig()
asyncio.run(rig.call())
rig.middleware = None
requests(rig)
def forked():
    print("child", requests(rig))
assert child(forked) == 0
print("parent", requests(rig)["first_success"])
""")
    assert lines == ["child {}", "parent 1"]


def test_a_call_in_flight_is_the_parents() -> None:
    """The child does not wait for ever for the end of a call that it does not run."""
    lines = run("""
rig = Rig()
async def main():
    entered = asyncio.Event()
    async def stuck(request):
        entered.set()
        await asyncio.Event().wait()
    rig.upstream = stuck
    task = asyncio.create_task(rig.call())
    await entered.wait()
    def forked():
        print("child", len(rig.middleware.snapshot().origins))
    assert child(forked) == 0
    print("parent", [origin.in_flight for origin in rig.middleware.snapshot().origins])
    task.cancel()
asyncio.run(main())
""")
    assert lines == ["child 0", "parent [1]"]


@pytest.mark.parametrize(
    "lock",
    [
        "counters._registry._lock",
        "hubs._hubs_lock",
        "hubs._unbound._lock",
        "hub._lock",
        "hub.group._lock",
    ],
)
def test_a_lock_that_another_thread_held_does_not_stop_the_child(lock: str) -> None:
    """An exporter's thread may be at work at the moment of the fork, and is not in the child."""
    lines = run(f"""
rig = Rig()
hub = hubs._hubs[rig.provider]
held = threading.Event()
def hold():
    with {lock}:
        held.set()
        threading.Event().wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
def forked():
    asyncio.run(rig.call())
    print(requests(rig)["first_success"])
    fresh = Rig()
    asyncio.run(fresh.call())
    print(requests(fresh)["first_success"])
assert child(forked) == 0
""")
    assert lines == ["1", "1"]


def test_a_provider_set_after_the_fork_serves_a_middleware_made_before() -> None:
    """gunicorn's `post_fork`: the application is loaded, then each worker sets up its telemetry.

    What was counted before the fork stays the parent's.
    """
    lines = run("""
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from aiohttp_adaptive_retry import AdaptiveRetryMiddleware
rig = Rig([503, 200])
rig.middleware = AdaptiveRetryMiddleware(sleep=rig.clock.sleep)
asyncio.run(rig.call())
def forked():
    rig.reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([rig.reader]))
    asyncio.run(rig.call())
    found = requests(rig)
    print(found["first_success"], found["retry_success"], len(hubs._early_delays))
    print("adaptive_retry.retry.delay" in rig.metrics())
assert child(forked) == 0
assert child(forked) == 0
print(len(hubs._early_delays))
""")
    assert lines == ["1 0 0", "False", "1 0 0", "False", "1"]
