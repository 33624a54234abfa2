"""The set-up helper: who sends, where to, how it ends, and what a fork makes of it."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, otlp

from .kit.fakes import Rig
from .kit.otlp_receiver import Receiver
from .kit.processes import environment, printed_by
from .kit.waiting import eventually

CUMULATIVE = 2


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        yield server


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine steers these tests, and no proxy either."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)


@pytest.fixture
def to_receiver(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    for name, value in receiver.variables().items():
        monkeypatch.setenv(name, value)
    return receiver


def count(export: otlp.OtlpExport, number: int = 1) -> None:
    export.meter_provider.get_meter("test").create_counter("things").add(number)


def test_exported_names() -> None:
    """The public surface of the set-up, pinned as that of the package is."""
    assert sorted(otlp.__all__) == ["Destination", "OtlpExport", "configure", "destination"]
    for name in otlp.__all__:
        assert getattr(otlp, name) is not None


def test_metrics_and_spans_arrive(to_receiver: Receiver) -> None:
    """What a middleware counted and every attempt's span are there once it is closed."""
    rig = Rig([503, 200])
    with otlp.configure("shop", service_version="1.2", traces=True) as export:
        rig.middleware = AdaptiveRetryMiddleware(
            AdaptiveConfig(attempt_spans=True),
            meter_provider=export.meter_provider,
            tracer_provider=export.tracer_provider,
            sleep=rig.clock.sleep,
        )
        asyncio.run(rig.call())
    ((_, _, temporality, attempts),) = to_receiver.series("adaptive_retry.attempts")
    assert (temporality, attempts) == (CUMULATIVE, 2)
    (resource,) = to_receiver.resources()
    assert resource["service.name"] == "shop"
    assert resource["service.version"] == "1.2"
    assert len(resource["service.instance.id"]) == 36
    assert [span.name for span in to_receiver.spans()] == ["GET", "GET"]
    assert to_receiver.damaged == 0


def test_the_environment_names_the_service(
    to_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard variables win over the arguments."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "till")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=one,team=blue")
    with otlp.configure("shop", service_version="1.2") as export:
        count(export)
    (resource,) = to_receiver.resources()
    assert resource.items() >= {
        ("service.name", "till"),
        ("service.instance.id", "one"),
        ("service.version", "1.2"),
        ("team", "blue"),
    }


