"""Checks a store that nobody uses: every entry, every page, every slot; and mends what can be mended."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cadenza.kvfs.errors import Damaged
from cadenza.kvfs.journal import MAGIC, PUT, Entry, pack, read_entries, sync_directory
from cadenza.kvfs.records import FileRecord, Layout, encode
from cadenza.kvfs.segments import Segments, directory_name
from cadenza.kvfs.store import apply, lock_directory

Progress = Callable[[int, int], None]        # pages read, of how many


@dataclass(slots=True)
class Report:
    """What was found. `lost` are the files that a repair drops: paths, and why."""

    files: int = 0
    pages: int = 0
    problems: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    repaired: bool = False

    @property
    def clean(self) -> bool:
        return not self.problems


def check(directory: Path, *, repair: bool = False, progress: Progress = lambda done, total: None) -> Report:
    """Reads everything; blocks. With `repair` the journal keeps what is whole: damaged entries and files whose pages
    are damaged are dropped from it, and told in `lost`; no segment is touched. Raises Busy when a daemon has it."""
    report = Report()
    if not (directory / "journal").exists():
        return report
    lock = lock_directory(directory)
    try:
        files = _read_journal(directory / "journal", report)
        report.files = len(files)
        damaged = _check_pages(directory / "segments", files, report, progress)
        if repair and report.problems:
            whole = [record for number, record in files.items() if number not in damaged]
            _rewrite(directory / "journal", whole)
            report.repaired = True
    finally:
        os.close(lock)
    return report


def _read_journal(path: Path, report: Report) -> dict[int, FileRecord]:
    """The files that its whole entries leave."""
    files: dict[int, FileRecord] = {}
    for at, (kind, payload) in enumerate(_entries(path, report)):
        try:
            apply(files, kind, payload)
        except (ValueError, KeyError, TypeError) as fault:
            report.problems.append(f"entry {at} of the journal makes no sense: {fault}")
    return files


def _entries(path: Path, report: Report) -> list[Entry]:
    """Those that are whole; what stands between them is told."""
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        report.problems.append(f"{path} does not begin as a journal does")
        data = MAGIC + data[len(MAGIC) :]
    try:
        entries, _, torn = read_entries(data, path)
        if torn:
            report.problems.append(f"the journal ends in {torn} bytes of an entry that was never finished")
    except Damaged as damage:
        report.problems.append(damage.message)
        entries = _salvage(data)
    return entries


def _salvage(data: bytes) -> list[Entry]:
    """Whole entries wherever they begin."""
    entries: list[Entry] = []
    at = len(MAGIC)
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        piece = data[at : at + 8 + length]
        if length and len(piece) == 8 + length and pack(piece[8], piece[9:]) == piece:
            entries.append((piece[8], piece[9:]))
            at += len(piece)
        else:
            at += 1
    return entries


def _check_pages(segments: Path, files: dict[int, FileRecord], report: Report, progress: Progress) -> set[int]:
    """The numbers of files that cannot be read whole."""
    damaged: set[int] = set()
    total = sum(len(part.pages) for record in files.values() for part in record.parts)
    opened: dict[Layout, Segments] = {}
    for number, record in files.items():
        if record.layout not in opened and (segments / directory_name(record.layout)).is_dir():
            opened[record.layout] = Segments(segments, record.layout)
        for problem in _problems(record, opened.get(record.layout), report):
            report.problems.append(problem)
            if number not in damaged:
                report.lost.append(f"{' '.join(record.naming.paths)}: {problem}")
            damaged.add(number)
        progress(report.pages, total)
    for each in opened.values():
        each.close()
    return damaged


def _problems(record: FileRecord, segments: Segments | None, report: Report) -> list[str]:
    found: list[str] = []
    image = np.zeros((1, record.layout.page_bytes), np.uint8)
    for page in (page for part in record.parts for page in part.pages):
        report.pages += 1
        if segments is None:
            return [f"its segments ({directory_name(record.layout)}) are gone"]
        try:
            segments.read([page], image)
            segments.verify([page], image)
        except (Damaged, OSError) as fault:
            found.append(str(fault))
    return found


def _rewrite(journal: Path, records: list[FileRecord]) -> None:
    """The journal as it was is kept beside it."""
    fresh = journal.with_suffix(".repaired")
    fresh.write_bytes(MAGIC + b"".join(pack(PUT, encode(record)) for record in records))
    with fresh.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(journal, journal.with_suffix(".before-repair"))
    os.replace(fresh, journal)
    sync_directory(journal.parent)
