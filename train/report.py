"""Shows how a run goes: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from train.checkpoint import Progress


class Report(Protocol):
    """Is told of every point of the loss curve."""

    def point(self, progress: Progress, part_done: float, loss: float) -> None: ...

    def scores(self, scores: dict[str, float]) -> None:
        """Of held-out dialogues, by kind."""


def line(progress: Progress, loss: float) -> str:
    pace = progress.tokens / max(progress.seconds, 1e-9)
    return f"step {progress.step}  loss {loss:.4f}  {progress.seconds:.0f} s  {pace:.0f} tokens/s"


class Lines:
    """One line a point."""

    def point(self, progress: Progress, part_done: float, loss: float) -> None:
        print(f"{part_done:6.1%}  {line(progress, loss)}", flush=True)


    def scores(self, scores: dict[str, float]) -> None:
        print("        " + "  ".join(f"{kind} {score:.0%}" for kind, score in scores.items()), flush=True)


class Silence:
    """Says nothing: for all workers but the first."""

    def point(self, progress: Progress, part_done: float, loss: float) -> None:
        pass

    def scores(self, scores: dict[str, float]) -> None:
        pass


@contextmanager
def open_report(wanted: bool) -> Iterator[Report]:
    """A report for standard output, or a silent one; it is valid inside the `with` block."""
    if not wanted:
        yield Silence()
        return
    if not sys.stdout.isatty():
        yield Lines()
        return
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with RichProgress(*columns) as bar:
        task = bar.add_task("training", total=1.0)

        class Bar:
            """The bar, with the newest point as its text."""

            def point(self, progress: Progress, part_done: float, loss: float) -> None:
                bar.update(task, completed=part_done, description=line(progress, loss))

            def scores(self, scores: dict[str, float]) -> None:
                bar.console.print("  ".join(f"{kind} {score:.0%}" for kind, score in scores.items()))

        yield Bar()
