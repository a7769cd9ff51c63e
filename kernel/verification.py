"""`Verification`: a tree of drafted tokens, checked in one pass as if each were decoded by itself.

    ├── before ──┼ root ┼ drafted: parents before children ┤          as the step writes them
    ├── before ──┼ root ┼ accepted, one after the other ┤             afterwards; the rest is cut off

A row sees what is before, the root, and its own ancestors; its position is its depth. Every row has a sample, whose
draw is the offset that its token would have in plain decoding (passes.py): so with the same seed the samples along the
accepted way are those of plain decoding, whether they are greedy or drawn. A drafted token is accepted if it is the
one sampled at its parent, and its parent was accepted.

A draft goes whole, in one step. If that has less room, it is as if the last tokens had not been drafted. Nor are those
that a grammar does not allow where they stand, or that nothing may follow: of what is sampled they can be the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cadenza.kernel.breadth import Breadth
from cadenza.kernel.device.batch import Int32, StepResult, UInt8
from cadenza.kernel.guide import Guide
from cadenza.kernel.passes import OneAnswer, Row
from cadenza.kernel.sampler import Past, Sampler, tokens_told
from cadenza.kvfs.errors import Invalid, LimitExceeded, NotReady

if TYPE_CHECKING:
    from cadenza.kernel.batch_builder import BatchBuilder
    from cadenza.kernel.engine import Engine
    from cadenza.kvfs.file import File


class Verdict(NamedTuple):
    """WIT's `verdict`: the accepted tokens, and one that was sampled behind them. `computed_tokens`: rows, with the
    root's: fewer than were drafted if the step had no more room."""

    tokens: list[int]
    accepted: int
    computed_tokens: int
    finish: str


def depths_of(parents: Sequence[int]) -> list[int]:
    """How far each token stands below the root, the root, 0, first. `parents`: one a drafted token, of tokens before
    it, the root being 0."""
    depths = [0]
    for parent in parents:
        depths.append(depths[parent] + 1)
    return depths


def ranges_of(parents: Sequence[int], before: int) -> Int32:
    """What each row sees that does not see all before it, [·, 3], by row: (row, first offset, count). `before`: the
    offset of the root."""
    ways = [[[0, before + 1]]]                                   # of each row, ranges (first, end), itself included
    ranges: list[tuple[int, int, int]] = []
    for row, parent in enumerate(parents, 1):
        way = [*map(list, ways[parent])]
        if way[-1][1] == before + row:
            way[-1][1] += 1
        else:
            way.append([before + row, before + row + 1])
        ways.append(way)
        if len(way) > 1:
            ranges += [(row, first, end - first) for first, end in way]
    return np.array(ranges, np.int32).reshape(-1, 3)


def pruned(parents: Sequence[int], masks: Sequence[UInt8 | None]) -> tuple[list[int], list[int], list[UInt8 | None]]:
    """Of a draft, the root, 0, and those that have a mask, as their ancestors do then; their parents, and the masks."""
    kept = [number for number, mask in enumerate(masks) if mask is not None]
    place = {number: at for at, number in enumerate(kept)}
    return kept, [place[parents[number - 1]] for number in kept[1:]], [masks[number] for number in kept]


class Verification(OneAnswer):
    """Its inputs are the root, the last token that is known, and the drafted ones."""

    __slots__ = ("_guide", "_masks", "_parents", "_sampler", "_verdict", "_visible")

    def __init__(self, engine: Engine, file: File, reads: list[File], inputs: Int32, positions: Int32, priority: int, *,
                 parents: Sequence[int], sampler: Sampler, masks: Sequence[UInt8 | None] = (),
                 guide: Guide | None = None) -> None:  # fmt: skip
        """`masks`: one a row; `guide`: follows what is sampled."""
        super().__init__(engine, file, reads, inputs, positions, priority)
        self._parents = parents
        self._sampler = sampler
        self._masks, self._guide = masks or [None] * len(inputs), guide
        before = self.start + sum(map(len, reads))
        self._visible = ranges_of(parents, before)
        told = tokens_told(before, [(row, sampler) for row in range(len(inputs))])
        self.breadth = Breadth(len(parents), 0, 0, len(self._visible), self.breadth.reads, told)
        self.plain = False
        self._verdict: Verdict | None = None

    def wanted(self) -> int:
        return self.missing + len(self.inputs) if self.prefilling else 0

    def submit(self, builder: BatchBuilder, count: int) -> None:
        first = self._submit_inputs(builder, count)
        self.prefilling = False
        self.leave_line()
        self.inputs, self._parents = self.inputs[:count], self._parents[: count - 1]
        if len(self._visible):
            builder.add_visible(self._visible[self._visible[:, 0] < count])
        for row, (depth, told) in enumerate(zip(depths_of(self._parents), self._told(count), strict=True)):
            builder.add_sample(first + row, -1, self._sampler, self.start + depth, self._masks[row], told)

    def _told(self, count: int) -> list[Int32 | None]:
        """The history of each row: what is before, and its own ancestors."""
        if self._sampler.penalties is None:
            return [None] * count
        past, named, window = Past(self.reads, self.file), self._visible, self._sampler.penalties.window
        return [past.seen(past.end - count + row, window, named[named[:, 0] == row]) for row in range(count)]

    def accept(self, result: StepResult, row: Row) -> None:
        if row.samples == row.samples_end:
            return                                               # what was lost is computed again
        sampled = result.tokens[row.samples:row.samples_end].tolist()
        way = self._way(sampled)
        accepted = [int(self.inputs[at]) for at in way]
        tokens, finish = [*accepted, sampled[way[-1] if way else 0]], "running"
        try:
            if self._guide is not None:
                finish = self._follow(self._guide, tokens)
        except LimitExceeded as error:
            self.fail(error)
            return
        self._verdict = Verdict(tokens, len(way), len(self.inputs), finish)
        self._keep(way)
        self.engine.know(self.file, self.start + 1 + len(way))
        self.trace.ended("", len(way) + 1)
        self.release(self.start + 1 + len(way))
        self.signal()

    def _follow(self, guide: Guide, tokens: list[int]) -> str:
        """How it ends there. Raises LimitExceeded."""
        for token in tokens:
            guide.follow(token)
        with suppress(Invalid):                                  # nothing fits: whoever goes on is told
            return guide.end() or "running"
        return "running"

    def release(self, keep_tokens: int) -> None:
        super().release(keep_tokens)
        if self._guide is not None:
            self._guide.leave()

    def _way(self, sampled: list[int]) -> list[int]:
        """The rows that are accepted, in order, without the root."""
        way: list[int] = []
        at = 0
        for row, parent in enumerate(self._parents, 1):
            if parent == at and self.inputs[row] == sampled[at]:
                way.append(row)
                at = row
        return way

    def _keep(self, way: list[int]) -> None:
        """Of the drafted tokens only those. Their pages were made for this pass, and no page before is touched."""
        table, known = self.file.own_table(), self.file.indexed
        root = table.count - len(self.inputs)
        moves = table.bring_forward(root + 1, [root + at for at in way])
        if len(moves):
            self.engine.pager.move_slots(moves)
        self.file.truncate(self.start + 1 + len(way))
        self.file.indexed = known

    def take(self) -> Verdict:
        """Raises what the pass failed with, or NotReady."""
        if self._error is not None:
            raise self._error
        if self._verdict is None:
            raise NotReady("the draft has not been verified; wait for its handle first")
        return self._verdict
