"""From a file to the record of it that the journal keeps, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cadenza.kvfs.extent import Extent
from cadenza.kvfs.file import File
from cadenza.kvfs.parts import Part, Parts
from cadenza.kvfs.pool import PagePool
from cadenza.kvfs.records import FileRecord, Layout, PartRecord, StoredPage
from cadenza.kvfs.tiers import Tiers


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
    def pages(numbers: Int32) -> tuple[StoredPage, ...]:
        return tuple(stored[page] for page in numbers.tolist())

    parts = [
        PartRecord(pages(p.extent.pages), p.extent.skip, p.first, p.length, p.shift, p.hidden, p.extent.tokens,
                   p.extent.positions)
        for p in contents.parts
    ]
    tail = contents.table
    if tail.count:
        parts.append(PartRecord(pages(tail.pages()), 0, 0, tail.count, 0, False, tail.tokens(0, tail.count),
                                tail.positions(0, tail.count)))
    return FileRecord(...)
