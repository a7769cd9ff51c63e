"""The catalogue of durable files: what the entries of a journal make of them, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from cadenza.kvfs.errors import Damaged
from cadenza.kvfs.journal import MARK, NAMES, PUT, Entry, Journal, read_journal, sync_directory
from cadenza.kvfs.records import FileRecord, Naming, decode, decode_names, encode

log = logging.getLogger(__name__)


class Catalogue:
    """Files by number. It knows how long a journal of just these would be."""

    def __init__(self) -> None:
        self.files: dict[int, FileRecord] = {}
        self.alive_bytes = 0
        self.next_number = 1                     # above every number that was ever seen
        self._bytes: dict[int, int] = {}

    def apply(self, entry: Entry) -> None:
        """Raises ValueError if it makes no sense, and then changes nothing."""
        try:
            if entry.kind == PUT:
                self.put(decode(entry.payload), len(entry.payload))
            elif entry.kind == NAMES:
                self._rename(decode_names(entry.payload))
            elif entry.kind != MARK:
                raise ValueError(f"kind {entry.kind} is unknown")
        except (KeyError, IndexError, TypeError) as fault:
            raise ValueError(f"{type(fault).__name__} {fault}") from fault

    def put(self, record: FileRecord, entry_bytes: int) -> FileRecord | None:
        """Answers what it replaces."""
        old = self.files.get(record.number)
        self.files[record.number] = record
        self.alive_bytes += entry_bytes - self._bytes.get(record.number, 0)
        self._bytes[record.number] = entry_bytes
        self.next_number = max(self.next_number, record.number + 1)
        return old

    def name(self, number: int, naming: Naming) -> FileRecord | None:
        """Answers the file if it is no more, since it has no name left."""
        if naming.paths:
            self.files[number] = self.files[number].named(naming)
            return None
        self.alive_bytes -= self._bytes.pop(number)
        return self.files.pop(number)

    def entries(self) -> Iterable[tuple[int, bytes]]:
        """What a journal of just these says: kinds and payloads. The files are those of this moment."""
        return ((PUT, encode(record)) for record in list(self.files.values()))

    def _rename(self, namings: Mapping[int, Naming]) -> None:
        absent = [number for number in namings if number not in self.files]
        if absent:
            raise ValueError(f"it names files {absent}, which are not there")
        for number, naming in namings.items():
            self.name(number, naming)


def open_journal(directory: Path, catalogue: Catalogue) -> Journal:
    """Reads it into `catalogue`; makes one if this is a new directory. Blocks. Raises Damaged, OSError."""
    path = directory / "journal"
    if not path.exists():
        return _first_journal(path)
    contents = read_journal(path)
    if contents.damaged:
        raise Damaged(f"{path} is damaged at byte {contents.end}, where it had been whole: run `cadenza fsck`")
    for entry in contents.entries:
        try:
            catalogue.apply(entry)
        except ValueError as fault:
            raise Damaged(f"{path} has an entry at byte {entry.position} that makes no sense ({fault}): "
                          "run `cadenza fsck`") from fault
    catalogue.next_number = max(catalogue.next_number, contents.next_number)
    if contents.size > contents.end:
        log.warning("%s has a torn tail of %d bytes: it is cut off", path, contents.size - contents.end)
    path.with_suffix(".new").unlink(missing_ok=True)
    journal = Journal(path, contents.end)
    if contents.entries and contents.entries[-1].kind != MARK:
        journal.settle(contents.end)
    return journal


def _first_journal(path: Path) -> Journal:
    if any((path.parent / "segments").glob("*/*")):
        raise Damaged(f"{path} is gone, and without it nothing says whose the pages in {path.parent}/segments are: "
                      "bring it back, or remove them")
    journal = Journal.create(path.with_suffix(".new"), 1).take_place(path)
    for directory in (path.parent, path.parent.parent):
        sync_directory(directory)
    return journal
