"""Runs that merely go on: a token each step, drawn as the last one was, into a page that has room.

Nearly all rows are theirs, so they are kept in columns, a place for each lane, and all that have a row in a step are
put into it, and moved on by a token, at once. A run enters when it has submitted a row itself and has room for more; it
leaves when its page is full or its last token is asked for, or when anything but that is to be done with it. What it
has fed meanwhile its file is told then (`Run.catch_up`); whoever looks at the file before makes it leave.

    row of a lane   slot · position · tokens before and with it · rows left · straight · pages · adapter · top-k
    per step           1          1                           1          −1          0       0         0       0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cadenza.kernel.device.batch import Float32, Int32, UInt64

if TYPE_CHECKING:
    from cadenza.kernel.passes import Work
    from cadenza.kernel.runs import Run

SLOT, POSITION, LENGTH, LEFT, STRAIGHT, PAGES, ADAPTER, TOP_K = range(8)
_ON = np.array([1, 1, 1, -1, 0, 0, 0, 0], np.int32)
NOTHING = np.zeros(0, np.int32)


class Going(NamedTuple):
    """Rows of one step, a token and a sample each. `columns` [8, R] as above; slots and pages are the pool's."""

    runs: Sequence[Run]
    lanes: Int32                     # [R]
    columns: Int32
    pages: Int32                     # of all rows, one after the other
    floats: Float32                  # [3, R] temperature, top-p, min-p
    seeds: UInt64                    # [R]


NOBODY = Going((), NOTHING, np.zeros((8, 0), np.int32), NOTHING, np.zeros((3, 0), np.float32), np.zeros(0, np.uint64))


class Decodes:
    """The columns. `lanes`: how many there may be."""

    def __init__(self, lanes: int) -> None:
        self._columns = np.zeros((lanes, 8), np.int32)
        self._floats = np.zeros((lanes, 3), np.float32)
        self._seeds = np.zeros(lanes, np.uint64)
        self._runs: dict[int, Run] = {}                  # by lane
        self._pages: dict[int, Int32] = {}               # of those that are in

    def enter(self, run: Run, position: int, rows: int, adapter: int) -> None:
        """`run`, whose next token stands at `position`, may have so many `rows`, at least one, before it leaves."""
        lane, table, sampler = run.lane, run.file.table, run.sampler
        if self._runs.get(lane) is not run:
            self._runs[lane] = run
            self._floats[lane] = sampler.temperature, sampler.top_p, sampler.min_p
            self._seeds[lane] = sampler.seed
        self._pages[lane] = pages = table.pages()
        self._columns[lane] = (table.next_slot, position, table.count + 1, rows, table.straight == table.count,
                               len(pages), adapter, sampler.top_k)

    def leave(self, lane: int) -> int:
        """Where the next token of the run stands that had entered with this lane."""
        del self._pages[lane]
        return int(self._columns[lane, POSITION])

    def forget(self, lane: int) -> None:
        """Its run is over."""
        self._runs.pop(lane, None)

    def go_on(self, works: Sequence[Work], step: int) -> Going:
        """Puts a row of each of `works`, all of which are in, into `step`. Who has no more to come leaves."""
        if not works:
            return NOBODY
        numbers = [work.lane for work in works]
        runs, lanes = [self._runs[lane] for lane in numbers], np.array(numbers, np.int32)
        rows = self._columns[lanes]
        self._columns[lanes] = rows + _ON
        columns = np.ascontiguousarray(rows.T)
        pages = [self._pages[lane] for lane in numbers]
        going = Going(runs, lanes, columns, np.concatenate(pages), self._floats[lanes].T, self._seeds[lanes])
        for run in runs:
            run.turn = step
            run.under_way += 1
        for last in np.flatnonzero(columns[LEFT] == 1).tolist():
            runs[last].catch_up()
        return going
