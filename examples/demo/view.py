"""How the demo looks: a live panel in a terminal, plain lines elsewhere, one table at the end."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from board import Board
from phases import ADAPTIVE, PLAIN

WIDTH = 80
_COLOURS = {
    "healthy": "green",
    "transient": "yellow",
    "outage": "red",
    "recovery": "cyan",
    "live": "green",
}
_CLIENT_STYLES = {ADAPTIVE: "bold green", PLAIN: "bold magenta"}
_BLOCKS = " ▁▂▃▄▅▆▇█"


def percent(share: float | None) -> str:
    """A share for people; cut and not rounded, so that 100 % means every single one."""
    return "-" if share is None else f"{int(share * 1000) / 10:.1f} %"


def ratio(value: float | None) -> str:
    """Attempts per request for people."""
    return "-" if value is None else f"{value:.2f}"


def milliseconds(seconds: float | None) -> str:
    """A duration for people."""
    return "-" if seconds is None else f"{seconds * 1000:,.0f} ms"


def line(board: Board) -> str:
    """All numbers of a moment on one line without control characters."""
    phase = board.schedule.at(board.elapsed).name
    parts = [f"{board.elapsed:5.1f} s  {phase:<9}"]
    for client in board.clients:
        now = board.now(client)
        row = board.row(client, phase)
        parts.append(
            f"{client}: {percent(now.success):>7} ok, {now.requests_per_second:3.0f} req/s, "
            f"{now.attempts_per_second:4.0f} att/s, {ratio(row.attempts_per_request):>4} att/req"
        )
    available, limit = board.budget
    parts.append(
        f"window {board.window_length}/{board.window_limit}, cleanups {board.cleanups}, "
        f"budget {available:.1f}/{limit:g}, rss {_mebibytes(board)}"
    )
    return " | ".join(parts)


def table(board: Board) -> Table:
    """What each kind of client did in each phase that has begun."""
    result = Table(box=box.SIMPLE_HEAD, title="What each did", title_style="bold", pad_edge=False)
    result.add_column("phase")
    result.add_column("client", no_wrap=True)
    for name in (
        "requests",
        "success",
        "attempts\nper request",
        "attempts\nper second",
        "mean\nlatency",
    ):
        result.add_column(name, justify="right", vertical="bottom")
    for phase in board.schedule.phases:
        rows = [(client, board.row(client, phase.name)) for client in board.clients]
        if not any(row.requests for _, row in rows):
            continue
        for number, (client, row) in enumerate(rows):
            result.add_row(
                Text("" if number else phase.name, style=_COLOURS[phase.name]),
                Text(client, style=_CLIENT_STYLES[client]),
                f"{row.requests:,}",
                percent(row.success),
                ratio(row.attempts_per_request),
                f"{row.attempts_per_second:.1f}",
                milliseconds(row.latency),
                end_section=client == board.clients[-1],
            )
    return result


def summary(board: Board) -> list[str]:
    """What the table does not say, in sentences."""
    snapshot = board.snapshot
    dropped = sum(snapshot.evicted.values())
    sent = sum(snapshot.attempts.values())
    # An attempt that the call's deadline cut short says nothing about the server.
    recorded = board.window_length + dropped
    lines = [
        f"Memory: {sent:,} attempts sent, {recorded:,} recorded, {board.window_length} of at most "
        f"{board.window_limit} held in {snapshot.memory.windows:,} bytes, "
        f"{dropped:,} dropped; cleanups: {board.cleanups}; RSS {_mebibytes(board)}."
    ]
    outage = next((p.name for p in board.schedule.phases if p.name == "outage"), None)
    if outage and PLAIN in board.clients:
        ours, plain = (board.row(client, outage) for client in (ADAPTIVE, PLAIN))
        if ours.attempts_per_request and plain.attempts_per_request:
            lines.append(
                "While the outage lasted the server received "
                f"{plain.attempts_per_second:.0f} attempts a second from the plain loop, "
                f"{ours.attempts_per_second:.0f} from the middleware's calls; in the end "
                f"{percent(plain.success)} and {percent(ours.success)} of the requests begun in it "
                "were answered."
            )
            if plain.attempts_per_request > 3:
                lines.append(
                    "(More than three: when a connection breaks, aiohttp itself sends once more. "
                    "The middleware counts that in.)"
                )
        recovery = board.row(ADAPTIVE, "recovery")
        if recovery.requests and (unmended := recovery.requests - recovery.succeeded):
            lines.append(
                f"The price: {unmended} of the recovery's requests failed while the budget, spent "
                "in the outage, was earned again."
            )
    suppressed = ", ".join(f"{name} {n:,}" for name, n in sorted(snapshot.suppressed.items()) if n)
    if suppressed:
        lines.append(f"Retries not made, because of: {suppressed}.")
    if snapshot.faults:
        lines.append(f"Faults of the middleware itself: {snapshot.faults}. Please report.")
    return lines


def panel(board: Board, settings: str) -> RenderableType:
    """The live view of a moment."""
    schedule = board.schedule
    phase = schedule.at(board.elapsed)
    colour = _COLOURS[phase.name]
    parts: list[RenderableType] = [
        _phase_bar(board),
        Text.assemble((f" {phase.name.upper()} ", f"bold reverse {colour}"), f"  {phase.story}"),
        Text(),
        _comparison(board),
        Text(),
        _load(board),
        Rule(style="dim"),
        _memory(board),
        Text(settings, style="dim"),
    ]
    return Panel(Group(*parts), title="aiohttp-adaptive-retry", border_style=colour, width=WIDTH)


def _phase_bar(board: Board) -> RenderableType:
    schedule = board.schedule
    grid = Table.grid(padding=(0, 1))
    room = WIDTH - 24
    cells: list[RenderableType] = []
    names: list[RenderableType] = []
    for phase in schedule.phases:
        width = int(room * phase.share)
        grid.add_column(width=width)
        done = board.elapsed - schedule.begin(phase)
        style = _COLOURS[phase.name]
        cells.append(
            ProgressBar(
                total=schedule.length(phase),
                completed=max(0.0, done),
                width=width,
                complete_style=style,
                finished_style=style,
            )
        )
        names.append(Text(phase.name, style=style if done >= 0 else "dim"))
    grid.add_column(justify="right", no_wrap=True)
    elapsed = min(board.elapsed, schedule.seconds)
    grid.add_row(*cells, f"{elapsed:.0f} of {schedule.seconds:g} s")
    grid.add_row(*names)
    return grid


def _comparison(board: Board) -> Table:
    # Without edges, as all of the panel has to fit a terminal of 24 lines.
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    result.add_column("", min_width=36)
    for client in board.clients:
        result.add_column(Text(client, style=_CLIENT_STYLES[client]), justify="right", min_width=14)
    nows = [board.now(client) for client in board.clients]
    result.add_row("success now", *(percent(now.success) for now in nows), style="bold")
    result.add_row("requests per second", *(f"{now.requests_per_second:.0f}" for now in nows))
    result.add_row(
        "attempts per second" + (" (at the server)" if len(nows) > 1 else ""),
        *(f"{now.attempts_per_second:.0f}" for now in nows),
    )
    current = board.schedule.at(board.elapsed)
    for phase in board.schedule.phases:
        rows = [board.row(client, phase.name) for client in board.clients]
        result.add_row(
            f"attempts per request: {phase.name}",
            *(ratio(row.attempts_per_request) for row in rows),
            style=f"bold {_COLOURS[phase.name]}" if phase is current else "dim",
        )
    return result


def _load(board: Board) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=16)
    grid.add_column(no_wrap=True)
    for client in board.clients:
        bars = "".join(_BLOCKS[round(bar * (len(_BLOCKS) - 1))] for bar in board.bars(client))
        grid.add_row(Text("load: " + client, style="dim"), Text(bars, style=_CLIENT_STYLES[client]))
    return grid


def _memory(board: Board) -> Table:
    evicted = board.snapshot.evicted
    by_count, by_age = evicted.get("capacity", 0), evicted.get("expired", 0)
    available, limit = board.budget
    grid = Table.grid(padding=(0, 2))
    for width in (8, 12, 0):
        grid.add_column(min_width=width, no_wrap=True)
    grid.add_row(
        "window",
        ProgressBar(total=board.window_limit, completed=board.window_length, width=12),
        f"{board.window_length} of {board.window_limit}; "
        f"dropped: {by_count:,} by count, {by_age:,} by age",
    )
    grid.add_row(
        "budget",
        ProgressBar(total=limit, completed=available, width=12),
        f"{available:.1f} of {limit:g} retries can be afforded",
    )
    grid.add_row(
        "memory",
        "",
        f"cleanups: {board.cleanups}; {board.snapshot.memory.windows:,} bytes in windows; "
        f"RSS {_mebibytes(board)}",
    )
    return grid


def _mebibytes(board: Board) -> str:
    return f"{board.snapshot.memory.usage / 2**20:.0f} MiB"


def make_console(*, interactive: bool) -> Console:
    """A console; where nobody watches it never writes a control character, whatever is set."""
    if interactive:
        return Console(highlight=False)
    return Console(
        force_terminal=False, color_system=None, highlight=False, width=WIDTH, no_color=True
    )
