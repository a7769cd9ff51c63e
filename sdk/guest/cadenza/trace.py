"""Marks for those who look at what this process does: `cadenza trace PID` draws them beside its passes and tokens.

    with trace.span("3", "search('otters')") as span:       # a bar on a track of its own
        span.result = await search("otters")
    trace.instant("3", "its answer is read")                # a tick

The kernel keeps the newest marks, and cuts what is long. Marking costs little, never blocks and never fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from wit_world.imports import process as kernel

MarkKind = Literal["begin", "end", "instant"]
KINDS: dict[MarkKind, kernel.MarkKind] = {
    "begin": kernel.MarkKind.BEGIN,
    "end": kernel.MarkKind.END,
    "instant": kernel.MarkKind.INSTANT,
}


@dataclass
class Span:
    """Something that has begun; `result` is what its end will say."""

    track: str
    result: object = ""


def mark(kind: MarkKind, track: str, text: str = "") -> None:
    """Something on `track` begins, ends, or happens. An end is that of what began last on its track."""
    kernel.mark(KINDS[kind], track, text)


def instant(track: str, text: str = "") -> None:
    """Something happens."""
    kernel.mark(kernel.MarkKind.INSTANT, track, text)


@contextmanager
def span(track: str, text: str = "") -> Iterator[Span]:
    """From its begin to its end, on `track`; an exception is its result."""
    begun = Span(track)
    kernel.mark(kernel.MarkKind.BEGIN, track, text)
    try:
        yield begun
    except BaseException as error:
        begun.result = repr(error)
        raise
    finally:
        kernel.mark(kernel.MarkKind.END, track, str(begun.result))
