"""A few of the simulated conditions for real: our middleware, real servers on loopback.

``python -m benchmarks.wire`` runs the plain loop, aiohttp_retry and ours beside each other: the
same calls at the same moments, each policy against servers of its own that meet the same faults.

Modules, in the order in which they build on each other:

``scenarios``  what befalls the servers, and when
``upstream``   the servers, in a process of their own, that count what they receive
``policies``   a call by each policy
``driver``     one run: all policies at once
``alone``      callers who wait for their answers, one or a few
``report``     tables
"""
