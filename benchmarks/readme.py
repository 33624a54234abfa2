"""Puts figures of RESULTS.md into README, between its markers: `python -m benchmarks.readme`.

README has no figure that was typed in; a test holds that it says what RESULTS.md says.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
_SECTION = re.compile(r"(<!-- bench -->\n).*?(<!-- /bench -->)", re.DOTALL)

# Which rows, in which order, of which table.
_IN_PROCESS = (
    "no-op middleware",
    "ours, metrics on",
    "hyx",
    "backoff",
    "stamina",
    "tenacity, loop",
)
_LOOPBACK = (
    "bare session",
    "no-op middleware",
    "ours, metrics on",
    "aiohttp_retry",
    "SDK instruments per attempt",
    "tenacity",
    "OpenTelemetry's instrumentation",
)


def table(results: str, title: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by their first cell; the header is under ''."""
    text = results.split(f"\n### {title}\n")[1].split("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    named = {row[0]: row[1:] for row in rows[2:]}
    named[""] = rows[0][1:]
    return named


def section(results: str) -> str:
    """What README shows of these results."""
    versions = re.findall(r"^- (?:machine|versions): (.*)$", results, re.MULTILINE)
    process = table(results, "CPU per call, microseconds")
    loopback = table(results, "CPU per request, microseconds, 32 concurrent")
    memory = table(results, "Bytes per attempt in a full window")
    over, ratio = process[""].index("over bare"), process[""].index("x no-op, of medians")
    lines = [f"Measured on {versions[0]}; {versions[1]}.", ""]
    lines += ["| a success, in process | µs over a bare handler | in no-ops |", "|---|---|---|"]
    lines += [
        f"| {name} | {process[name][over]} | {process[name][ratio]} |" for name in _IN_PROCESS
    ]
    lines += ["", "| on loopback, 32 at a time | µs of processor time | of bare |", "|---|---|---|"]
    lines += [f"| {name} | {loopback[name][0]} | {loopback[name][3]} |" for name in _LOOPBACK]
    lines += ["", "| remembering an attempt | bytes |", "|---|---|"]
    lines += [
        f"| {name} | {cells[memory[''].index('bytes per attempt')]} |"
        for name, cells in memory.items()
        if name
    ]
    return "\n".join(lines) + "\n"


def updated(readme: str, results: str) -> str:
    """README with the figures of these results."""
    return _SECTION.sub(lambda found: found[1] + section(results) + found[2], readme)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    results = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    readme.write_text(updated(text, results), encoding="utf-8")
