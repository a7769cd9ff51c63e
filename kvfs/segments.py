"""Segments: files of slots, each of which holds one page image. docs/storage.md draws every byte.

    header   "CADKVS01" │ length u32 │ CRC-32 u32 │ layout as JSON │ zeros up to 4096
    slot     page_bytes, one after the other
"""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
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
_PIECE_BYTES = 4 << 20                       # moved at once: keeps a disk busy, and fits a cache for the checksums
_PIECE_IMAGES = 1024                         # buffers in one call of the system


class Segments:
    """All slots of one layout, in files of SEGMENT_SLOTS. Everything here blocks; threads may do it side by side.

    A slot is written to by one thread at a time, and not read meanwhile: who holds it sees to that.
    """

    def __init__(self, directory: Path, layout: Layout) -> None:
        self.layout = layout
        self._directory = directory / directory_name(layout)
        self._lock = threading.Lock()        # held to open a file, and for the numbers below
        self._files: dict[int, int] = {}
        self._unsynced: dict[int, int] = {}  # writes to each segment, of those that were not all synced

    def write(self, slots: Sequence[int], images: UInt8) -> list[int]:
        """`images` [n, page_bytes], one for each slot. Answers their checksums. Raises OSError, Damaged."""
        for number, offset, rows in self._pieces(slots):
            file = self._open(number, create=True)
            self._move(os.pwritev, file, [images[row] for row in rows], offset)
            with self._lock:
                self._unsynced[number] = self._unsynced.get(number, 0) + 1
        return [zlib.crc32(image) for image in images]

    def expect(self, pages: Sequence[StoredPage]) -> None:
        """The system may begin to read them: `read` follows. Raises OSError."""
        for number, offset, rows in self._pieces([page.slot for page in pages]):
            with suppress(FileNotFoundError):        # `read` tells
                length = len(rows) * self.layout.page_bytes
                os.posix_fadvise(self._open(number, create=False), offset, length, os.POSIX_FADV_WILLNEED)

    def read(self, pages: Sequence[StoredPage], out: UInt8) -> list[StoredPage]:
        """Into `out` [n, page_bytes], whose rows are contiguous. Answers those that are not what was written; what is
        in their rows is anything. Raises OSError."""
        damaged: list[StoredPage] = []
        for number, offset, rows in self._pieces([page.slot for page in pages]):
            try:
                file = self._open(number, create=False)
                there = self._move(os.preadv, file, [out[row] for row in rows], offset)
            except FileNotFoundError:
                there = 0
            damaged += [pages[row] for at, row in enumerate(rows)
                        if at >= there or zlib.crc32(out[row]) != pages[row].checksum]
        return damaged

    def sync(self, slots: Iterable[int]) -> None:
        """Returns when all that was written to the segments of `slots` before is safe from a loss of power. Raises
        OSError."""
        for number in sorted({slot // SEGMENT_SLOTS for slot in slots}):
            with self._lock:
                writes = self._unsynced.get(number)
            if writes is None:
                continue
            os.fdatasync(self._files[number])
            with self._lock:
                if self._unsynced.get(number) == writes:
                    del self._unsynced[number]

    def shrink(self, end: int) -> None:
        """Gives back the disk's room from slot `end` on, of which nobody holds one. Raises OSError."""
        last, index = divmod(end, SEGMENT_SLOTS)
        for number in self.numbers():
            if number > last or (number == last and index == 0):
                self._path(number).unlink()
                with self._lock:
                    self._unsynced.pop(number, None)
                    file = self._files.pop(number, None)
                if file is not None:
                    os.close(file)
            elif number == last:
                os.truncate(self._path(number), min(self._path(number).stat().st_size, self._offset(index)))

    def numbers(self) -> list[int]:
        """Of the segments that there are."""
        return sorted(int(path.name) for path in self._directory.glob("[0-9]" * 6))

    def close(self) -> None:
        """Idempotent."""
        files, self._files = self._files, {}
        for file in files.values():
            os.close(file)

    def path_of(self, slot: int) -> Path:
        return self._path(slot // SEGMENT_SLOTS)

    def check_header(self, number: int) -> None:
        """Raises Damaged, OSError."""
        path = self._path(number)
        with path.open("rb") as file:
            if file.read(HEADER_BYTES) != header(self.layout):
                raise Damaged(f"the header of {path} is damaged, or is not of {self.layout}: run `cadenza fsck`")

    def write_header(self, number: int) -> None:
        """In place of what is there. Raises OSError."""
        with self._path(number).open("rb+") as file:
            file.write(header(self.layout))
            os.fsync(file.fileno())

    def _pieces(self, slots: Sequence[int]) -> Iterator[tuple[int, int, list[int]]]:
        """Segment, offset in its file, and which of `slots` lie there one after the other."""
        numbers = np.asarray(slots, np.int64)
        order = np.argsort(numbers, kind="stable")
        along = numbers[order]
        cuts = np.flatnonzero((np.diff(along) != 1) | (along[1:] % SEGMENT_SLOTS == 0)) + 1
        most = max(1, min(_PIECE_IMAGES, _PIECE_BYTES // max(1, self.layout.page_bytes)))
        for run in np.split(order, cuts):
            for first in range(0, len(run), most):
                rows: list[int] = run[first : first + most].tolist()
                number, index = divmod(int(numbers[rows[0]]), SEGMENT_SLOTS)
                yield number, self._offset(index), rows

    def _move(self, call: Callable[..., int], file: int, images: list[UInt8], offset: int) -> int:
        """Moves whole images, and answers how many: fewer where the file ends. Raises OSError when the disk is full."""
        done, size = 0, self.layout.page_bytes
        while done < len(images):
            moved = call(file, images[done:], offset + done * size) // size
            if moved == 0 and call is os.pwritev:
                raise OSError(f"{self._directory} takes no more: is the disk full?")
            if moved == 0:
                break
            done += moved
        return done

    def _open(self, number: int, *, create: bool) -> int:
        with self._lock:
            file = self._files.get(number)
            if file is None:
                if create:
                    self._make(number)
                file = self._files[number] = os.open(self._path(number), os.O_RDWR | os.O_CLOEXEC)
            return file

    def _make(self, number: int) -> None:
        """The file of that segment is there, with its header, when this returns. Raises Damaged, OSError."""
        path = self._path(number)
        if not path.exists() or path.stat().st_size < HEADER_BYTES:
            self._directory.mkdir(parents=True, exist_ok=True)
            path.touch(0o600)
            self.write_header(number)
            for directory in (self._directory, self._directory.parent):
                sync_directory(directory)
        self.check_header(number)

    def _offset(self, index: int) -> int:
        return HEADER_BYTES + index * self.layout.page_bytes

    def _path(self, number: int) -> Path:
        return self._directory / f"{number:06d}"


def directory_name(layout: Layout) -> str:
    """Of the segments of a layout: a digest of it."""
    return sha256(_layout_json(layout)).hexdigest()[:16]


def find_strays(directory: Path, layouts: Iterable[Layout]) -> list[Path]:
    """Directories of segments that are of none of `layouts`."""
    named = set(map(directory_name, layouts))
    return sorted(path for path in directory.glob("[0-9a-f]" * 16) if path.name not in named)


def remove_strays(directory: Path, layouts: Iterable[Layout]) -> None:
    """Gives back the room of layouts that no file has any more. Raises OSError."""
    for stray in find_strays(directory, layouts):
        for path in stray.iterdir():
            path.unlink()
        stray.rmdir()


def header(layout: Layout) -> bytes:
    text = _layout_json(layout)
    return (MAGIC + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text).ljust(
        HEADER_BYTES, b"\0")


def _layout_json(layout: Layout) -> bytes:
    return json.dumps(layout.to_json(), sort_keys=True, separators=(",", ":")).encode()
