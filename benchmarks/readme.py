"""Puts measured figures into README, between its markers: `python -m benchmarks.readme`.

From RESULTS.md (what it costs), EFFICACY.md and WORLDS.md (how well it decides). README has no
figure that was typed in; a test holds that it says what these pages say.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Where the figures come from.
PAGES = ("benchmarks/RESULTS.md", "docs/EFFICACY.md", "docs/WORLDS.md")

# In which conditions README shows the regrets, of which policies; averages come below.
_CONDITIONS = (
    "errors_20%",
    "outage_refused",
    "brownout",
    "one_bad_of_five",
    "hopeless_5%",
    "rate_limit",
    "blips_200ms",
    "restarts_2s",
    "sparse_clients",
    "cold_clients",
)

# What README shows of the worlds: which columns, and whose rows after those of ours.
_HEADS = {
    "mean": "mean value",
    "harm>1": "worlds with harm",
    "harm99": "harm, 99th",
    "lost99": "success lost, 99th",
    "behind": "behind the best",
    "near": "among the best",
}
_BESIDE = ("eight_lines", "sixty_lines", "aiohttp_retry", "tenacity", "fixed3", "none")
_WORLDS = (
    ("Open loops", "patience", ("ours", "ours_admit")),
    ("Closed loops", "patience", ("ours", "ours_admit")),
    ("Open loops", "second", ("interactive",)),
    ("Open loops", "minute", ("ours", "batch")),
)

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
# Rows of the tables about trouble, and how README calls them.
_FAILING = {
    "503, then 200: ours, metrics on": "a call that fails, retried, over two bare calls",
    "503, then 200: ours, metrics off": "the same with metrics off",
    "503, then 200: tenacity": "the same by tenacity",
    "POST, 503, not retried: ours, metrics on": "a failure that is not retried, over a bare call",
}


def table(results: str, title: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by their first cell; the header is under ''."""
    text = results.split(f"\n### {title}\n")[1].split("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("|") and set(line) - set("|-: ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    named = {row[0]: row[1:] for row in rows[1:]}
    named[""] = rows[0][1:]
    return named


def section(results: str) -> str:
    """What README shows of these results."""
    versions = re.findall(r"^- (?:machine|versions): (.*)$", results, re.MULTILINE)
    process = table(results, "CPU per call, microseconds")
    loopback = table(results, "CPU per request, microseconds, 32 concurrent")
    memory = table(results, "Bytes per attempt in a full window")
    over, ratio = process[""].index("over bare"), process[""].index("x no-op, median of rounds")
    of_bare = loopback[""].index("x bare, median of rounds")
    lines = [f"Measured on {versions[0]}; {versions[1]}.", ""]
    lines += ["| a success, in process | µs over a bare handler | in no-ops |", "|---|---|---|"]
    lines += [
        f"| {name} | {process[name][over]} | {process[name][ratio]} |" for name in _IN_PROCESS
    ]
    lines += ["", "| on loopback, 32 at a time | µs of processor time | of bare |", "|---|---|---|"]
    lines += [f"| {name} | {loopback[name][0]} | {loopback[name][of_bare]} |" for name in _LOOPBACK]
    lines += ["", "| remembering an attempt | bytes |", "|---|---|"]
    lines += [
        f"| {name} | {cells[memory[''].index('bytes per attempt')]} |"
        for name, cells in memory.items()
        if name
    ]
    return "\n".join([*lines, "", *_trouble(results)]) + "\n"


def _trouble(results: str) -> list[str]:
    failing = table(results, "CPU of calls that fail, microseconds")
    over, ratio = failing[""].index("over bare attempts"), failing[""].index("x no-op")
    held = table(results, "Held calls")
    share, size = held[""].index("% of a processor"), held[""].index("bytes each")
    let_go = table(results, "Letting go of held calls")
    lag, seconds = let_go[""].index("worst lag, ms"), let_go[""].index("seconds until all are over")
    lines = ["| trouble, in process | µs | in no-ops |", "|---|---|---|"]
    lines += [
        f"| {text} | {failing[name][over]} | {failing[name][ratio]} |"
        for name, text in _FAILING.items()
    ]
    lines += ["", "| calls held | % of a processor | bytes each |", "|---|---|---|"]
    lines += [
        f"| {name} | {cells[share]} | {cells[size]} |" for name, cells in held.items() if name
    ]
    lines += [
        "",
        "| held calls let go | loop's worst lag, ms | all over after, s |",
        "|---|---|---|",
    ]
    lines += [
        f"| {name} | {cells[lag]} | {cells[seconds]} |" for name, cells in let_go.items() if name
    ]
    return lines


def efficacy(page: str) -> str:
    """What README shows of EFFICACY.md: some conditions, and average and worst over all."""
    seeds = re.findall(r"^(?:Written by `make efficacy`\. )(Seeds \d+ to \d+)", page, re.MULTILINE)
    found = table(page.replace("## Regret", "### Regret"), "Regret")
    heads = found[""]
    rows = [*_CONDITIONS, "**average**", "**worst**", *(name for name in found if "not av" in name)]
    lines = [f"{seeds[0]}, {len(_conditions_of(found))} conditions.", ""]
    lines += ["| regret | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in rows:
        cells = [cell.split(" ±")[0] for cell in found[name]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def worlds(page: str) -> str:
    """What README shows of WORLDS.md: harm and value of ours beside the best known others."""
    numbers = re.findall(r"^Written by `make worlds`: (worlds \d+ to \d+)", page, re.MULTILINE)
    heads = ["worlds, waiting paid by", "policy", *_HEADS.values()]
    lines = [f"{numbers[0].capitalize()}, open and closed loops.", ""]
    lines += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for loops, purse, ours in _WORLDS:
        title = f"{loops}, waiting paid by the {purse}"
        found = table(page.replace(f"\n## {title}", f"\n### {title}", 1), title)
        columns = [found[""].index(head) for head in _HEADS]
        for name in (*ours, *_BESIDE):
            cells = [found[name][column] for column in columns]
            shown = f"**{name}**" if name in ours else name
            lines.append(f"| {loops.lower()}, {purse} | {shown} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _conditions_of(found: dict[str, list[str]]) -> list[str]:
    return [name for name in found if name and "*" not in name and "(" not in name]


def updated(readme: str, results: str, conditions: str, drawn: str) -> str:
    """README with the figures of these pages."""
    parts = {"bench": section(results), "worlds": worlds(drawn), "efficacy": efficacy(conditions)}
    for name, text in parts.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = readme.split(begin)
        readme = before + begin + text + end + rest.split(end)[1]
    return readme


def main() -> None:
    """Rewrite README."""
    readme = ROOT / "README.md"
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in PAGES]
    readme.write_text(updated(readme.read_text(encoding="utf-8"), *pages), encoding="utf-8")


if __name__ == "__main__":
    main()
