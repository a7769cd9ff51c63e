"""The rows of a batch: where the tokens lie that each reads, and which of them its own tokens see.

Segments are runs of slots in pages. The slots of one row, page after page, lie so:

    slot     0 … 15 │ 16 … 31 ││ 32 … 47 ││ …         │ page   ││ segment
    offset   · · 0 … │ … 18 · · ││ 25 … 40 ││ …   · hidden: no token of this row that anybody reads

A token sees a slot if and only if the slot's offset is at most its own, the slot's position (with its segment's shift)
is at most its own, and, when ranges of visible offsets name the token, one of them holds the slot's offset. In a layer
with a window that position must also be one of the last `window` up to the token's own. In a contiguous row, where
every position equals its offset, the second follows from the first. A token that sees nothing reads zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.device.batch import Batch, Int32, Int64

Bool = NDArray[np.bool_]


class Segment(NamedTuple):
    """Tokens that a row reads: their slots, the offset of the first, what their positions are short of."""

    slots: Int64
    first: int
    shift: int

    def cut(self, first: int, end: int) -> Segment:
        return Segment(self.slots[first:end], self.first + first, self.shift)


class Row:
    """Row `number` of a batch, as layers with that window see it (0: without): T tokens of its own at the end of
    `length` offsets."""

    def __init__(self, batch: Batch, number: int, page_tokens: int, window: int = 0) -> None:
        first, end = batch.row_starts[number : number + 2].tolist()
        low, high = batch.segment_starts[number : number + 2].tolist()
        ranges = slice(*batch.visible_starts[number : number + 2].tolist())
        self._batch, self._numbers, self._page_slots = batch, range(low, high), np.arange(page_tokens)
        self.tokens = slice(first, end)                                             # into `batch.tokens`
        self.count = end - first
        self.length = int(batch.segment_firsts[high - 1] + batch.segment_tokens[high - 1])
        self.positions = batch.positions[self.tokens]                               # [T]
        self.ranges = batch.visible_ranges[ranges]                                  # [·, 3]
        self.ordered = bool(batch.contiguous[number])                               # by offset is by position
        self.window = window
        self.plain = self.ordered and not len(self.ranges) and high - low == 1

    def segments(self) -> Iterator[Segment]:
        """What holds a token, in order; the row's own tokens are the end of the last. In an ordered row, without what
        lies before every token's window."""
        first = self.length - self.count + 1 - self.window if self.ordered and self.window else 0
        for segment in self._whole_segments():
            end = segment.first + len(segment.slots)
            if first < end:
                yield segment if first <= segment.first else segment.cut(first - segment.first, len(segment.slots))

    def _whole_segments(self) -> Iterator[Segment]:
        batch, size = self._batch, len(self._page_slots)
        for n in self._numbers:
            count, skip = int(batch.segment_tokens[n]), int(batch.segment_skips[n])
            if count:
                pages = batch.pages[batch.page_starts[n] : batch.page_starts[n + 1]].astype(np.int64)
                slots = (pages[:, None] * size + self._page_slots).reshape(-1)[skip : skip + count]
                yield Segment(slots, int(batch.segment_firsts[n]), int(batch.segment_shifts[n]))

    def parted(self) -> tuple[list[Segment], Segment]:
        """What stands before the row's own tokens, and those."""
        *before, last = self.segments()
        cut = len(last.slots) - self.count
        return ([*before, last.cut(0, cut)] if cut else before), last.cut(cut, len(last.slots))

    def sees_all(self, before: Segment, positions: Int32) -> bool:
        """Whether each token sees all of a segment that stands before them. `positions` of all slots."""
        if len(self.ranges):
            return False
        theirs = positions[before.slots]
        if self.window and int(theirs.min()) + before.shift <= int(self.positions.max()) - self.window:
            return False
        return self.ordered or int(theirs.max()) + before.shift <= int(self.positions.min())

    def sees_causally(self, own: Segment) -> bool:
        """Whether each token sees itself and all of the row's own before it."""
        if self.window and int(self.positions.max()) - int(self.positions.min()) >= self.window:
            return False
        return not len(self.ranges) and not own.shift and (self.ordered or bool((np.diff(self.positions) >= 0).all()))

    def visible(self, segment: Segment, positions: Int32) -> Bool:
        """Which of the segment's tokens each token of the row sees, [T, tokens]. `positions` of all slots."""
        offsets = np.arange(segment.first, segment.first + len(segment.slots))
        seen: Bool = offsets <= np.arange(self.length - self.count, self.length)[:, None]
        if self.window or not self.ordered:
            theirs, own = positions[segment.slots] + segment.shift, self.positions[:, None]
            seen &= theirs <= own
            if self.window:
                seen &= theirs > own - self.window
        return seen & self.named(offsets) if len(self.ranges) else seen

    def named(self, offsets: Int64) -> Bool:
        """Which offsets lie in a range of each token; all of them for a token without one. [T, offsets]"""
        named = np.ones((self.count, len(offsets)), np.bool_)
        named[self.ranges[:, 0]] = False
        for token, first, count in self.ranges.tolist():
            named[token] |= (offsets >= first) & (offsets < first + count)
        return named


def runs(slots: Int64) -> list[Int64]:
    """Neighbouring slots together."""
    if not len(slots) or (slots[-1] - slots[0] == len(slots) - 1 and bool((np.diff(slots) == 1).all())):
        return [slots]
    return np.split(slots, np.flatnonzero(np.diff(slots) != 1) + 1)
