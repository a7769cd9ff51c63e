"""The heap of the snapshot, laid out so that a process writes to few of its pages: each is then copied for it alone.

    before    ■■□■ ■□■■ □■■■ ■■□□ …          new objects go into holes: one page copied for each
    after     ■■■■ ■■■■ ■■■■ ■■■■ │ □□□□ …   new objects lie side by side behind all that is shared
"""

from __future__ import annotations

import gc

ALIGNMENT_BYTES = 16
SMALL_BYTES = 512            # what Python's own allocator serves, from pools of one size each
POOL_BYTES = 16_384
HEADER_BYTES = bytes().__sizeof__()      # of an empty one
LARGE_BYTES = (768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12_288, 16_384, 32_768)

_fillers: list[list[bytes]] = []


def settle() -> None:
    """Throws away what is garbage, fills the holes, and takes all that is alive out of the collector's sight."""
    gc.collect()
    for size in range(2 * ALIGNMENT_BYTES, SMALL_BYTES + 1, ALIGNMENT_BYTES):
        _fillers.append(fill(size))
    for size in LARGE_BYTES:
        _fillers.append(fill_large(size))
    gc.collect()
    gc.freeze()


def fill(size: int) -> list[bytes]:
    """Objects of `size` bytes in every hole of that size: until they lie side by side for as long as a pool."""
    fillers: list[bytes] = []
    last, in_a_row = 0, 0
    while in_a_row * size < POOL_BYTES:
        filler = bytes(size - HEADER_BYTES)
        in_a_row = in_a_row + 1 if id(filler) - last == size else 0
        last = id(filler)
        fillers.append(filler)
    return fillers


def fill_large(size: int) -> list[bytes]:
    """The same for what the C library allocates: until eight of them lie behind one another."""
    fillers: list[bytes] = []
    last, in_a_row = 0, 0
    while in_a_row < 8:
        filler = bytes(size - HEADER_BYTES)
        in_a_row = in_a_row + 1 if 0 < id(filler) - last <= 2 * size else 0
        last = id(filler)
        fillers.append(filler)
    return fillers
