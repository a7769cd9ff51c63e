"""The store: durable files in a directory. Segments hold their pages, the journal says which file is made of which.

    state/kv/   lock │ journal │ segments/<layout>/000000, 000001, …

A slot is free, or held: by files in the journal, by pages that are being written, by pages in use. A file is durable
once its pages are, and then its entry in the journal; what an older entry alone held is free after that.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from cadenza.kvfs.errors import Busy, Damaged, LimitExceeded
from cadenza.kvfs.journal import DROP, NAME, PUT, Entry, Journal
from cadenza.kvfs.records import FileRecord, Layout, Naming, StoredPage, decode, encode
from cadenza.kvfs.segments import Segments, UInt8

log = logging.getLogger(__name__)

COMPACTION_FACTOR = 4                        # the journal is rewritten when it is so many times what is alive in it,
COMPACTION_BYTES = 1 << 20                   # and over this


class Store:
    """One daemon's. `write`, `read`, `verify`, `commit` block and are called off the event loop; the rest is quick."""

    def __init__(self, directory: Path, layout: Layout, limit_bytes: int) -> None:
        """Blocks while it reads the journal. Raises Busy when another daemon has it, Damaged."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.layout = layout
        self.files: dict[int, FileRecord] = {}
        self._limit_slots = limit_bytes // max(1, layout.page_bytes)
        self._holds: Counter[int] = Counter()
        self._free: list[int] = []           # a heap of free slots below `_end`
        self._end = 0
        self._lock = lock_directory(directory)
        self._journal = Journal(directory / "journal")
        self._segments = Segments(directory / "segments", layout)
        self.files = replay(self._journal)
        if self._journal.torn:
            log.warning("the journal had a torn tail of %d bytes: it was cut off", self._journal.torn)
        self._next_number = max(self.files, default=0) + 1
        for record in self.files.values():
            self._hold(record)
        self._end = max(self._holds, default=-1) + 1
        self._free = [slot for slot in range(self._end) if slot not in self._holds]
        self._entry_bytes = {number: len(encode(record)) for number, record in self.files.items()}

    # --- slots ---

    def allocate(self, count: int) -> list[int]:
        """`count` slots, held once each: old ones if there are as many, else new ones side by side. Raises
        LimitExceeded."""
        used = self._end - len(self._free)
        if used + count > self._limit_slots:
            raise LimitExceeded(f"the disk tier holds {used} of at most {self._limit_slots} pages, {count} more are "
                                "needed: remove files, or start the daemon with a larger --disk-gib", "disk_pages")
        if len(self._free) >= count:
            slots = [heapq.heappop(self._free) for _ in range(count)]
        else:
            slots = list(range(self._end, self._end + count))
            self._end += count
        self._holds.update(slots)
        return slots

    def hold(self, slot: int) -> None:
        assert self._holds[slot] > 0, f"slot {slot} is free"
        self._holds[slot] += 1

    def release(self, slots: Iterable[int]) -> None:
        for slot in slots:
            self._holds[slot] -= 1
            assert self._holds[slot] >= 0, f"slot {slot} is free already"
            if self._holds[slot] == 0:
                del self._holds[slot]
                heapq.heappush(self._free, slot)

    def write(self, slots: Sequence[int], images: UInt8) -> list[int]:
        """Blocks. `images` [n, page_bytes]; answers their checksums. Raises OSError."""
        return self._segments.write(slots, images)

    def expect(self, pages: Sequence[StoredPage]) -> None:
        """The system may begin to read them. Hardly blocks. Raises OSError."""
        self._segments.expect(pages)

    def read(self, pages: Sequence[StoredPage], out: UInt8) -> None:
        """Blocks. Into `out` [n, page_bytes]; `verify` it. Raises OSError."""
        self._segments.read(pages, out)

    def verify(self, pages: Sequence[StoredPage], images: UInt8) -> None:
        """Blocks; on any thread. Raises Damaged when an image [n, page_bytes] is not what was written."""
        self._segments.verify(pages, images)

    # --- files ---

    def new_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def commit(self, record: FileRecord) -> FileRecord | None:
        """Blocks until `record` is durable. Answers what it replaces; tell `adopt`. Raises OSError."""
        self._segments.flush()
        entry = encode(record)
        with self._journal.lock:
            self._journal.append(PUT, entry)
            old = self.files.get(record.number)
            self.files[record.number] = record
            self._entry_bytes[record.number] = len(entry)
            alive = sum(self._entry_bytes.values())
        self._journal.flush()
        if self._journal.size > max(COMPACTION_BYTES, COMPACTION_FACTOR * alive):
            self.compact()
        return old

    def adopt(self, record: FileRecord, old: FileRecord | None) -> None:
        """The books of a commit."""
        self._hold(record)
        self._let_go(old)

    def rename(self, number: int, naming: Naming) -> None:
        """New names and rights of a durable file: safe from kill -9 at once, from a loss of power with the next
        commit. Raises OSError."""
        with self._journal.lock:
            self._journal.append(NAME, _naming_entry(number, naming))
            self.files[number] = self.files[number].named(naming)

    def drop(self, number: int) -> None:
        """A durable file is no more. As safe as `rename`."""
        with self._journal.lock:
            self._journal.append(DROP, number.to_bytes(8, "little"))
            record = self.files.pop(number)
            self._entry_bytes.pop(number, None)
        self._let_go(record)

    def compact(self) -> None:
        """Blocks: the journal says then what is, and no more how it came about."""
        with self._journal.lock:
            entries: list[Entry] = [(PUT, encode(record)) for record in list(self.files.values())]
            self._journal.rewrite(entries)

    def statistics(self) -> dict[str, int]:
        return {"disk_pages": self._end - len(self._free), "disk_limit_pages": self._limit_slots,
                "durable_files": len(self.files), "journal_bytes": self._journal.size}

    def recount(self, held: Iterable[int]) -> None:
        """Raises AssertionError unless slots are held by durable files and by `held`, as often as it is counted."""
        found = Counter(held)
        for record in self.files.values():
            if record.layout == self.layout:
                found.update(record.slots)
        assert found == +self._holds, "slots are held otherwise than it is counted"
        assert sorted([*self._free, *self._holds]) == list(range(self._end)), "a slot is lost"

    def close(self) -> None:
        """Blocks. Idempotent."""
        if self._lock >= 0:
            self._journal.flush()
            self._journal.close()
            self._segments.close()
            os.close(self._lock)
            self._lock = -1

    def _hold(self, record: FileRecord) -> None:
        if record.layout == self.layout:
            self._holds.update(record.slots)

    def _let_go(self, record: FileRecord | None) -> None:
        if record is not None and record.layout == self.layout:
            self.release(record.slots)


def lock_directory(directory: Path) -> int:
    """A descriptor that holds the lock. Raises Busy when somebody else does."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Busy(f"{directory} is in use by another daemon: stop it, or give this one another --state") from None
    return lock


def replay(journal: Journal) -> dict[int, FileRecord]:
    """The files that a journal leaves, by number. Raises Damaged for an entry that makes no sense."""
    files: dict[int, FileRecord] = {}
    for kind, payload in journal.replay():
        try:
            apply(files, kind, payload)
        except (ValueError, KeyError, TypeError) as fault:
            raise Damaged(f"{journal.path} has an entry of kind {kind} that makes no sense ({fault}): "
                          "run `cadenza fsck`") from fault
    return files


def apply(files: dict[int, FileRecord], kind: int, payload: bytes) -> None:
    """One entry. Raises ValueError or KeyError if it makes no sense."""
    if kind == PUT:
        record = decode(payload)
        files[record.number] = record
    elif kind == NAME:
        number = int.from_bytes(payload[:8], "little")
        files[number] = files[number].named(Naming.from_json(json.loads(payload[8:])))
    elif kind == DROP:
        del files[int.from_bytes(payload, "little")]
    else:
        raise ValueError(f"kind {kind} is unknown")


def _naming_entry(number: int, naming: Naming) -> bytes:
    return number.to_bytes(8, "little") + json.dumps(naming.to_json(), separators=(",", ":")).encode()
