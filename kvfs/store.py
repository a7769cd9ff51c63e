"""The store: durable files in a directory. Segments hold their pages, the journal says which file is made of which.

    state/kv/   lock │ journal │ segments/<layout>/000000, 000001, …

    allocate ▶ write ▶ stage ▶ commit:   segments synced ─▶ entry appended ─▶ journal synced ─▶ older slots are free

A slot is free, or held: by files in the journal, by staged ones, by pages that are being written, by pages in use. What
the journal on the disk may still name is never written to: slots that lose their file are free after the next flush.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cadenza.kvfs.catalogue import Catalogue, open_journal
from cadenza.kvfs.errors import Busy, Damaged
from cadenza.kvfs.journal import NAMES, PUT, Journal, sync_directory
from cadenza.kvfs.records import FileRecord, Layout, Naming, StoredPage, encode, encode_names
from cadenza.kvfs.segments import Segments, UInt8, remove_strays
from cadenza.kvfs.slots import Slots

log = logging.getLogger(__name__)

COMPACTION_FACTOR = 4                        # the journal is rewritten when it is so many times what is alive in it,
COMPACTION_BYTES = 1 << 20                   # and over this
SHRINK_SLOTS = 256                           # so many free slots at the end are given back to the disk
_CARRY_BYTES = 64 << 10                      # carried over at the end of a rewrite, while nothing can be appended


@dataclass(slots=True)
class _Staged:
    """A record whose slots are held, and written to."""

    record: FileRecord
    entry: tuple[FileRecord, bytes] | None = None    # once its segments are synced: what to append of which record

    @property
    def ready(self) -> bool:
        return self.entry is not None and self.entry[0] is self.record


class Store:
    """One daemon's. Methods that block say so, and are called off the event loop; the others wait for no disk.

    Any thread may call any method.
    """

    def __init__(self, directory: Path, layout: Layout, limit_bytes: int) -> None:
        """Blocks while it reads the journal, of which it cuts off a torn tail. Raises Busy when another daemon has it,
        Damaged, OSError."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.layout = layout
        self.directory = directory
        self._segments = Segments(directory / "segments", layout)
        self._slots = Slots(limit_bytes // max(1, layout.page_bytes))
        self._catalogue = Catalogue()
        self._staged: dict[int, _Staged] = {}
        self._leaving: list[int] = []            # slots of what is no more, held until the journal has been synced
        self._failed = ""
        self._lock = threading.Lock()            # of all of the above; held for no longer than an append takes
        self._flushing = threading.Lock()        # held by the one thread that syncs or rewrites the journal
        self._directory_lock = lock_directory(directory)
        try:
            self._journal = open_journal(directory, self._catalogue)
            self._slots.hold([slot for record in self.files.values() for slot in self._own(record)])
            self._segments.shrink(self._slots.end)
            remove_strays(directory / "segments", {layout, *(record.layout for record in self.files.values())})
        except BaseException:
            os.close(self._directory_lock)
            raise

    @property
    def files(self) -> dict[int, FileRecord]:
        """What the journal says, by number; not to be written. Those of other layouts too: they cannot be read here."""
        return self._catalogue.files

    # --- slots ---

    def can_allocate(self, count: int) -> bool:
        """After a `flush` it may be more."""
        return self._slots.can_allocate(count)

    def allocate(self, count: int) -> list[int]:
        """`count` slots, held once each: neighbours as far as possible, ascending. Raises LimitExceeded."""
        with self._lock:
            return self._slots.allocate(count)

    def hold(self, slot: int) -> None:
        """Once more. It is held already."""
        with self._lock:
            assert self._slots.holds(slot), f"slot {slot} is free"
            self._slots.hold([slot])

    def release(self, slots: Iterable[int]) -> None:
        """Once less each."""
        with self._lock:
            self._slots.release(list(slots))

    def write(self, slots: Sequence[int], images: UInt8) -> list[int]:
        """Blocks. `images` [n, page_bytes]; answers their checksums. Raises OSError, Damaged."""
        return self._segments.write(slots, images)

    def expect(self, pages: Sequence[StoredPage]) -> None:
        """The system may begin to read them. Hardly blocks. Raises OSError."""
        self._segments.expect(pages)

    def read(self, pages: Sequence[StoredPage], out: UInt8) -> None:
        """Blocks. Into `out` [n, page_bytes], whose rows are contiguous. Raises Damaged, OSError."""
        for page in self._segments.read(pages, out):
            users = " ".join(path for record in list(self.files.values()) for path in record.naming.paths
                             if record.layout == self.layout and page in record.pages)
            raise Damaged(f"slot {page.slot} in {self._segments.path_of(page.slot)} is not what was written to it, and "
                          f"is a page of {users or 'a file that is not durable'}: run `cadenza fsck`")

    # --- files ---

    def new_number(self) -> int:
        with self._lock:
            self._catalogue.next_number += 1
            return self._catalogue.next_number - 1

    def stage(self, record: FileRecord) -> None:
        """`record`, whose pages are written, is to be committed in place of what is known under its number. Holds its
        slots. From now on `change` applies to it."""
        assert record.layout == self.layout, f"{record.layout} is not this store's"
        assert record.naming.paths, f"file {record.number} has no name and would never be found"
        with self._lock:
            assert all(map(self._slots.holds, record.slots)), f"file {record.number} is made of free slots"
            self._slots.hold(list(record.slots))
            self._unstage(record.number)
            self._staged[record.number] = _Staged(record)

    def commit(self, *numbers: int) -> bool:
        """Blocks until what was staged under `numbers` is durable. False if one of them is not, because it lost its
        last name meanwhile. Raises OSError, and then nothing can be said of them until the store is opened anew."""
        try:
            while waiting := self._append_staged(numbers):
                self._prepare(waiting)
        except BaseException:
            with self._lock:
                for number in numbers:
                    self._unstage(number)
            raise
        self.flush()
        return all(number in self.files for number in numbers)

    def change(self, namings: Mapping[int, Naming]) -> None:
        """New names and rights of files, all at once; a file without paths is no more. Those that are neither durable
        nor staged are passed over. Safe from kill -9 when this returns, from a loss of power after the next `flush` or
        `commit`. Raises OSError, and then changes nothing."""
        with self._lock:
            durable = {number: naming for number, naming in namings.items() if number in self.files}
            if durable:
                self._append(NAMES, encode_names(durable))
            for number, naming in namings.items():
                if number in durable:
                    self._leave(self._catalogue.name(number, naming))
                if number in self._staged and naming.paths:
                    self._staged[number].record = self._staged[number].record.named(naming)
                elif not naming.paths:
                    self._unstage(number)

    @property
    def unflushed(self) -> bool:
        """Whether a loss of power could take something."""
        return not self._journal.settled

    def flush(self) -> None:
        """Blocks until every change is safe from a loss of power; then slots that lost their file are free. Raises
        OSError."""
        with self._flushing:
            with self._lock:
                journal, end, leaving = self._journal, self._journal.end, self._leaving
                if journal.settled:
                    return
                self._check()
                self._leaving = []
            with self._failing():
                journal.sync()
            with self._lock:
                journal.settle(end)
                self._slots.release(leaving)
            self._tidy()

    def compact(self) -> None:
        """Blocks: the journal says then what is, and no more how it came about. Raises OSError."""
        with self._flushing:
            self._rewrite()

    def statistics(self) -> dict[str, int]:
        return {"disk_pages": self._slots.used, "disk_limit_pages": self._slots.limit,
                "durable_files": len(self.files), "journal_bytes": self._journal.end}

    def recount(self, held: Iterable[int]) -> None:
        """Raises AssertionError unless slots are held by files and by `held`, as often as it is counted."""
        with self._lock:
            records = [*self.files.values(), *(staged.record for staged in self._staged.values())]
            self._slots.recount([*held, *self._leaving, *(slot for each in records for slot in self._own(each))])

    def close(self) -> None:
        """Blocks. What was staged and not committed is given up. Idempotent. Raises OSError."""
        if self._directory_lock >= 0:
            try:
                if not self._failed:
                    self.flush()
            finally:
                self._journal.close()
                self._segments.close()
                os.close(self._directory_lock)
                self._directory_lock = -1

    # --- with `_lock` held ---

    def _check(self) -> None:
        if self._failed:
            raise OSError(f"{self.directory} is not written to any more since this went wrong: {self._failed}; see to "
                          "the disk, then start the daemon again")

    def _append(self, kind: int, payload: bytes) -> None:
        self._check()
        self._journal.append(kind, payload)

    def _put(self, record: FileRecord, entry: bytes) -> None:
        """The hold on its slots goes over from being staged to being in the journal."""
        self._append(PUT, entry)
        del self._staged[record.number]
        self._leave(self._catalogue.put(record, len(entry)))

    def _leave(self, record: FileRecord | None) -> None:
        if record is not None:
            self._leaving += self._own(record)

    def _unstage(self, number: int) -> None:
        staged = self._staged.pop(number, None)
        if staged is not None:
            self._slots.release(list(staged.record.slots))

    def _own(self, record: FileRecord) -> list[int]:
        """Its slots, if they are of the layout that is counted here."""
        return list(record.slots) if record.layout == self.layout else []

    # --- blocking ---

    def _append_staged(self, numbers: Sequence[int]) -> list[_Staged]:
        """Appends what is staged under `numbers`; unless some of it is not ready: answers that, and appends nothing."""
        with self._lock:
            staged = [self._staged[number] for number in dict.fromkeys(numbers) if number in self._staged]
            waiting = [each for each in staged if not each.ready]
            for each in [] if waiting else staged:
                assert each.entry is not None
                self._put(*each.entry)
            return waiting

    def _prepare(self, waiting: Sequence[_Staged]) -> None:
        with self._failing():
            self._segments.sync(slot for staged in waiting for slot in staged.record.slots)
        for staged in waiting:
            record = staged.record
            staged.entry = record, encode(record)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What could not be synced may be lost although a second try succeeds: nothing is written after that."""
        try:
            yield
        except OSError as error:
            self._failed = str(error)
            raise

    def _tidy(self) -> None:
        """After a flush: room is given back, and the journal rewritten, if that is worth it. What fails is told."""
        try:
            self._shrink()
            if self._journal.end > max(COMPACTION_BYTES, COMPACTION_FACTOR * self._catalogue.alive_bytes):
                self._rewrite()
        except OSError as error:
            log.warning("%s could not be tidied up: %s", self.directory, error)

    def _shrink(self) -> None:
        with self._lock:
            tail = self._slots.close_tail(SHRINK_SLOTS)
        if tail is not None:
            try:
                self._segments.shrink(tail)
            finally:
                with self._lock:
                    self._slots.open_tail()

    def _rewrite(self) -> None:
        """A new journal grows beside the old one; who appends waits for the last piece of it only."""
        with self._lock:
            done, number = self._journal.end, self._catalogue.next_number
            entries = self._catalogue.entries()
        fresh = Journal.create(self._journal.path.with_suffix(".new"), number, entries)
        try:
            left = self._journal.end - done
            while left > _CARRY_BYTES:
                done, before = self._carry(fresh, done), left
                left = self._journal.end - done
                if 2 * left > before:
                    break                        # who appends is as fast as this: from here on it waits
            with self._lock:
                self._carry(fresh, done)
                old, self._journal = self._journal, fresh.take_place(self._journal.path)
        except BaseException:
            fresh.close()
            raise
        old.close()
        with self._failing():                    # until its name is on the disk, nothing can be said to be
            sync_directory(self.directory)

    def _carry(self, fresh: Journal, first: int) -> int:
        """Appends to `fresh` what was appended from byte `first` on. Answers the end of that."""
        end = self._journal.end
        for entry in self._journal.entries(first, end):
            fresh.append(entry.kind, bytes(entry.payload))
        return end


def lock_directory(directory: Path) -> int:
    """A descriptor that holds the lock. Raises Busy when somebody else does."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Busy(f"{directory} is in use by another daemon: stop it, or give this one another --state") from None
    return lock
