"""What happens in the demo, and when: four phases, each a share of the whole time."""

from __future__ import annotations

from dataclasses import dataclass

#: The two kinds of clients, as they name themselves in the header `X-Demo-Client`.
ADAPTIVE = "adaptive"
PLAIN = "plain loop"

CLIENT_HEADER = "X-Demo-Client"
PHASE_HEADER = "X-Demo-Phase"


@dataclass(frozen=True)
class Phase:
    """A stretch of the demo: what the upstream does, and for which share of the time."""

    name: str
    share: float
    #: The share of attempts that fail, at the phase's beginning and at its end.
    faults: tuple[float, float]
    story: str


PHASES = (
    Phase("healthy", 0.25, (0.0, 0.0), "every request is answered"),
    Phase("transient", 0.30, (0.2, 0.2), "one attempt in five fails: 503, or a closed connection"),
    Phase("outage", 0.15, (1.0, 1.0), "every attempt fails: 503, or a closed connection"),
    Phase("recovery", 0.30, (0.3, 0.0), "failures grow rare, then stop"),
)
#: Against a real address nothing is staged.
LIVE = (Phase("live", 1.0, (0.0, 0.0), "a real address; nothing is staged"),)


class Schedule:
    """Phases laid out over so many seconds. Both processes have one, each by its own clock."""

    def __init__(self, phases: tuple[Phase, ...], seconds: float) -> None:
        self.phases = phases
        self.seconds = seconds

    def at(self, elapsed: float) -> Phase:
        """The phase at a moment; the last one from its beginning on, for ever."""
        begin = 0.0
        for phase in self.phases[:-1]:
            begin += self.length(phase)
            if elapsed < begin:
                return phase
        return self.phases[-1]

    def begin(self, phase: Phase) -> float:
        """When a phase begins, in seconds."""
        before = self.phases[: self.phases.index(phase)]
        return sum(self.length(earlier) for earlier in before)

    def length(self, phase: Phase) -> float:
        """How long a phase is, in seconds."""
        return phase.share * self.seconds

    def faults(self, elapsed: float) -> float:
        """The share of attempts that fail at a moment."""
        phase = self.at(elapsed)
        first, last = phase.faults
        done = min(1.0, (elapsed - self.begin(phase)) / self.length(phase))
        return first + (last - first) * done
