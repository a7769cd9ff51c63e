"""Segments: files of slots, each of which holds one page image. docs/storage.md draws every byte.

    header   "CADKVS01" │ length u32 │ CRC-32 u32 │ layout as JSON │ zeros up to 4096
    slot     page_bytes, one after the other
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.errors import Damaged
from cadenza.kvfs.journal import sync_directory
from cadenza.kvfs.records import Layout, StoredPage

UInt8 = NDArray[np.uint8]

MAGIC = b"CADKVS01"
HEADER_BYTES = 4096
SEGMENT_SLOTS = 4096


class Segments:
    """All slots of one layout, in files of SEGMENT_SLOTS. Reading and writing block; each from one thread at a time."""

    def __init__(self, directory: Path, layout: Layout) -> None:
        self.layout = layout
        self._directory = directory / directory_name(layout)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._files: dict[int, int] = {}
        self._unsynced: set[int] = set()

    def write(self, slots: Sequence[int], images: UInt8) -> list[int]:
        """`images` [n, page_bytes], one for each slot. Answers their checksums. Raises OSError."""
        for first, end in _runs(slots):
            number, offset = self._place(slots[first])
            data = np.ascontiguousarray(images[first:end]).data.cast("B")
            file = self._open(number)
            written = os.pwrite(file, data, offset)
            if written != len(data):
                raise OSError(f"{self._path(number)}: {written} of {len(data)} bytes written; is the disk full?")
            self._unsynced.add(number)
        return [zlib.crc32(image) for image in images]

    def expect(self, pages: Sequence[StoredPage]) -> None:
        """The system may begin to read them: `read` follows, in this order. Raises OSError."""
        for first, end in _runs([page.slot for page in pages]):
            number, offset = self._place(pages[first].slot)
            length = (end - first) * self.layout.page_bytes
            os.posix_fadvise(self._open(number), offset, length, os.POSIX_FADV_WILLNEED)

    def read(self, pages: Sequence[StoredPage], out: UInt8) -> None:
        """Into `out` [n, page_bytes], contiguous; `verify` it. Raises OSError."""
        for first, end in _runs([page.slot for page in pages]):
            number, offset = self._place(pages[first].slot)
            _read_all(self._open(number), out[first:end].data.cast("B"), offset)

    def verify(self, pages: Sequence[StoredPage], images: UInt8) -> None:
        """Raises Damaged when an image [n, page_bytes] is not what was written."""
        for page, image in zip(pages, images, strict=True):
            if zlib.crc32(image) != page.checksum:
                path = self._path(page.slot // SEGMENT_SLOTS)
                raise Damaged(f"slot {page.slot} of {path} is not what was written to it: run `cadenza fsck`")

    def flush(self) -> None:
        """Blocks until everything written is safe from a loss of power."""
        unsynced, self._unsynced = self._unsynced, set()
        for number in unsynced:
            os.fdatasync(self._files[number])

    def close(self) -> None:
        """Idempotent."""
        files, self._files = self._files, {}
        for file in files.values():
            os.close(file)

    def _open(self, number: int) -> int:
        if number not in self._files:
            path = self._path(number)
            fresh = not path.exists() or path.stat().st_size < HEADER_BYTES
            file = self._files[number] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if fresh:
                os.pwrite(file, header(self.layout), 0)
                self._unsynced.add(number)
                sync_directory(self._directory)
            else:
                check_header(path, os.pread(file, HEADER_BYTES, 0), self.layout)
        return self._files[number]

    def _place(self, slot: int) -> tuple[int, int]:
        number, index = divmod(slot, SEGMENT_SLOTS)
        return number, HEADER_BYTES + index * self.layout.page_bytes

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:06d}"


def directory_name(layout: Layout) -> str:
    """Of the segments of a layout: a digest of it."""
    return sha256(_layout_json(layout)).hexdigest()[:16]


def header(layout: Layout) -> bytes:
    text = _layout_json(layout)
    return (MAGIC + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text).ljust(
        HEADER_BYTES, b"\0")


def check_header(path: Path, found: bytes, layout: Layout) -> None:
    """Raises Damaged."""
    if found != header(layout):
        raise Damaged(f"the header of {path} is damaged, or is not of {layout}: run `cadenza fsck`")


def _layout_json(layout: Layout) -> bytes:
    return json.dumps(asdict(layout), sort_keys=True, separators=(",", ":")).encode()


def _runs(slots: Sequence[int]) -> list[tuple[int, int]]:
    """Where neighbouring slots of one segment lie in `slots`, as (first, end)."""
    numbers = np.asarray(slots, np.int64)
    cuts = np.flatnonzero((np.diff(numbers) != 1) | (numbers[1:] % SEGMENT_SLOTS == 0)) + 1
    bounds = [0, *cuts.tolist(), len(numbers)]
    return [(a, b) for a, b in pairwise(bounds) if a < b]


def _read_all(file: int, into: memoryview, offset: int) -> None:
    """What lies past the end of the file reads as nothing: the checksum tells."""
    done = 0
    while done < len(into):
        count = os.preadv(file, [into[done:]], offset + done)
        if count == 0:
            return
        done += count
