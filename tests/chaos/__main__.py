"""Prints docs/FAULTS.md: what the tests of this folder put the middleware through.

python -m tests.chaos > docs/FAULTS.md
"""

from __future__ import annotations

import sys

from .bodies import BODIES, METHODS
from .faults import FAULTS, HANDSHAKES, Fault

_START = """\
# Faults survived

`tests/chaos` plays these faults with a server on a raw socket and a resolver of its own: each with
{methods} methods ({method_names}) and
{bodies} kinds of body ({body_names}),
once and for ever, beside aiohttp alone, and in sequences that Hypothesis writes. After every call
the attempts that the server saw are within their bound, every body that it took for complete is
whole, no attempt began after the deadline, the counters say what happened, no connection is held,
and the caller has got what aiohttp alone would have given for the last fault.

"Retried" is what may be sent again: a POST or a PATCH only where no connection was made, or after
429. All others, and a body that is spent, are handed on: the answer unread, the exception unchanged
in type. Where nothing would ever come, `attempt_timeout`
ends the attempt, or the deadline ends the call.

This page is printed by `python -m tests.chaos`; a test holds it equal.

| fault | what aiohttp alone gives | with the middleware |
|---|---|---|
"""


def _gives(fault: Fault) -> str:
    if fault.status is not None:
        return f"{fault.status}"
    return " or ".join(f"`{error.__name__}`" for error in fault.raises)


def page() -> str:
    """The page, as Markdown."""
    start = _START.format(
        methods=len(METHODS),
        method_names=", ".join(METHODS),
        bodies=len(BODIES),
        body_names=", ".join(BODIES),
    )
    rows = (
        f"| {fault.says} | {_gives(fault)} | {_does(fault)} |"
        for fault in [*FAULTS.values(), *HANDSHAKES.values()]
    )
    return start + "\n".join(rows) + "\n"


def _does(fault: Fault) -> str:
    if fault.mendable:
        return "retried"
    if fault.final:
        return "handed on: the next attempt would meet the same"
    return "handed on: the head is here, and is a success"


if __name__ == "__main__":
    sys.stdout.write(page())
