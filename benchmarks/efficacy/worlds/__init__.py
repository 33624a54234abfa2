"""Worlds drawn at random, in which policies must do no harm.

``python -m benchmarks.efficacy.worlds`` draws worlds by their numbers, runs every policy through
each of them and reports value and harm. The conditions of the package above are nominal: a few
kinds of trouble around chosen numbers. Here nothing is nominal: every number is drawn on a
logarithmic scale from a wide range.

Modules, in the order in which they build on each other:

``plan``      what is fixed before a run: calls, sites, troubles
``limiter``   counts requests against a limit
``site``      a site at work: queues, outages, errors, dead connections
``engine``    the event loop: calls, attempts, waits, deadlines
``draft``     a world in the making, and how numbers are drawn
``troubles``  the kinds of trouble
``calls``     arrivals that don't wait, and callers that do
``make``      a world by its number
``policies``  policies by name, and the purses
``results``   many worlds on one or more processes, and what calls are worth
``report``    harm, distance behind the best known, tables
``picture``   harm, sorted
``document``  docs/WORLDS.md

Numbers from 100,000 on are for judging: nothing may be tuned on them.
"""
