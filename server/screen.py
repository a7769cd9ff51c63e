"""What commands print: tables and bars on a terminal, plain lines off it, or JSON, one value a line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from cadenza.server.options import Progress


class Screen:
    """Results go to standard output; errors, bars and remarks to standard error."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json

    def value(self, value: Mapping[str, Any]) -> None:
        """One value, as JSON."""
        _write(sys.stdout, json.dumps(value, default=str) + "\n")

    def line(self, text: str, **value: Any) -> None:
        """A line for people, or `value` as JSON."""
        if self.json:
            self.value(value)
        else:
            _write(sys.stdout, text + "\n")

    def text(self, text: str, *, error: bool = False) -> None:
        """Text of a program, as it is."""
        _write(sys.stderr if error else sys.stdout, text)

    def remark(self, text: str) -> None:
        """Something said about the work, to people only."""
        if not self.json:
            _write(sys.stderr, text + "\n")

    def error(self, errno: str, message: str, **details: str) -> None:
        if self.json:
            told = {"errno": errno, "message": message, **{k: v for k, v in details.items() if v}}
            _write(sys.stderr, json.dumps({"error": told}) + "\n")
        else:
            _write(sys.stderr, f"cadenza: {message}\n")

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[str]], values: Sequence[Mapping[str, Any]]) -> None:
        """A table on a terminal, lines with tabs off it, `values` as JSON."""
        if self.json:
            for value in values:
                self.value(value)
        elif sys.stdout.isatty():
            _table(columns, rows)
        else:
            _write(sys.stdout, "".join("\t".join(map(printable, row)) + "\n" for row in rows))

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Bars on a terminal; off it a line as each phase ends; as JSON a value then."""
        if self.json or not sys.stderr.isatty():
            yield self._plain_progress
            return
        from rich import progress
        from rich.console import Console

        columns = ("[progress.description]{task.description}", progress.BarColumn(), progress.TaskProgressColumn())
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            tasks: dict[str, progress.TaskID] = {}

            def report(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=None)
                bars.update(tasks[what], completed=done, total=total or None)

            yield report

    def _plain_progress(self, what: str, done: int, total: int) -> None:
        if not total or done < total:
            return
        if self.json:
            _write(sys.stderr, json.dumps({"progress": what, "done": done, "total": total}) + "\n")
        else:
            _write(sys.stderr, f"{what}: done\n")


def printable(text: str) -> str:
    """On one line, and without what a terminal would act on."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def size(count: float) -> str:
    """Bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def age(seconds: float) -> str:
    """A time for people, in its largest unit."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # Text: a name is no markup
    Console().print(table)


def _write(stream: IO[str], text: str) -> None:
    """What the terminal's encoding lacks is replaced. A reader that has left is no error of ours."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding: str = getattr(stream, "encoding", None) or "ascii"
        stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()