def test_the_environment_sets_the_pace(
    to_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interval of the environment's wins: data come although the argument says never."""
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    with otlp.configure("shop", export_interval=1e6) as export:
        count(export)
        assert eventually(lambda: to_receiver.series("things") != [])


def test_the_argument_sets_the_pace_otherwise(to_receiver: Receiver) -> None:
    """Seconds, from here to the SDK's milliseconds."""
    with otlp.configure("shop", export_interval=0.05) as export:
        count(export)
        assert eventually(lambda: to_receiver.series("things") != [])


def test_the_environment_limits_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the argument; the exporter reads its variable where one is set."""
    assert otlp._limit("metrics", 4.5) == otlp._limit("traces", 4.5) == 4.5
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7")
    assert (otlp._limit("metrics", 4.5), otlp._limit("traces", 4.5)) == (4.5, None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "7")
    assert otlp._limit("metrics", 4.5) is None


@pytest.mark.parametrize("exporters", ["none", "prometheus"])
def test_exporters_that_are_not_otlp_are_not_ours(
    exporters: str, to_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who left out `otlp` gets no export, and providers that work all the same."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", exporters)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", exporters)
    with otlp.configure("shop", traces=True) as export:
        count(export)
        assert export.tracer_provider is not None
        export.tracer_provider.get_tracer("test").start_span("one").end()
    assert (to_receiver.metrics, to_receiver.traces) == ([], [])


def test_a_disabled_sdk_sends_nothing(
    to_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_SDK_DISABLED` is heeded."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with otlp.configure("shop", traces=True) as export:
        count(export)
    assert (to_receiver.metrics, to_receiver.traces) == ([], [])


def test_twice_called_makes_two(to_receiver: Receiver) -> None:
    """Two exports, each of its own numbers and under its own instance; closing one leaves one."""
    first, second = otlp.configure("shop"), otlp.configure("shop")
    count(first, 1)
    count(second, 2)
    first.close()
    count(second, 2)
    second.close()
    totals = {instance: total for _, instance, _, total in to_receiver.series("things")}
    assert sorted(totals.values()) == [1, 4]


def test_closing_again_does_nothing(
    to_receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """One last export, and no complaint of the SDK's."""
    with otlp.configure("shop") as export:
        count(export)
        export.close()
    export.close()
    assert len(to_receiver.series("things")) == 1
    assert caplog.records == []


def test_the_destination_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The specification's default, then the variable for all signals, then the signal's own."""
    assert otlp.destination() == ("http/protobuf", "http://localhost:4318", False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    assert otlp.destination() == ("grpc", "http://localhost:4317", False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", " ")
    assert not otlp.destination().chosen
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1")
    assert otlp.destination() == ("grpc", "http://all:1", True)
    assert otlp.destination("traces") == ("grpc", "http://traces:1", True)


@pytest.mark.parametrize("part", ["METRICS_", "TRACES_", ""])
def test_a_protocol_without_an_exporter_is_named(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is set up, with the variable that was read; nothing is left running."""
    variable = f"OTEL_EXPORTER_OTLP_{part}PROTOCOL"
    monkeypatch.setenv(variable, "carrier-pigeon")
    # An empty variable is an unset one.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "")
    threads = set(threading.enumerate())
    with pytest.raises(ValueError, match=rf"^{variable} must be .*'carrier-pigeon'"):
        otlp.configure("shop", traces=True)
    assert set(threading.enumerate()) <= threads


def test_times_are_seconds_or_timedeltas(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is neither is named."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    with otlp.configure("shop", close_timeout=timedelta(seconds=0.5)) as export:
        assert export._close_timeout == 0.5
    wrong: Any = "5"
    with pytest.raises(TypeError, match="export_timeout must be a number of seconds or a timedelt"):
        otlp.configure("shop", export_timeout=wrong)


@pytest.mark.parametrize("name", ["export_interval", "export_timeout", "close_timeout"])
@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_time_has_to_be_one(name: str, value: float) -> None:
    """Field and value are named."""
    with pytest.raises(ValueError, match=f"{name} must be a number of seconds above 0, got"):
        otlp.configure("shop", **{name: value})  # type: ignore[arg-type]


# The end.


class Hanging:
    """A provider whose shutdown never ends, as with a collector that never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    def shutdown(self, **_: object) -> None:
        self.asked.set()
        threading.Event().wait()


def test_what_hangs_is_left_behind(caplog: pytest.LogCaptureFixture) -> None:
    """`close` ends although neither provider does, and says that data may be lost."""
    meters, tracers = Hanging(), Hanging()
    otlp.OtlpExport(meters, tracers, close_timeout=0.05).close()  # type: ignore[arg-type]
    assert meters.asked.wait(5)
    assert tracers.asked.wait(5)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_shutdown_that_fails_is_a_line_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """`close` never raises, and the line has the error's type and not its text."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("http://secret")

    provider = MeterProvider(shutdown_on_exit=False)
    monkeypatch.setattr(provider, "shutdown", fail)
    otlp.OtlpExport(provider, None, close_timeout=5).close()
    assert [record.getMessage() for record in caplog.records] == [
        "telemetry may be lost: RuntimeError while it was closed"
    ]


def test_at_the_interpreters_end_it_closes_without_threads(
    to_receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no thread can be started any more, the last export is made all the same."""
    export = otlp.configure("shop", traces=True)
    count(export)

    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

    # The receiver's threads go on: they are of another process, so to speak.
    monkeypatch.setattr(otlp, "threading", SimpleNamespace(Thread=Refused))
    export.close()
    assert len(to_receiver.series("things")) == 1


@pytest.mark.wire
def test_who_forgets_to_close_loses_nothing(receiver: Receiver) -> None:
    """At the interpreter's exit it is done, once, for what is not closed."""
    script = """
from aiohttp_adaptive_retry import otlp
closed, forgotten = (otlp.configure("shop", traces=True) for _ in range(2))
for number, export in enumerate((closed, forgotten), 1):
    export.meter_provider.get_meter("test").create_counter("things").add(number)
    export.tracer_provider.get_tracer("test").start_span("one").end()
closed.close()
"""
    printed_by(script, **receiver.variables())
    assert sorted(total for *_, total in receiver.series("things")) == [1, 2]
    assert len(receiver.spans()) == 2


@pytest.mark.wire
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("collector", ["dead", "mute", "none"])
def test_no_collector_delays_the_end(protocol: str, collector: str) -> None:
    """Refused, never answered, or not even named: calls succeed and the process ends in time.

    Half a second is asked; without a limit it would be what the exporters take to give up.
    """
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if collector == "mute":
            server.listen()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        variables = {} if collector == "none" else {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        lines = printed_by(
            """
import asyncio, time
from aiohttp_adaptive_retry import AdaptiveConfig, AdaptiveRetryMiddleware, otlp
from tests.kit.fakes import Rig
export = otlp.configure("shop", traces=True, export_interval=0.05, close_timeout=0.5)
rig = Rig([503, 200])
rig.middleware = AdaptiveRetryMiddleware(
    AdaptiveConfig(attempt_spans=True),
    meter_provider=export.meter_provider,
    tracer_provider=export.tracer_provider,
    sleep=rig.clock.sleep,
)
async def calls():
    for _ in range(20):
        assert (await rig.call()).status == 200
        await asyncio.sleep(0.01)
asyncio.run(calls())
snapshot = rig.middleware.snapshot()
print(snapshot.requests.total, snapshot.faults)
started = time.monotonic()
export.close()
print(time.monotonic() - started)
""",
            OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            **variables,
        )
    assert lines[0] == "20 0"
    assert float(lines[1]) < 5


# Forks.


@pytest.mark.wire
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize("when", ["before", "after"])
def test_each_forked_worker_is_an_instance(when: str, receiver: Receiver) -> None:
    """Set up before the fork or after it: instances and connections apart, nothing damaged."""
    printed_by(
        f"""
import asyncio, os, time
from aiohttp_adaptive_retry import AdaptiveRetryMiddleware, otlp
from tests.kit.fakes import Rig

def set_up():
    global export, rig
    export = otlp.configure("shop", export_interval=0.5)
    rig = Rig()
    rig.middleware = AdaptiveRetryMiddleware(meter_provider=export.meter_provider)

def work(calls):
    async def run():
        for _ in range(calls):
            await rig.call()
            await asyncio.sleep(0.01)
    asyncio.run(run())

set_up()
work(3)
# The parent's connection is open by now, and no export under way: a fork into one may leave a lock
# of the SDK's held in the child.
time.sleep(0.8)
children = []
for number in (1, 2):
    pid = os.fork()
    if pid == 0:
        if {when == "after"!r}:
            set_up()
        work(10 * number)
        time.sleep(0.6)
        export.close()
        os._exit(0)
    children.append(pid)
time.sleep(0.5)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
export.close()
""",
        **receiver.variables(),
    )
    assert receiver.damaged == 0
    series = receiver.series("adaptive_retry.attempts")
    totals: dict[str, int] = {}
    ports: dict[str, set[int]] = {}
    for port, instance, _, total in series:
        assert total >= totals.get(instance, 0)
        totals[instance] = total
        ports.setdefault(instance, set()).add(port)
    assert sorted(totals.values()) == [3, 10, 20]
    used = list(ports.values())
    assert not used[0] & used[1]
    assert not used[0] & used[2]
    assert not used[1] & used[2]


def test_without_the_extra_the_rest_works_and_this_says_what_is_missing() -> None:
    """The package needs no SDK, and imports none."""
    lines = printed_by(
        """
import sys
import aiohttp_adaptive_retry
assert not any(name.startswith(("opentelemetry.sdk", "opentelemetry.exporter", "grpc"))
               for name in sys.modules)
sys.modules["opentelemetry.sdk"] = None
try:
    import aiohttp_adaptive_retry.otlp
except ImportError as error:
    print(error)
"""
    )
    assert lines == [
        "aiohttp_adaptive_retry.otlp needs the extra: pip install 'aiohttp-adaptive-retry[otlp]'"
    ]
