"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("FULL", "QUICK", "Effort")


@dataclass(frozen=True)
class Effort:
    """Rounds and sizes. The quick ones only show that everything runs: their figures are noise."""

    name: str
    in_process_rounds: int
    #: Seconds of processor time that one variant gets in one round.
    turn: float
    loopback_rounds: int
    #: Requests in one turn.
    requests: int
    scaling_rounds: int
    #: Attempts that expire at once.
    expiring: int
    expiry_rounds: int
    collection_rounds: int
    #: Attempts held while bytes per attempt are counted.
    held: int
    #: Attempts that ours has to forget; the others, where they are slow, get a share of it.
    attempts: int
    hosts: int
    failing_rounds: int
    #: Calls held at a time for one origin; also for ten.
    parked: int
    #: In so many windows, of so many seconds each, held calls are watched.
    parked_windows: int
    parked_window: float
    let_go_rounds: int


FULL = Effort(
    name="full",
    in_process_rounds=81,
    turn=0.030,
    loopback_rounds=101,
    requests=320,
    scaling_rounds=41,
    expiring=1_000_000,
    expiry_rounds=3,
    collection_rounds=31,
    held=200_000,
    attempts=10_000_000,
    hosts=1_000_000,
    failing_rounds=41,
    parked=1_000,
    parked_windows=6,
    parked_window=1.0,
    let_go_rounds=5,
)

QUICK = Effort(
    name="quick",
    in_process_rounds=5,
    turn=0.004,
    loopback_rounds=3,
    requests=64,
    scaling_rounds=3,
    expiring=50_000,
    expiry_rounds=1,
    collection_rounds=2,
    held=20_000,
    attempts=100_000,
    hosts=5_000,
    failing_rounds=3,
    parked=50,
    parked_windows=2,
    parked_window=0.2,
    let_go_rounds=1,
)
