"""How well retry policies do, measured in simulation.

``python -m benchmarks.efficacy`` drives our strategy and the known policies through the same
conditions, request by request, and prints how far each stays behind a clairvoyant client.

Modules, in the order in which they build on each other:

``policy``       what a policy is told and may answer
``draws``        random numbers that depend on the request only, never on the policy
``world``        everything that is fixed before a run: load, servers, faults
``servers``      queues, outages, errors, rate limits
``engine``       the event loop: clients, attempts, waits, deadlines
``conditions``   the worlds that we judge on
``anchors_*``    the known policies, each with its source
``clairvoyant``  the bound
``registry``     policies by name
``scoring``      value, regret
``runner``       many runs, many processes
``report``       tables and JSON
``worlds``       worlds drawn at random, in which nothing is nominal, with callers that wait too
"""
