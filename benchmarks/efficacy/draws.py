"""Random numbers that belong to a request and its attempt, not to a moment of the run.

Policies differ in when and how often they send. If they drew from one common stream, the first
additional attempt would shift all later luck, and differences between policies would drown in
noise. So the luck of attempt ``k`` of request ``r`` is a hash of both: whoever sends that attempt
meets the same server, the same service time and the same coin (common random numbers).
"""

from __future__ import annotations

_MASK = 0xFFFFFFFFFFFFFFFF
_GAMMA = 0x9E3779B97F4A7C15
_SCALE = 2.0**-64

SERVER, ERROR, ERROR_TYPE, SERVICE = range(4)
"""Purposes of a draw."""

_PURPOSES = 4


def uniform(key: int, attempt: int, purpose: int) -> float:
    """Return a uniform number in the open interval (0, 1), a function of its arguments alone.

    The mixing function is SplitMix64's finaliser (Steele, Lea, Flood: Fast splittable
    pseudorandom number generators, OOPSLA 2014).

    >>> uniform(1, 0, SERVER) == uniform(1, 0, SERVER)
    True
    >>> uniform(1, 0, SERVER) == uniform(1, 1, SERVER)
    False
    """
    z = (key + (attempt * _PURPOSES + purpose + 1) * _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    z ^= z >> 31
    # Half a step off zero, and below one although the product rounds.
    return min((z + 0.5) * _SCALE, 1.0 - 2.0**-53)
