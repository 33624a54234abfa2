"""Worlds drawn at random, in which policies must do no harm.

``python -m benchmarks.efficacy.worlds`` draws worlds by their numbers, runs every policy through
each of them and reports value and harm. The conditions of the package above are nominal: a few
kinds of trouble around chosen numbers. Here nothing is nominal: every number is drawn on a
logarithmic scale from a wide range.

Modules, in the order in which they build on each other:

``plan``      what is fixed before a run: calls, sites, troubles
``site``      a site at work: queues, outages, errors, limits
``engine``    the event loop: calls, attempts, waits, deadlines, purses
``draft``     a world in the making, and how numbers are drawn
``troubles``  the kinds of trouble
``make``      a world by its number
``policies``  policies by name
``results``   many worlds on one or more processes
``report``    harm, distance behind the best, tables
"""
