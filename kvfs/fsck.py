"""Checks a store that nobody uses: every entry, every page, every header; and mends what can be mended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cadenza.kvfs.catalogue import Catalogue
from cadenza.kvfs.errors import Damaged, NotFound
from cadenza.kvfs.journal import Journal, read_journal, salvage, sync_directory
from cadenza.kvfs.records import FileRecord, Layout, Naming, StoredPage
from cadenza.kvfs.segments import SEGMENT_SLOTS, Segments, find_strays
from cadenza.kvfs.store import lock_directory

Progress = Callable[[int, int], None]        # pages read, of how many
_READ_BYTES = 16 << 20                       # at once


@dataclass(slots=True)
class Report:
    """What was found. `problems` are damage; `notes` are what a crash leaves, and the next start of the daemon tidies
    up. `lost` are what a repair drops: paths of files, and why. Pages count once, however many files share them."""

    files: int = 0
    pages: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    repaired: bool = False

    @property
    def clean(self) -> bool:
        return not self.problems


def check(directory: Path, *, repair: bool = False, progress: Progress = lambda done, total: None) -> Report:
    """Reads everything; blocks. Without `repair` it changes nothing.

    With `repair` the journal keeps what is whole: damaged entries and files whose pages are damaged are dropped from
    it, and written down in `lost` beside it, where the old journal is then as `journal.before-repair`. Headers of
    segments are written anew. No page is touched. Raises Busy when a daemon has it, NotFound, OSError.
    """
    if not directory.is_dir():
        raise NotFound(f"{directory} is not there: no daemon has ever kept files in it")
    lock = lock_directory(directory)
    try:
        return _Check(directory, progress).run(repair)
    finally:
        os.close(lock)


class _Check:
    def __init__(self, directory: Path, progress: Progress) -> None:
        self.report = Report()
        self._progress = progress
        self._journal = directory / "journal"
        self._segments = directory / "segments"
        self._catalogue = Catalogue()
        self._damaged: dict[int, str] = {}           # files that a repair drops, and why
        self._renamed: dict[int, Naming] = {}        # what is left of names that two files want
        self._headers: list[tuple[Segments, int]] = []

    @property
    def _files(self) -> dict[int, FileRecord]:
        return self._catalogue.files

    def run(self, repair: bool) -> Report:
        report = self.report
        if not self._journal.exists():
            if any(self._segments.glob("*/*")):
                report.problems.append(f"{self._journal} is gone: nothing says whose the pages in segments are")
            return report
        self._read_journal()
        self._check_names()
        report.files = len(self._files)
        layouts = sorted({record.layout for record in self._files.values()}, key=str)
        wanted = {layout: self._wanted(layout) for layout in layouts}
        for layout, pages in wanted.items():
            self._check_layout(layout, pages, sum(map(len, wanted.values())))
        report.notes += [f"no file has pages in {path}: the next start removes it"
                         for path in find_strays(self._segments, layouts)]
        report.lost += [f"{' '.join(self._files[number].naming.paths)}: {why}" for number, why in self._damaged.items()]
        if repair and report.problems:
            self._repair()
            report.repaired = True
        return report

    # --- the journal ---

    def _read_journal(self) -> None:
        """The files that its whole entries leave."""
        problems = self.report.problems
        try:
            contents = read_journal(self._journal)
        except Damaged as damage:
            contents = salvage(self._journal)
            problems.append(damage.message)
        self._catalogue.next_number = contents.next_number
        if contents.damaged or problems:
            self._tell_gaps(contents.lost)
        elif contents.size > contents.end:
            self.report.notes.append(f"the journal ends in {contents.size - contents.end} bytes that were never "
                                     "finished: the next start cuts them off")
        for entry in [*contents.entries, *(contents.beyond if problems else [])]:
            try:
                self._catalogue.apply(entry)
            except ValueError as fault:
                problems.append(f"the entry at byte {entry.position} of the journal makes no sense: {fault}")

    def _tell_gaps(self, gaps: Iterable[tuple[int, int]]) -> None:
        for first, end in gaps:
            self.report.problems.append(f"the journal is damaged from byte {first} to byte {end}")
            self.report.lost.append(f"what bytes {first} to {end} of the journal said: files may be missing, or as "
                                    "they were before, or have names that they had lost")

    def _check_names(self) -> None:
        """Of files that want one name, or the name of what must be a directory, the one changed last has it."""
        taken: set[str] = set()
        directories: set[str] = set()
        for record in sorted(self._files.values(), key=lambda record: -record.modified_ns):
            kept = []
            for path in record.naming.paths:
                above = {path[:at] for at, letter in enumerate(path) if letter == "/"}
                if path in taken or path in directories or above & taken:
                    self.report.problems.append(f"two files want the name {path}")
                    self.report.lost.append(f"{path}: the one of the two that was changed first")
                else:
                    kept.append(path)
                    taken.add(path)
                    directories |= above
            if len(kept) < len(record.naming.paths):
                self._renamed[record.number] = replace(record.naming, paths=tuple(kept))

    # --- pages ---

    def _wanted(self, layout: Layout) -> list[StoredPage]:
        return sorted({page for record in self._files.values() if record.layout == layout for page in record.pages})

    def _check_layout(self, layout: Layout, pages: list[StoredPage], total: int) -> None:
        segments = Segments(self._segments, layout)
        most = max(1, _READ_BYTES // max(1, layout.page_bytes))
        out = np.empty((min(most, len(pages)), layout.page_bytes), np.uint8)
        damaged: set[StoredPage] = set()
        for first in range(0, len(pages), most):
            piece = pages[first : first + most]
            damaged.update(segments.read(piece, out[: len(piece)]))
            self.report.pages += len(piece)
            self._progress(self.report.pages, total)
        self._tell_pages(layout, segments, damaged)
        self._check_headers(segments, {page.slot // SEGMENT_SLOTS for page in pages})
        segments.close()

    def _tell_pages(self, layout: Layout, segments: Segments, damaged: Iterable[StoredPage]) -> None:
        for page in sorted(damaged):
            users = [record for record in self._files.values() if record.layout == layout and page in record.pages]
            problem = f"slot {page.slot} in {segments.path_of(page.slot)} is not what was written to it"
            paths = [path for record in users for path in record.naming.paths]
            self.report.problems.append(f"{problem}; it is a page of {' '.join(paths)}")
            for record in users:
                self._damaged.setdefault(record.number, problem)

    def _check_headers(self, segments: Segments, numbers: Iterable[int]) -> None:
        for number in sorted(numbers):
            try:
                segments.check_header(number)
            except Damaged as damage:
                self._headers.append((segments, number))
                self.report.problems.append(damage.message)
            except FileNotFoundError:                # its pages are told already
                pass

    # --- repair ---

    def _repair(self) -> None:
        for segments, number in self._headers:
            segments.write_header(number)
        if self.report.lost:
            with self._journal.with_name("lost").open("a") as told:
                told.writelines(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in self.report.lost)
                told.flush()
                os.fsync(told.fileno())
        for number, naming in self._renamed.items():
            self._catalogue.name(number, naming)
        for number in self._damaged.keys() & self._files.keys():
            del self._files[number]
        kept = self._journal.with_name("journal.before-repair")
        kept.unlink(missing_ok=True)
        os.link(self._journal, kept)
        number, entries = self._catalogue.next_number, self._catalogue.entries()
        Journal.create(self._journal.with_suffix(".new"), number, entries).take_place(self._journal).close()
        sync_directory(self._journal.parent)
