"""Which rows read the pages with which they begin together (the cascade of Ye et al. 2024, FlashInfer, section 3.1.2):
what n queries share is fetched once for all, in place of n times; it costs one more kernel and a merge a layer.

Pages are shared as forks share them: by number. So a tree of forks shows as a tree of common beginnings, and at each
branching either all rows below it read together what they have in common, or its branches see for themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cadenza.kernel.device.batch import Int32

# What a cascade has to spare in fetched bytes a layer: it costs some 10 µs there, in which a GPU fetches as much.
# A step of decodes alone is one graph otherwise, and its launches cost that much more. Estimates: not yet measured.
CASCADE_BYTES = 32 << 20
CASCADE_BYTES_OVER_GRAPH = 256 << 20


class Shared(NamedTuple):
    """Rows whose first pages, so many, are the same."""

    rows: tuple[int, ...]
    pages: int


def shared_beginnings(rows: Sequence[int], pages: Sequence[Int32], least_pages: int) -> list[Shared]:
    """Groups of `rows` that spare most. `pages` of each row: those that it may share. A group of n rows spares n − 1
    times what they share; one that spares less than `least_pages` is none. No row is in two."""
    of = dict(zip(rows, pages, strict=True))
    return [group for some in _alike(list(rows), of, 0) for group in _best(some, of, 0, max(1, least_pages))]


def _alike(rows: list[int], of: dict[int, Int32], depth: int) -> list[list[int]]:
    """Two rows or more with the same page at `depth`, each such page by itself."""
    found: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        if len(of[row]) > depth:
            found[int(of[row][depth])].append(row)
    return [some for some in found.values() if len(some) > 1]


def _best(rows: list[int], of: dict[int, Int32], depth: int, least_pages: int) -> list[Shared]:
    """Of rows that share more than `depth` pages: together, or in branches."""
    depth = _common(rows, of, depth)
    branches = [group for some in _alike(rows, of, depth) for group in _best(some, of, depth, least_pages)]
    together = (len(rows) - 1) * depth
    if together >= max(least_pages, sum((len(group.rows) - 1) * group.pages for group in branches)):
        return [Shared(tuple(rows), depth)]
    return branches


def _common(rows: list[int], of: dict[int, Int32], depth: int) -> int:
    """How many pages all of them begin with; `depth` are known to be."""
    end = min(len(of[row]) for row in rows)
    first = of[rows[0]][depth:end]
    for row in rows[1:]:
        differing = np.flatnonzero(of[row][depth : depth + len(first)] != first)
        first = first[: differing[0]] if len(differing) else first
    return depth + len(first)
