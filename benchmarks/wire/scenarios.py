"""What befalls the servers of a run, and when."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ("SCENARIOS", "Arrival", "Scenario", "arrivals", "shortened")

Fault = Literal["refused", "answers_503", "slow", "one_bad", "limited"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A run of `lead` + `fault` + `tail` seconds with trouble in the middle.

    Args:
        name, text: for people.
        trouble: `refused`: the process is gone, connections too. `answers_503`: all is refused by
            an answer. `slow`: services take 1 / `severity` as long. `one_bad`: one server answers
            503 to that share. `limited`: each client may send that share of what it sends.
        rate: calls a second, of all clients of one policy together.
        clients: sessions of one policy, each with a middleware of its own.
        load: share of the servers' capacity that the calls need.
        servers, workers: servers behind the one name, and workers of each; calls queue for them.
        window: seconds of a limiter's window.
    """

    name: str
    text: str
    trouble: Fault
    lead: float = 6.0
    fault: float = 12.0
    tail: float = 10.0
    rate: float = 60.0
    clients: int = 4
    load: float = 0.4
    servers: int = 1
    workers: int = 4
    severity: float = 1.0
    window: float = 3.0

    @property
    def length(self) -> float:
        """Seconds in which calls begin."""
        return self.lead + self.fault + self.tail

    @property
    def service(self) -> float:
        """Mean seconds that a call needs of a worker."""
        return self.load * self.servers * self.workers / self.rate

    @property
    def over(self) -> float:
        """When the trouble ends."""
        return self.lead + self.fault

    def troubled(self, time: float) -> bool:
        """Whether `time`, in seconds from the beginning, lies in the trouble."""
        return self.lead <= time < self.over


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="outage_refused",
            text="The server is gone for twelve seconds.",
            trouble="refused",
        ),
        Scenario(
            name="outage_503",
            text="Every request is answered 503 for twelve seconds.",
            trouble="answers_503",
        ),
        Scenario(
            name="restart_2s",
            text="The server is gone for two seconds.",
            trouble="refused",
            fault=2.0,
        ),
        Scenario(
            name="brownout",
            text="At a load of 0.75 the server falls to 0.6 of its speed; calls queue.",
            trouble="slow",
            load=0.75,
            severity=0.6,
            fault=16.0,
            tail=14.0,
        ),
        Scenario(
            name="one_bad_of_five",
            text="One server of five answers 503 to four fifths of its calls.",
            trouble="one_bad",
            servers=5,
            workers=2,
            severity=0.8,
        ),
        Scenario(
            name="cold_start",
            text=(
                "Two hundred processes start while the server is gone; then it has 0.8 of what it "
                "can do to do."
            ),
            trouble="refused",
            lead=0.0,
            fault=10.0,
            tail=15.0,
            rate=100.0,
            clients=200,
            load=0.8,
            workers=2,
        ),
        Scenario(
            name="rate_limit",
            text="A limiter lets 0.9 of each client's calls pass, and says in Retry-After when.",
            trouble="limited",
            severity=0.9,
        ),
    )
}


def shortened(scenario: Scenario, lead: float, fault: float, tail: float) -> Scenario:
    """The same trouble in less time."""
    return replace(scenario, lead=lead, fault=fault, tail=tail)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call before anything has happened to it: when it begins, and whose it is."""

    time: float
    client: int


def arrivals(scenario: Scenario, seed: int) -> list[Arrival]:
    """Poisson arrivals, whatever became of the calls before (an open loop)."""
    rng = random.Random(f"{scenario.name}/{seed}")
    made: list[Arrival] = []
    time = 0.0
    while (time := time + rng.expovariate(scenario.rate)) < scenario.length:
        made.append(Arrival(time, rng.randrange(scenario.clients)))
    return made
