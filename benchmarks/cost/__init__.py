"""What the middleware costs, beside the alternatives: processor time and memory.

``python -m benchmarks`` runs it whole and writes ``benchmarks/RESULTS.md``.

Modules, in the order in which they build on each other:

``figures``     medians, spreads, ratios, interleaved rounds
``result``      goals, tables, sections
``effort``      how much is measured: in full, or quickly
``children``    work in a process of its own
``machine``     versions, and the kind of machine
``stand_ins``   a light answer, a light request, a handler
``rivals``      the middlewares and decorators that ours is compared with
``in_process``  section 1: the middleware chain alone
``upstream``    the server of section 2, in a process of its own
``loopback``    section 2: whole requests
``scaling``     section 3: windows, origins, expiry
``collection``  section 3: what an exporter's collection costs, and what it does to the loop
``holding``     the ways to remember attempts that section 4 compares
``memory``      section 4: bytes per attempt, growth, hosts
``failing``     section 5: calls that fail, retried or not
``parked``      section 5: calls that are held, and letting go of them
``trouble``     section 5, put together
``report``      text for the terminal and for the file
"""
