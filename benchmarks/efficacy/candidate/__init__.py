"""A policy that learns, on its way into the core: judged here, not used by the middleware yet.

It detects outages across calls and holds failed calls until the origin is back, tells shedding
from bad luck by latency, learns which errors retries mend, and with admission thins first attempts.
`deciding` has its five sentences. The simulator runs it beside `ours`, which is what the middleware
uses today.
"""

from .policy import Candidate, CandidateAdmitting

__all__ = ("Candidate", "CandidateAdmitting")
