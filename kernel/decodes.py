"""Runs that merely go on: a token each step, drawn as the last one was, appended to their own file.

Nearly all rows are theirs, so they are kept in columns, a place for each lane, and all that have a row in a step are
put into it, and moved on by a token, at once. A run enters when its last page has room; it leaves when it would have
to ask for another one, when its last token is asked for, or when anything else is to be done with it. Only then its
file is told what it has been fed meanwhile (`Run.catch_up`); whoever looks at the file before makes it leave.

    of a lane   slot · position · tokens with it · room in its page · rows left · straight · pages · adapter · top-k
    each step     1         1             1                −1               −1          0         0        0       0

Slots and pages are the device's: those of work in hand stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cadenza.kernel.device.batch import Float32, Int32, UInt64
from cadenza.kvfs.errors import LimitExceeded, NoPages

if TYPE_CHECKING:
    from cadenza.kernel.batcher import Share
    from cadenza.kernel.passes import Work
    from cadenza.kernel.runs import Run
    from cadenza.kvfs.pool import PagePool

SLOT, POSITION, LENGTH, ROOM, LEFT, STRAIGHT, PAGES, ADAPTER, TOP_K = COLUMNS = range(9)
_ON = np.array([1, 1, 1, -1, -1, 0, 0, 0, 0], np.int32)


class Group:
    """Runs that have a row each in a step, and what of these rows is the same in the next step of the same runs."""

    def __init__(self, lanes: list[int], runs: list[Run], columns: Int32, floats: Float32, seeds: UInt64) -> None:
        rows = len(lanes)
        self.numbers, self.runs = lanes, runs
        self.lanes = np.array(lanes, np.int32)                          # [R], and so are all but the starts
        self.tokens = -1 - self.lanes
        self.starts = np.arange(rows + 1, dtype=np.int32)
        self.nothing = np.zeros(rows + 1, np.int32)
        self.straight = columns[STRAIGHT].astype(np.uint8)
        self.adapters, self.top_k = columns[ADAPTER].copy(), columns[TOP_K].copy()
        self.adapted = rows > 0 and int(self.adapters.max()) >= 0       # whether one of them has an adapter
        self.temperature, self.top_p, self.min_p = np.ascontiguousarray(floats.T)
        self.seeds = seeds
        self.masks = np.full(rows, -1, np.int32)
        self.page_starts = self.nothing
        self.pages = self.nothing[:0]

    def turn_pages(self, pages: list[Int32], counts: Int32) -> None:
        """The pages of all, and how many each has."""
        self.pages = np.concatenate(pages)
        self.page_starts = np.zeros(len(pages) + 1, np.int32)
        counts.cumsum(out=self.page_starts[1:])


class Going(NamedTuple):
    """The rows of a group in one step: `columns` [9, R] as above."""

    group: Group
    columns: Int32


_NO_COLUMNS = np.zeros((len(COLUMNS), 0), np.int32)
NOBODY = Going(Group([], [], _NO_COLUMNS, np.zeros((0, 3), np.float32), np.zeros(0, np.uint64)), _NO_COLUMNS)


class Decodes:
    """The columns. `lanes`: how many there may be."""

    def __init__(self, lanes: int, pool: PagePool) -> None:
        self._pool = pool
        self._columns = np.zeros((lanes, len(COLUMNS)), np.int32)
        self._floats = np.zeros((lanes, 3), np.float32)
        self._seeds = np.zeros(lanes, np.uint64)
        self._runs: dict[int, Run] = {}                  # by lane
        self._pages: dict[int, Int32] = {}               # of those that are in
        self._group = NOBODY.group                       # of the last step
        self._full: dict[Run, None] = {}                 # whose page is, or was when they left
        self._turned = False                             # somebody has entered since, maybe with another page

    def enter(self, run: Run, position: int, left: int, adapter: int) -> None:
        """`run`, whose next token stands at `position`, for so many rows, at least one."""
        lane, table, sampler, columns = run.lane, run.file.table, run.sampler, self._columns[run.lane]
        straight = table.straight == table.count
        if self._runs.get(lane) is not run or columns[ADAPTER] != adapter or columns[STRAIGHT] != straight:
            self._runs[lane], self._group = run, NOBODY.group
            self._floats[lane] = sampler.temperature, sampler.top_p, sampler.min_p
            self._seeds[lane] = sampler.seed
        self._pages[lane] = pages = self._pool.frames[table.pages()]
        slot = (int(pages[-1]) + 1) * self._pool.page_tokens - table.room
        columns[:] = slot, position, table.count + 1, table.room, left, straight, len(pages), adapter, sampler.top_k
        self._turned = True

    def leave(self, run: Run) -> int:
        """The position of its next token."""
        del self._pages[run.lane]
        return int(self._columns[run.lane, POSITION])

    def forget(self, run: Run) -> None:
        """It is over, and its lane somebody else's. Idempotent."""
        if self._runs.get(run.lane) is run:
            del self._runs[run.lane]
            self._group = NOBODY.group
            self._full.pop(run, None)

    def _turn_pages(self) -> None:
        """Those whose page is full have another. Who gets none without asking somebody to make room leaves."""
        full, self._full = self._full, {}
        of_process: dict[Callable[[int], None], list[Run]] = {}
        for run in full:
            if run.steady:
                of_process.setdefault(run.allow_pages, []).append(run)
        for allow_pages, some in of_process.items():
            try:
                allow_pages(len(some))
                pages = self._pool.allocate(len(some), some[0].owner)
            except (NoPages, LimitExceeded):
                for run in some:
                    run.catch_up()
            else:
                self._turn(some, pages)

    def _turn(self, runs: list[Run], pages: list[int]) -> None:
        frames, size = self._pool.frames, self._pool.page_tokens
        for run, page in zip(runs, pages, strict=True):
            self._pages[run.lane] = frames[run.file.add_page(page)]
            columns = self._columns[run.lane]
            columns[SLOT], columns[ROOM] = frames[page] * size, size
            columns[PAGES] += 1
        self._turned = True

    def go_on(self, shares: list[Share], yielding: Work | None, step: int) -> tuple[Going, list[Share]]:
        """A row in `step` for each of `shares` that is in, or can enter: `yielding` shall not. The others."""
        if self._full:
            self._turn_pages()
        for work, _ in shares:
            if not work.steady and work is not yielding:
                work.go_on()
        others = [share for share in shares if not share[0].steady]
        return self._rows([work for work, _ in shares if work.steady], step), others

    def _rows(self, works: list[Work], step: int) -> Going:
        """Who has no more to come leaves."""
        if not works:
            return NOBODY
        lanes = [work.lane for work in works]
        group = self._group
        if lanes != group.numbers:
            runs = [self._runs[lane] for lane in lanes]
            group = Group(lanes, runs, self._columns[lanes].T, self._floats[lanes], self._seeds[lanes])
        rows = self._columns[group.lanes]
        columns = rows.T.copy()
        if self._turned or group is not self._group:
            group.turn_pages([self._pages[lane] for lane in lanes], columns[PAGES])
            self._turned, self._group = False, group
        rows += _ON
        self._columns[group.lanes] = rows
        for run in group.runs:
            run.turn = step
            run.under_way += 1
        for number in (np.minimum(columns[ROOM], columns[LEFT]) == 1).nonzero()[0].tolist():
            if columns[LEFT, number] == 1:
                group.runs[number].catch_up()
            else:
                self._full[group.runs[number]] = None
        return Going(group, columns)
