"""The frozen beginning of a file: parts of extents, one after the other, shifted or hidden.

    file    │ part 0      │ part 1 (hidden) │ part 2 (shift +70) ║ tail, in a page table of the file's own
    offset  0 …           40 …              52 …                 90 … grows
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.extent import Extent
from cadenza.kvfs.pool import PagePool

Int32 = NDArray[np.int32]


class Segment(NamedTuple):
    """What a pass reads of a file: `length` tokens from slot `skip` of `pages` on, their offsets from `first` on, their
    keys as if they stood `shift` positions after those that they were computed at."""

    pages: Int32
    first: int
    skip: int
    length: int
    shift: int


class Part(NamedTuple):
    """Tokens [first, first + length) of an extent, `shift` positions further on. Passes do not read a hidden one."""

    extent: Extent
    first: int
    length: int
    shift: int = 0
    hidden: bool = False

    @property
    def tokens(self) -> Int32:
        return self.extent.tokens[self.first : self.first + self.length]

    @property
    def positions(self) -> Int32:
        return self.extent.positions[self.first : self.first + self.length] + np.int32(self.shift)

    def segment(self, offset: int, page_tokens: int) -> Segment:
        first, skip = divmod(self.extent.skip + self.first, page_tokens)
        pages = self.extent.pages[first : first - (-(skip + self.length) // page_tokens)]
        return Segment(pages, offset, skip, self.length, self.shift)

    def window(self, first: int, count: int) -> Part:
        """Fewer of its tokens, in the same extent: held once more by this."""
        return self._replace(extent=self.extent.hold(), first=self.first + first, length=count)

    def trimmed(self, first: int, count: int) -> Part:
        """Fewer of its tokens, in an extent that holds no page that they do not need."""
        if self.first + first == 0 and count == len(self.extent.tokens):
            return self._replace(extent=self.extent.hold())
        return self._replace(extent=self.extent.cut(self.first + first, count), first=0, length=count)


class Parts:
    """Never changes. Each file that has it holds the extent of each part once."""

    __slots__ = ("_parts", "count", "hidden", "next_position", "page_count")

    def __init__(self, parts: Iterable[Part] = ()) -> None:
        """Takes over the hold of each part on its extent."""
        self._parts = tuple(parts)
        self.count = sum(part.length for part in self._parts)
        self.hidden = sum(part.length for part in self._parts if part.hidden)
        self.page_count = sum(len(extent.pages) for extent in {part.extent for part in self._parts})
        self.next_position = max((int(part.positions.max()) + 1 for part in self._parts if part.length), default=0)

    def __iter__(self) -> Iterator[Part]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def hold(self) -> Parts:
        """The same, for another file. Takes time with the parts, not with the tokens."""
        for part in self._parts:
            part.extent.hold()
        return self

    def drop(self) -> None:
        for part in reversed(self._parts):
            part.extent.drop()

    def tokens(self, first: int, count: int) -> list[Int32]:
        return [part.tokens[a:b] for part, a, b in self._covered(first, count)]

    def positions(self, first: int, count: int) -> list[Int32]:
        return [part.positions[a:b] for part, a, b in self._covered(first, count)]

    def segments(self, page_tokens: int) -> list[Segment]:
        """Of all that is not hidden."""
        found, offset = [], 0
        for part in self._parts:
            if part.length and not part.hidden:
                found.append(part.segment(offset, page_tokens))
            offset += part.length
        return found

    def shared_pages(self, pool: PagePool) -> int:
        """Pages that are held by anything else."""
        mine: Counter[int] = Counter()
        shared: set[int] = set()
        for extent, holds in Counter(part.extent for part in self._parts).items():
            (shared if extent.holders > holds else mine).update(extent.pages.tolist())
        return len(shared | {page for page, holds in mine.items() if pool.references(page) > holds})

    def trimmed(self, first: int, count: int) -> list[Part]:
        """Tokens [first, first + count), without a page that they do not need."""
        return [part.trimmed(a, b - a) for part, a, b in self._covered(first, count)]

    def shifted(self, by: int) -> Parts:
        """All `by` positions further on."""
        return Parts(p._replace(extent=p.extent.hold(), shift=p.shift + by) for p in self._parts)

    def marked(self, first: int, count: int, *, hidden: bool) -> Parts:
        """Tokens [first, first + count) hidden or not; the rest as it is. Neighbours alike become one part."""
        before, after = self._covered(0, first), self._covered(first + count, self.count - first - count)
        pieces = [part.window(a, b - a) for part, a, b in before]
        pieces += [part.window(a, b - a)._replace(hidden=hidden) for part, a, b in self._covered(first, count)]
        pieces += [part.window(a, b - a) for part, a, b in after]
        return Parts(_joined(pieces))

    def _covered(self, first: int, count: int) -> list[tuple[Part, int, int]]:
        """The parts that hold tokens [first, first + count), and from where to where in each."""
        covered, offset, end = [], 0, first + count
        for part in self._parts:
            low, high = max(first, offset), min(end, offset + part.length)
            if low < high:
                covered.append((part, low - offset, high - offset))
            offset += part.length
        return covered


def _joined(parts: list[Part]) -> list[Part]:
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if last is not None and last.extent is part.extent and last.first + last.length == part.first and (
            (last.shift, last.hidden) == (part.shift, part.hidden)
        ):
            joined[-1] = last._replace(length=last.length + part.length)
            part.extent.drop()
        else:
            joined.append(part)
    return joined
