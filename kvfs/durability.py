"""From a file to the record of it that the journal keeps, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.extent import Extent
from cadenza.kvfs.file import EXACT, File
from cadenza.kvfs.parts import Part, Parts
from cadenza.kvfs.records import FileRecord, Layout, Naming, PartRecord, StoredPage
from cadenza.kvfs.tiers import Tiers

Int32 = NDArray[np.int32]


def whole_pages(file: File) -> set[int]:
    """Pages of which every slot holds a token of `file`: nobody writes to them any more."""
    size, tail = file.page_tokens, file.table
    whole = set(tail.pages()[: tail.count // size].tolist())
    for part in file.parts:
        extent = part.extent
        first, end = -(-extent.skip // size), (extent.skip + len(extent.tokens)) // size
        whole.update(extent.pages[first:end].tolist())
    return whole


def record_of(file: File, contents: File, layout: Layout, stored: Mapping[int, StoredPage]) -> FileRecord:
    """The names and rights of `file`, with the tokens of `contents`, whose every page is in `stored`."""
    pages = {extent: _stored(extent.pages, stored) for extent in {part.extent for part in contents.parts}}
    parts = [
        PartRecord(pages[p.extent], p.extent.skip, p.first, p.length, p.shift, p.hidden,
                   p.extent.tokens, p.extent.positions)
        for p in contents.parts
    ]  # fmt: skip
    straight, tail = not parts, contents.table
    if tail.count:
        parts.append(PartRecord(_stored(tail.pages(), stored), 0, 0, tail.count, 0, False, tail.tokens(0, tail.count),
                                tail.positions(0, tail.count)))  # fmt: skip
    return FileRecord(file.number, layout, naming_of(file), contents.exact, straight, file.created_ns,
                      contents.modified_ns, tuple(parts), contents.adapter)


def naming_of(file: File) -> Naming:
    access = file.access
    return Naming(file.owner, tuple(file.paths), access.mine, access.others, dict(access.grants))


class Restorer:
    """Makes files of records. Pages that records share are shared by the files too."""

    def __init__(self, tiers: Tiers, living: set[File]) -> None:
        self._tiers = tiers
        self._living = living
        self._pages: dict[int, int] = {}             # by slot
        self._extents: dict[tuple[object, ...], Extent] = {}

    def restore(self, record: FileRecord, layout: Layout) -> File:
        """The file, its pages on disk alone. The caller gives it its names and rights. One of another layout has no
        contents here: it says whose it is."""
        owner = record.naming.owner
        file = File(self._tiers.pool, owner, self._living)
        file.open_count = 0
        file.number, file.created_ns, file.modified_ns = record.number, record.created_ns, record.modified_ns
        if record.layout != layout:
            file.foreign = f"{record.layout}, not {layout}"
        elif record.straight and record.parts:
            (tail,) = record.parts
            file.adopt(self._take(tail.pages, owner), tail.tokens, tail.positions)
        elif record.parts:
            file.compose(Parts(self._part(part, owner) for part in record.parts))
        file.adapter = record.adapter
        file.mark_restored(EXACT if record.exact else 0)
        return file

    def _part(self, part: PartRecord, owner: str) -> Part:
        """Parts of one file that had one extent have one again."""
        key = (part.pages, part.skip, len(part.tokens))
        extent = self._extents.get(key)
        if extent is None or extent.holders == 0:
            pages = np.array(self._take(part.pages, owner), np.int32)
            extent = self._extents[key] = Extent(self._tiers.pool, pages, part.skip, part.tokens, part.positions)
        else:
            extent.hold()
        return Part(extent, part.first, part.length, part.shift, part.hidden)

    def _take(self, stored: tuple[StoredPage, ...], owner: str) -> list[int]:
        """Pages for those slots, each referenced once more."""
        return [self._page(each, owner) for each in stored]

    def _page(self, stored: StoredPage, owner: str) -> int:
        tiers, page = self._tiers, self._pages.get(stored.slot)
        if page is not None and tiers.stored.get(page) == stored:
            tiers.pool.share(page)
            return page
        (page,) = tiers.pool.reserve(1, owner)
        self._pages[stored.slot] = page
        tiers.hold_on_disk(page, stored)
        return page


def _stored(pages: Int32, stored: Mapping[int, StoredPage]) -> tuple[StoredPage, ...]:
    return tuple(stored[page] for page in pages.tolist())
