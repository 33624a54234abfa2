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
)
