"""The journal: what happened to durable files, one entry after the other. docs/storage.md draws every byte.

    header   "CADKVJ01" │ next number u64 │ zero u32 │ CRC-32 u32
    entry    CRC-32 u32 │ length u32 │ position u64 │ durable u64 │ kind u32 │ zero u32 │ payload

An entry knows where it stands, so it is found again behind any damage; and up to where the journal was on the disk when
it was written, so damage is told from a crash: what was on the disk does not get torn.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cadenza.kvfs.errors import Damaged

MAGIC = b"CADKVJ01"
HEADER = struct.Struct("<8sQII")
HEAD = struct.Struct("<IIQQII")
MARK, PUT, NAMES = 0, 1, 2


class Entry(NamedTuple):
    kind: int
    payload: memoryview
    position: int                            # in bytes from the start of the journal
    durable: int                             # likewise: what was on the disk when it was written

    @property
    def end(self) -> int:
        return self.position + HEAD.size + len(self.payload)


class Journal:
    """An open journal. Who calls sees to it that one thread at a time appends.

    An append is one write: a process killed in it leaves a torn tail, which the next open cuts off.
    """

    def __init__(self, path: Path, end: int) -> None:
        """Opens the one at `path`, to go on at byte `end`; what is past that is cut off."""
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(self._file).st_size > end:
            os.ftruncate(self._file, end)
        os.fdatasync(self._file)
        self.end = self.durable = end
        self._settled = end

    @classmethod
    def create(cls, path: Path, next_number: int, entries: Iterable[tuple[int, bytes]] = ()) -> Journal:
        """A new one, on the disk when this returns; its name is not: `sync_directory`. Blocks. Raises OSError."""
        end = 0
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            end += file.write(header(next_number))
            for kind, payload in entries:
                end += file.write(pack(kind, payload, end, 0))
        return cls(path, end)

    def take_place(self, path: Path) -> Journal:
        """It is the one at `path` from now on; an older one is no more. Atomic. Raises OSError."""
        os.replace(self.path, path)
        self.path = path
        return self

    @property
    def settled(self) -> bool:
        """Whether all of it is on the disk, but for a mark that says so."""
        return self.end == self._settled

    def append(self, kind: int, payload: bytes) -> None:
        """In the hands of the system when it returns: safe from kill -9. Raises OSError, and then changes nothing."""
        entry = pack(kind, payload, self.end, self.durable)
        try:
            if os.pwrite(self._file, entry, self.end) != len(entry):
                raise OSError(f"{self.path} takes no more: is the disk full?")
        except OSError:
            os.ftruncate(self._file, self.end)
            raise
        self.end += len(entry)

    def sync(self) -> None:
        """Blocks until all that was appended before is safe from a loss of power. Raises OSError."""
        os.fdatasync(self._file)

    def settle(self, end: int) -> None:
        """The journal up to `end` has been synced. Says so in it, if nothing follows: a later change of those bytes
        cannot be taken for a crash then."""
        self.durable = end
        if self.end == end:
            with suppress(OSError):              # of no harm: it only makes damage harder to tell
                self.append(MARK, b"")
            self._settled = self.end

    def entries(self, first: int, end: int) -> Iterator[Entry]:
        """Those from byte `first` up to `end`, both where entries begin."""
        return whole_entries(os.pread(self._file, end - first, first), 0, first)

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(slots=True)
class Contents:
    """What a journal file holds: whole entries up to `end`, then perhaps something else, then perhaps more."""

    next_number: int
    entries: list[Entry]
    end: int
    size: int
    beyond: list[Entry]

    @property
    def damaged(self) -> bool:
        """Whether that something was on the disk once, so that no crash has torn it."""
        return any(entry.durable > self.end for entry in self.beyond)

    @property
    def lost(self) -> list[tuple[int, int]]:
        """Where nothing whole stands: first byte, end."""
        starts = [*(entry.position for entry in self.beyond), self.size]
        ends = [self.end, *(entry.end for entry in self.beyond)]
        return [(end, start) for end, start in zip(ends, starts, strict=True) if end < start]


def read_journal(path: Path) -> Contents:
    """Raises Damaged when its header is; use `salvage` then. Blocks."""
    data = path.read_bytes()
    next_number = _next_number(data)
    if next_number is None:
        raise Damaged(f"{path} does not begin as a journal of this version does: run `cadenza fsck`")
    entries = list(whole_entries(data, HEADER.size))
    end = entries[-1].end if entries else HEADER.size
    return Contents(next_number, entries, end, len(data), scattered_entries(data, end))


def salvage(path: Path) -> Contents:
    """As `read_journal`, for one whose header is damaged."""
    data = path.read_bytes()
    return Contents(1, [], min(HEADER.size, len(data)), len(data), scattered_entries(data, HEADER.size))


def header(next_number: int) -> bytes:
    start = HEADER.pack(MAGIC, next_number, 0, 0)[:-4]
    return start + zlib.crc32(start).to_bytes(4, "little")


def pack(kind: int, payload: bytes, position: int, durable: int) -> bytes:
    head = HEAD.pack(0, len(payload), position, durable, kind, 0)[4:]
    return zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") + head + payload


def whole_entries(data: bytes, at: int, start: int = 0) -> Iterator[Entry]:
    """Those from byte `at` of `data` on, one after the other, until there is none. `data` begins at byte `start` of its
    journal."""
    while (entry := _entry_at(data, at, start)) is not None:
        yield entry
        at = entry.end - start


def scattered_entries(data: bytes, first: int) -> list[Entry]:
    """Those that begin at `first` or later, wherever: where a number says so of itself."""
    places: list[int] = []
    for lane in range(8 if len(data) >= HEAD.size else 0):
        words = np.frombuffer(data, "<u8", (len(data) - lane) // 8, lane)
        own = np.arange(len(words), dtype=np.uint64) * np.uint64(8) + np.uint64(lane)
        places += (np.flatnonzero(words[1:] == own[:-1]) * 8 + lane).tolist()
    found: list[Entry] = []
    for place in sorted(places):
        entry = _entry_at(data, place) if place >= first else None
        if entry is not None:
            found.append(entry)
            first = entry.end
    return found


def sync_directory(path: Path) -> None:
    """Blocks until the names in it are safe from a loss of power."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _entry_at(data: bytes, at: int, start: int = 0) -> Entry | None:
    """None if there is no whole entry."""
    if at + HEAD.size > len(data):
        return None
    checksum, length, position, durable, kind, _ = HEAD.unpack_from(data, at)
    end = at + HEAD.size + length
    if position != start + at or end > len(data) or zlib.crc32(memoryview(data)[at + 4 : end]) != checksum:
        return None
    return Entry(kind, memoryview(data)[at + HEAD.size : end], position, durable)


def _next_number(data: bytes) -> int | None:
    if len(data) < HEADER.size:
        return None
    number = int(HEADER.unpack_from(data)[1])
    return number if data.startswith(header(number)) else None
