"""How a timeline is drawn in letters: a lane a line, time from left to right, a legend below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from rich.cells import cell_len

from cadenza.server.screen import printable
from cadenza.server.timeline import SHADES, Bar, Lane, Tick, Timeline, span

if TYPE_CHECKING:
    from rich.text import Text

LETTERS = {"queued": "·", "prefill": "▒", "tokens": "█", "call": "━", "trap": "░", "wait": "─", "mark": "▲",
           "preempted": "!"}  # fmt: skip
MEANINGS = {"queued": "queued", "prefill": "inputs", "tokens": "tokens", "call": "call", "trap": "trap",
            "wait": "waits", "mark": "mark", "preempted": "preempted"}  # fmt: skip
STYLES = {"queued": "yellow", "prefill": "cyan", "tokens": "green", "call": "blue", "trap": "magenta", "wait": "dim",
          "mark": "bold red", "preempted": "bold red", "name": "bold", "axis": "dim"}  # fmt: skip
NAME_CHARACTERS = 16                        # of a lane; less on a narrow terminal
LEAST_CHART = 8                             # columns
LEAST_TEXT = 6                              # of a bar's text that are worth showing
TICK_COLUMNS = 10                           # between two times of the axis, at least
STEPS = (1.0, 2.0, 5.0, 10.0)


@dataclass(slots=True)
class Line:
    """Letters, each with what it stands for: a key of STYLES, or ""."""

    letters: list[str]
    shades: list[str]

    @classmethod
    def of(cls, text: str, shade: str = "") -> Line:
        cells = cells_of(text)
        return cls(cells, [shade] * len(cells))

    def put(self, at: int, cells: Sequence[str], shade: str) -> None:
        """Over what is there; what is beyond the end is left out."""
        for offset, cell in enumerate(cells[: max(0, len(self.letters) - at)]):
            self.letters[at + offset], self.shades[at + offset] = cell, shade

    def __add__(self, other: Line) -> Line:
        return Line(self.letters + other.letters, self.shades + other.shades)

    def __str__(self) -> str:
        return "".join(self.letters).rstrip()


def plain(timeline: Timeline, width: int) -> str:
    return "\n".join(map(str, lines_of(timeline, width))) + "\n"


def drawn(timeline: Timeline, width: int) -> Text:
    """For a terminal of that width."""
    from rich.text import Text

    text = Text(no_wrap=True, end="")
    for line in lines_of(timeline, width):
        for shade, letters in groupby(zip(line.letters, line.shades, strict=True), lambda cell: cell[1]):
            text.append("".join(letter for letter, _ in letters), STYLES.get(shade, ""))
        text.append("\n")
    return text


def lines_of(timeline: Timeline, width: int) -> Iterator[Line]:
    """Each at most `width` columns, if that is room for a chart at all."""
    longest = max((cell_len(printable(lane.name)) for lane in timeline.lanes), default=0)
    names = max(1, min(longest, NAME_CHARACTERS, width // 4))
    scale = Scale(timeline.start, timeline.end, max(LEAST_CHART, width - names - 1))
    yield from wrapped(printable(timeline.title).split(" "), width, "name")
    yield Line.of(" " * (names + 1)) + scale.axis()
    for lane in timeline.lanes:
        yield Line.of(padded(printable(lane.name), names) + " ", "name") + scale.lane(lane)
    yield from wrapped(legend(timeline), width, "axis")
    if timeline.lost:
        yield from wrapped(f"{timeline.lost:,} earlier records are no longer kept".split(" "), width, "axis")


class Scale:
    """From seconds to columns."""

    def __init__(self, start: float, end: float, columns: int) -> None:
        self.start, self.columns = start, columns
        self.each = max(end - start, 1e-6) / columns           # seconds a column

    def column(self, seconds: float) -> int:
        return min(self.columns - 1, max(0, int((seconds - self.start) / self.each)))

    def columns_of(self, bar: Bar) -> tuple[int, int]:
        """Its first, and one past its last: at least one."""
        first = self.column(bar.start)
        return first, min(self.columns, max(first + 1, math.ceil((bar.end - self.start) / self.each - 1e-9)))

    def axis(self) -> Line:
        """Times at round steps, as many as there is room for."""
        line = self.blank()
        step = round_step(self.each * TICK_COLUMNS)
        number = math.ceil(self.start / step)
        while (at := int((number * step - self.start) / self.each)) < self.columns:
            cells = cells_of(f"╵{span(number * step) if number else '0'}")
            if at + len(cells) <= self.columns:
                line.put(at, cells, "axis")
            number += 1
        return line

    def lane(self, lane: Lane) -> Line:
        """What is worth more is drawn over what is worth less; texts where there is room within their bars."""
        line = self.blank()
        for bar in sorted(lane.bars, key=lambda bar: SHADES.index(bar.shade)):
            first, end = self.columns_of(bar)
            line.put(first, LETTERS[bar.shade] * (end - first), bar.shade)
            if bar.shade in ("call", "trap", "wait"):
                self._label(line, bar.text, first, end, bar.shade)
        for tick in lane.ticks:
            line.put(self.column(tick.at), LETTERS[tick.shade], tick.shade)
        if not lane.bars and len(lane.ticks) == 1:
            self._beside(line, lane.ticks[0])
        return line

    def blank(self) -> Line:
        return Line.of(" " * self.columns)

    def _label(self, line: Line, text: str, first: int, end: int, shade: str) -> None:
        room = end - first - 4
        if room >= min(LEAST_TEXT, cell_len(text)):
            line.put(first + 1, [" ", *fitted(printable(text), room), " "], shade)

    def _beside(self, line: Line, tick: Tick) -> None:
        """The only one of its lane says what it is, to its right or its left."""
        at = self.column(tick.at)
        cells = fitted(printable(tick.text), max(at, self.columns - at) - 2)
        if len(cells) >= LEAST_TEXT:
            line.put(at + 2 if self.columns - at >= at else at - 1 - len(cells), cells, "axis")


def legend(timeline: Timeline) -> list[str]:
    """Of what there is."""
    there = timeline.shades()
    return [f"{LETTERS[shade]} {MEANINGS[shade]} " for shade in LETTERS if shade in there]


def wrapped(words: Sequence[str], width: int, shade: str) -> Iterator[Line]:
    """As many words in a line as there is room for."""
    line = ""
    for word in words:
        if line and cell_len(line) + 1 + cell_len(word.rstrip()) > width:
            yield Line.of(line.rstrip(), shade)
            line = ""
        line += f" {word}" if line else word
    if line:
        for_width = fitted(line.rstrip(), width)
        yield Line(for_width, [shade] * len(for_width))


def round_step(seconds: float) -> float:
    """The next of 1, 2, 5, 10, 20, …, or a decimal part of them."""
    power = 10.0 ** math.floor(math.log10(seconds))
    return power * next(step for step in STEPS if step * power >= seconds * (1 - 1e-9))


def cells_of(text: str) -> list[str]:
    """A string a column: a wide letter is followed by an empty one, and one of no width is left out."""
    return [cell for letter in text for cell in [letter, "", ""][: cell_len(letter)]]


def fitted(text: str, room: int) -> list[str]:
    """The columns of `text`, cut to `room`."""
    cells = cells_of(text)
    if len(cells) <= room:
        return cells
    kept = cells[: max(0, room - 1)]
    if kept and cells[len(kept)] == "":                        # a wide letter is not cut in half
        kept[-1] = " "
    return [*kept, "…"][:room]


def padded(text: str, columns: int) -> str:
    cells = fitted(text, columns)
    return "".join(cells) + " " * (columns - len(cells))
