"""How a frame is drawn: bars and a table on a terminal, lines of words off it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cadenza.server.frame import Frame
from cadenza.server.screen import age, printable, shortened, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from cadenza.sdk.client import Activity, Facts

COLUMNS = ("PID", "IMAGE", "STATE", "WAITS FOR", "RAN", "PRIO", "TOK/S", "TOKENS", "DEVICE", "HOST", "DISK", "LOST",
           "SHARED")  # fmt: skip
NUMBERS_FROM = 5                            # the columns from there on are numbers
WORDS = (1, 3)                              # the columns that are cut to fit
DISPENSABLE = (11, 12, 10, 5, 9, 7)         # the columns that go when there is no room, in this order
LEAST_CHARACTERS = 12                       # of a word
GAP_CHARACTERS = 1                          # between columns, beside the one that the table's box takes
STATE_STYLES = {"decoding": "green", "prefilling": "cyan", "queued": "yellow", "running": "bold green"}
FULL_STYLES = ((0.95, "red"), (0.8, "yellow"), (0.0, "green"))
OTHER_LINES = 6                             # beside gauges and processes
BAR_CHARACTERS = 32
IMAGE_CHARACTERS = 24
WAITING_CHARACTERS = 32

Gauge = tuple[str, float, str]              # its name, how full it is (0 to 1), and what that means


def drawn(frame: Frame, facts: Facts, width: int, height: int) -> RenderableType:
    """For a terminal of that size: the machine above, the processes below."""
    from rich.console import Group

    gauges = list(gauges_of(frame))
    rows = process_rows(frame)[: max(1, height - len(gauges) - OTHER_LINES)]
    left = frame.now.alive - len(rows)
    return Group(_line(title(frame, facts), "bold"), _bars(gauges), _line(work(frame)), _line(""), _table(rows, width),
                 _line(f"and {left} more" if left else "", "dim"))


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
            f"{load.queued} queued, {load.steps_under_way} steps under way; {load.preemptions} preemptions, "
            f"pages swapped {load.swapped_out_pages:,} out, {load.swapped_in_pages:,} in")


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


def _line(text: str, style: str = "") -> Text:
    from rich.text import Text

    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _bars(gauges: Sequence[Gauge]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    for name, share, meaning in gauges:
        style = next(style for least, style in FULL_STYLES if share >= least)
        bar = ProgressBar(1.0, min(share, 1.0), BAR_CHARACTERS, complete_style=style, finished_style=style)
        grid.add_row(_line(name), bar, _line(meaning))
    return grid


def _table(rows: Sequence[Sequence[str]], width: int) -> Table:
    from rich import box
    from rich.table import Table

    widths = [max(map(len, cells)) for cells in zip(COLUMNS, *rows, strict=True)]
    shown, room = _fitted(widths, width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, GAP_CHARACTERS, 0, 0), pad_edge=False, show_edge=False)
    for at in shown:
        table.add_column(COLUMNS[at], justify="right" if at >= NUMBERS_FROM else "left", no_wrap=True)
    for row in rows:
        cells = [shortened(row[at], room) if at in WORDS else row[at] for at in shown]
        table.add_row(*(_line(cell, STATE_STYLES.get(cell, "")) for cell in cells))
    return table


def _fitted(widths: Sequence[int], width: int) -> tuple[list[int], int]:
    """Which columns there is room for, and how many characters each of WORDS gets, LEAST_CHARACTERS if possible."""
    shown = list(range(len(widths)))
    for dispensable in (*DISPENSABLE, None):
        taken = sum(widths[at] for at in shown if at not in WORDS) + (GAP_CHARACTERS + 1) * len(shown)
        room = (width - taken) // len(WORDS)
        if room >= LEAST_CHARACTERS or dispensable is None:
            break
        shown.remove(dispensable)
    return shown, max(1, room)
