"""The heap of the snapshot, laid out so that a process writes to few of its pages: each is then copied for it alone.

    before    ■■□■ ■□■■ □■■■ ■■□□ …          new objects go into holes: one page copied for each
    after     ■■■■ ■■■■ ■■■■ ■■■■ │ □□□□ …   new objects lie side by side behind all that is shared
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType

# CPython for WASI takes its memory from the C library's allocator: pieces of a multiple of 16 bytes, 4 of them its own.
PIECE_BYTES = 16
OVERHEAD_BYTES = 4 + b"".__sizeof__()
LARGEST_BYTES = 1 << 20
FINE_BYTES = 4096            # below it every size is filled, above it only some
STEPS = 16                   # of sizes, for each halving

_fillers: list[list[bytes]] = []


def fill_holes() -> None:
    """Throws away what is garbage and fills the holes; what is made afterwards lies behind everything there was."""
    gc.collect()
    end = 0
    for size in sizes():
        end = max(end, fill(size, end))


def gather(codes: Collection[CodeType]) -> None:
    """Moves the code of functions that every process runs, and so writes to, to where it lies side by side."""
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and function.__code__ in codes:
            function.__code__ = function.__code__.replace()


def freeze() -> None:
    """Takes all that is alive out of the collector's sight: it writes to what it looks at."""
    gc.collect()
    gc.freeze()


def sizes() -> Iterator[int]:
    """Sizes of pieces, the largest first: what is left of a hole is filled by a smaller one."""
    size = LARGEST_BYTES
    while size > OVERHEAD_BYTES:
        yield size
        step = size // STEPS if size > FINE_BYTES else PIECE_BYTES
        size = (size - step) // PIECE_BYTES * PIECE_BYTES


def fill(size: int, end: int) -> int:
    """Pieces of `size` in every hole that has room for one: until one lies behind `end`. Answers where that is."""
    fillers = [bytes(size - OVERHEAD_BYTES)]
    while id(fillers[-1]) < end:
        fillers.append(bytes(size - OVERHEAD_BYTES))
    last = id(fillers[-1])
    if size > FINE_BYTES:
        fillers.pop()        # it made the heap longer, to no purpose
    _fillers.append(fillers)
    return last
