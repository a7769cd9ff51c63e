"""How a frame is drawn: bars and a table on a terminal, lines of words off it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cadenza.server.frame import Frame
from cadenza.server.screen import age, printable, shortened, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from cadenza.sdk.client import Activity, Facts

COLUMNS = ("PID", "IMAGE", "STATE", "WAITS FOR", "RAN", "PRIO", "TOK/S", "TOKENS", "DEVICE", "HOST", "DISK", "LOST",
           "SHARED")  # fmt: skip
NUMBERS_FROM = 5                            # the columns from there on are numbers
STATE_STYLES = {"decoding": "green", "prefilling": "cyan", "queued": "yellow", "running": "bold green"}
FULL_STYLES = ((0.95, "red"), (0.8, "yellow"), (0.0, "green"))
OTHER_LINES = 7                             # beside gauges and processes
BAR_CHARACTERS = 32
IMAGE_CHARACTERS = 24
WAITING_CHARACTERS = 32

Gauge = tuple[str, float, str]              # its name, how full it is (0 to 1), and what that means


def drawn(frame: Frame, facts: Facts, height: int) -> RenderableType:
    """For a terminal of so many lines: the machine above, the processes below."""
    from rich.console import Group
    from rich.text import Text

    gauges = list(gauges_of(frame))
    rows = process_rows(frame)
    room = max(1, height - len(gauges) - OTHER_LINES)
    left = frame.now.alive - min(len(rows), room)
    below = Text(f"and {left} more" if left else "", style="dim")
    return Group(Text(title(frame, facts), style="bold"), _bars(gauges), Text(work(frame)),
                 _table(rows[:room]), below)


def plain(frame: Frame, facts: Facts) -> str:
    """The same in lines; words of a process are divided by tabs."""
    gauges = [f"{name}: {meaning}" for name, _, meaning in gauges_of(frame)]
    rows = ["\t".join(row) for row in (COLUMNS, *process_rows(frame))]
    return "\n".join([title(frame, facts), *gauges, work(frame), *rows]) + "\n"


def title(frame: Frame, facts: Facts) -> str:
    load = frame.now.load
    return printable(f"cadenza {facts.version}: {facts.model} on {facts.device}; {load.processes} processes, "
                     f"{load.ready} ready; {frame.now.alive} are yours ({facts.user})")


def work(frame: Frame) -> str:
    load = frame.now.load
    return (f"tokens: {_number(frame.samples)}/s sampled, {_number(frame.inputs)}/s computed; {load.work} passes, "
            f"{load.steps_under_way} steps under way; {load.preemptions} preemptions, pages swapped "
            f"{load.swapped_out_pages:,} out, {load.swapped_in_pages:,} in")


def gauges_of(frame: Frame) -> Iterator[Gauge]:
    """The device's time, then each tier's pages."""
    busy = frame.busy
    share = "-" if busy is None else f"{busy:.0%}"
    yield "busy", busy or 0.0, (f"{share}, {_number(frame.steps)} steps/s of {_number(frame.step_rows)} rows and "
                                f"{_number(frame.step_tokens)} tokens")
    for tier in frame.now.load.tiers:
        held = f"{tier.used_pages:,} of {tier.pages:,} pages"
        memory = f", {size(tier.used_pages * tier.page_bytes)}" if tier.page_bytes else ""
        yield tier.name, tier.used_pages / max(1, tier.pages), held + memory


def process_rows(frame: Frame) -> list[tuple[str, ...]]:
    return [_row(process, rate) for process, rate in frame.processes()]


def _row(process: Activity, rate: float | None) -> tuple[str, ...]:
    pages = process.pages
    counts = (process.tokens, pages.device, pages.host, pages.disk, pages.lost, pages.shared)
    return (
        str(process.pid), _word(process.image_name or process.image_digest[:12], IMAGE_CHARACTERS), process.state,
        _word(process.waiting_for, WAITING_CHARACTERS) or "-", age(process.seconds), str(process.priority),
        _number(rate), *map(str, counts),
    )  # fmt: skip


def _word(text: str, width: int) -> str:
    return shortened(printable(text), width)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _bars(gauges: Sequence[Gauge]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for name, share, meaning in gauges:
        style = next(style for least, style in FULL_STYLES if share >= least)
        bar = ProgressBar(1.0, min(share, 1.0), BAR_CHARACTERS, complete_style=style, finished_style=style)
        grid.add_row(Text(name), bar, Text(meaning))
    return grid


def _table(rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for at, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if at >= NUMBERS_FROM else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell, STATE_STYLES.get(cell, "")) for cell in row))
    return table
