"""The journal: what happened to durable files, one entry after the other. docs/storage.md draws every byte.

    header   "CADKVJ01"
    entry    length u32 │ CRC-32 of the rest u32 │ kind u8 │ payload
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from cadenza.kvfs.errors import Damaged

MAGIC = b"CADKVJ01"
HEAD = struct.Struct("<IIB")
PUT, NAME, DROP = 1, 2, 3

Entry = tuple[int, bytes]                    # kind, payload


class Journal:
    """An open journal. An append is one write: a process killed in it leaves a torn tail, which the next open cuts."""

    def __init__(self, path: Path) -> None:
        """Creates it if need be. Read it with `replay` before the first append."""
        self.path = path
        self.lock = threading.Lock()         # held by who appends, with what it keeps of that
        fresh = not path.exists()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if fresh or os.fstat(self._file).st_size < len(MAGIC):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, MAGIC, 0)
            self.flush()
            sync_directory(path.parent)
        self.size = os.fstat(self._file).st_size

    def replay(self) -> Iterator[Entry]:
        """Every whole entry; then cuts off a torn tail. `torn` bytes were cut. Raises Damaged, and cuts nothing, when
        whole entries follow one whose checksum is wrong: that was not a crash."""
        entries, end, self.torn = read_entries(self.path.read_bytes(), self.path)
        yield from entries
        if self.torn:
            os.ftruncate(self._file, end)
            self.flush()
        self.size = end

    def append(self, kind: int, payload: bytes) -> None:
        """With `lock` held. In the hands of the system when it returns: safe from kill -9. Raises OSError."""
        entry = pack(kind, payload)
        written = os.pwrite(self._file, entry, self.size)
        if written != len(entry):
            raise OSError(f"{self.path}: {written} of {len(entry)} bytes written; is the disk full?")
        self.size += written

    def flush(self) -> None:
        """Blocks until everything appended is safe from a loss of power."""
        os.fdatasync(self._file)

    def rewrite(self, entries: Iterable[Entry]) -> None:
        """With `lock` held: replaces all entries, atomically. Blocks."""
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(MAGIC + b"".join(pack(*entry) for entry in entries))
        file = os.open(fresh, os.O_RDWR | os.O_CLOEXEC)
        os.fdatasync(file)
        os.replace(fresh, self.path)
        sync_directory(self.path.parent)
        os.close(self._file)
        self._file, self.size = file, os.fstat(file).st_size

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def pack(kind: int, payload: bytes) -> bytes:
    body = bytes((kind,)) + payload
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def read_entries(data: bytes, path: Path) -> tuple[list[Entry], int, int]:
    """The whole entries, where they end, and how many bytes of a torn one follow. Raises Damaged."""
    if not data.startswith(MAGIC):
        raise Damaged(f"{path} is not a journal of this version: it begins with {data[:8]!r}, not {MAGIC!r}")
    entries: list[Entry] = []
    at = len(MAGIC)
    while (entry := _entry_at(data, at)) is not None:
        entries.append(entry)
        at += 8 + 1 + len(entry[1])
    if _anything_whole_after(data, at):
        raise Damaged(f"{path} is damaged at byte {at}, and whole entries follow: run `cadenza fsck`")
    return entries, at, len(data) - at


def sync_directory(path: Path) -> None:
    """Blocks until the names in it are safe from a loss of power."""
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _entry_at(data: bytes, at: int) -> Entry | None:
    """None if there is no whole entry."""
    if at + HEAD.size > len(data):
        return None
    length, checksum, kind = HEAD.unpack_from(data, at)
    body = data[at + 8 : at + 8 + length]
    if length < 1 or len(body) != length or zlib.crc32(body) != checksum:
        return None
    return kind, body[1:]


def _anything_whole_after(data: bytes, at: int) -> bool:
    """Whether the entry at `at`, if its length can be believed, is followed by a whole one."""
    if at + HEAD.size > len(data):
        return False
    length = HEAD.unpack_from(data, at)[0]
    return length > 0 and _entry_at(data, at + 8 + length) is not None
