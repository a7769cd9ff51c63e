"""What goes on, for people to watch: what each process does and waits for, where its KV lies, what the machine does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cadenza.kernel.passes import Pass, Work
from cadenza.kernel.process import Process
from cadenza.kernel.runs import Run
from cadenza.kvfs.pool import ABSENT, PagePool

if TYPE_CHECKING:
    from cadenza.kernel.engine import Engine
    from cadenza.kvfs.file import File
    from cadenza.kvfs.tiers import Tiers

@dataclass(frozen=True, slots=True)
class PageCount:
    """Pages, each once, by where they lie: on the device, else on the host, else on disk, else nowhere: those are
    computed again when they are needed. `shared`: how many of them all others hold too."""

    device: int = 0
    host: int = 0
    disk: int = 0
    lost: int = 0
    shared: int = 0


@dataclass(frozen=True, slots=True)
class Activity:
    """Of one process. `state`: its own, or what its passes do while it waits for them: "queued", "prefilling",
    "decoding". `waiting_for`: "" if nothing. `seconds`: since it last ran. `tokens`: sampled for it by now."""

    state: str
    waiting_for: str
    seconds: float
    tokens: int
    pages: PageCount


@dataclass(frozen=True, slots=True)
class Load:
    """Of the whole machine. What is done is counted since boot; `rows` is None where rows are not counted."""

    seconds: float                       # when this was so, on the event loop's clock
    device_seconds: float                # in which the device worked
    steps: int
    tokens: int                          # input tokens of the steps
    samples: int                         # tokens that were sampled
    rows: int | None
    preemptions: int
    swapped_out: int                     # pages
    swapped_in: int
    work: int                            # passes and runs that are not done
    queued: int                          # of them: they wait for places in steps for their inputs
    steps_under_way: int
    processes: int                       # alive
    ready: int                           # of them: they have something to do


def activity_of(process: Process, pool: PagePool, tiers: Tiers, now: float) -> Activity:
    """Takes time with its handles and its pages."""
    works = list(works_of(process))
    waiting = sum(len(work.tokens) - work.taken for work in works if isinstance(work, Run))
    return Activity(_state(process, works), waited_for(process), max(0.0, now - process.since),
                    process.tokens + waiting, count_pages(_files_of(process, works), pool, tiers))


def works_of(process: Process) -> Iterator[Work]:
    """Its passes and runs that are not over."""
    return (each for each in process.handles if isinstance(each, Work) and not each.over)


def waited_for(process: Process) -> str:
    """What a blocked program says it waits for, or else what that is; "" if it does not wait."""
    if process.state != "waiting" or process.waiting_for:
        return process.waiting_for
    watched = [each for each in process.handles if each.watcher is not None]
    if any(isinstance(each, Run) for each in watched):
        return "tokens"
    return "pass" if any(isinstance(each, Pass) for each in watched) else ""


def count_pages(files: Counter[File], pool: PagePool, tiers: Tiers) -> PageCount:
    """Of `files`, each held so many times by one process. Takes time with their pages."""
    runs = [table.pages() for table in {file.table for file in files}]
    runs += [extent.pages for extent in {part.extent for file in files for part in file.parts}]
    pages = np.unique(np.concatenate(runs or [np.zeros(0, np.int32)]))
    absent: list[int] = pages[pool.frames[pages] == ABSENT].tolist()
    host = sum(page in tiers.host for page in absent)
    disk = sum(page in tiers.stored and page not in tiers.host for page in absent)
    shared = _shared_above(files)
    if len(shared) < len(pages):
        shared |= _shared_below(files, pages.tolist(), pool)
    return PageCount(len(pages) - len(absent), host, disk, len(absent) - host - disk, len(shared))


def load_of(engine: Engine, now: float, alive: int, ready: int) -> Load:
    known = engine.statistics()
    rows = known.get("rows")
    return Load(
        now, known["device_seconds"], int(known["steps"]), int(known["tokens"]), int(known["samples"]),
        None if rows is None else int(rows), int(known["preemptions"]), int(known["swapped_out"]),
        int(known["swapped_in"]), int(known["work"]), int(known["inputs_waiting"]),
        int(known["steps_under_way"]), alive, ready,
    )  # fmt: skip


def _state(process: Process, works: list[Work]) -> str:
    if process.state != "waiting" or not works:
        return process.state
    in_hand = [work for work in works if work.admitted]
    if any(isinstance(work, Run) and not work.prefilling for work in in_hand):
        return "decoding"
    return "prefilling" if in_hand else "queued"


def _files_of(process: Process, works: list[Work]) -> Counter[File]:
    """With what its passes hold."""
    files = Counter(process.files)
    for work in works:
        files.update((work.file, *work.reads))
    return files


def _shared_above(files: Counter[File]) -> set[int]:
    """Pages of whatever is held by more than these: of files, tables, leaves, extents."""
    tables = Counter(file.table for file in files)
    leaves = Counter(leaf for table in tables for leaf in table.leaves)
    extents = Counter(part.extent for file in files for part in file.parts)
    shared = {page for file, held in files.items() if file.open_count > held for page in file.pages}
    shared.update(page for table, held in tables.items() if table.holders > held for page in table.pages().tolist())
    shared.update(page for leaf, held in leaves.items() if leaf.holders > held for page in leaf.pages)
    shared.update(page for extent, held in extents.items() if extent.holders > held for page in extent.pages.tolist())
    return shared


def _shared_below(files: Counter[File], pages: list[int], pool: PagePool) -> set[int]:
    """Those of `pages` that have more references than leaves and extents of these files. Most have one."""
    several = {page: held for page, held in zip(pages, map(pool.references, pages), strict=True) if held > 1}
    if several:
        leaves = {leaf for table in {file.table for file in files} for leaf in table.leaves}
        extents = {part.extent for file in files for part in file.parts}
        mine = Counter(page for leaf in leaves for page in leaf.pages if page in several)
        mine.update(page for extent in extents for page in extent.pages.tolist() if page in several)
        return {page for page, held in several.items() if held > mine[page]}
    return set()
