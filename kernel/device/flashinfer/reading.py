"""What one call of an attention kernel answers: requests, each some queries and a run of tokens that they read.

A request's tokens lie in pages, the last of which may be filled in part. Where they lie scattered, or begin inside a
page, its pages are slots: pages of one token, over the same memory. Queries of a causal request are its last tokens;
with a window they see so many tokens up to their own. A mask says of each query which tokens it sees.

    request i:  queries[query_starts[i] : query_starts[i + 1]]     read     pages[page_starts[i] : page_starts[i + 1]]

Every query of a request sees something, so no kernel is asked what it answers for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from cadenza.kernel.device.batch import Int32, Int64
from cadenza.kernel.device.row import Bool


@dataclass(frozen=True, slots=True)
class Reading:
    """B requests of N queries in all. A token may be a query of several requests."""

    queries: Int32                       # [N] numbers of tokens of the batch
    query_starts: Int32                  # [B + 1]
    page_tokens: int                     # the pool's; or 1: `pages` are slots
    page_starts: Int32                   # [B + 1]
    pages: Int32
    last_page_tokens: Int32              # [B] 1 … page_tokens
    causal: bool
    window: int = 0                      # 0 is none
    mask: Bool | None = None             # of each request [queries, tokens], flat, one after the other
    shifts: Int32 | None = None          # [N] how far on its keys are read; None: all as they are

    @property
    def lengths(self) -> Int32:
        """[B] tokens."""
        return (np.diff(self.page_starts) - 1) * np.int32(self.page_tokens) + self.last_page_tokens

    def rounds(self) -> list[Int64]:
        """Places in `queries`: of each token for the first time, the second, …"""
        if (np.diff(self.queries) > 0).all():
            return [np.arange(len(self.queries))]
        order = np.argsort(self.queries, kind="stable")
        fresh = np.flatnonzero(np.diff(self.queries[order], prepend=-1))
        times = np.arange(len(order)) - np.repeat(fresh, np.diff(fresh, append=len(order)))
        return [np.sort(order[times == time]) for time in range(int(times.max(initial=-1)) + 1)]


class Request(NamedTuple):
    """Queries, the slots that they read, `shift` further on; which of them each sees: `visible`, or up to its own."""

    queries: Int32
    slots: Int64
    causal: bool
    visible: Bool | None = None
    shift: int = 0


def by_slots(some: Sequence[Request]) -> Reading:
    """Of requests that are alike: all masked, or all causal, or none of both."""
    shifts = np.concatenate([np.full(len(x.queries), x.shift, np.int32) for x in some])
    masks = [x.visible.ravel() for x in some if x.visible is not None]
    return Reading(
        queries=np.concatenate([x.queries for x in some]),
        query_starts=starts([len(x.queries) for x in some]),
        page_tokens=1,
        page_starts=starts([len(x.slots) for x in some]),
        pages=np.concatenate([x.slots for x in some]).astype(np.int32),
        last_page_tokens=np.ones(len(some), np.int32),
        causal=some[0].causal,
        mask=np.concatenate(masks) if masks else None,
        shifts=shifts if shifts.any() else None,
    )


def padded(reading: Reading, size: int, page: int) -> Reading:
    """`reading` of one query a request, made `size` requests long: those added read one token of `page`, which is of
    no file."""
    more = np.arange(1, size - len(reading.last_page_tokens) + 1, dtype=np.int32)
    return replace(
        reading,
        queries=np.arange(size, dtype=np.int32),
        query_starts=np.arange(size + 1, dtype=np.int32),
        page_starts=np.concatenate((reading.page_starts, reading.page_starts[-1] + more)),
        pages=np.concatenate((reading.pages, np.full(len(more), page, np.int32))),
        last_page_tokens=np.concatenate((reading.last_page_tokens, np.ones(len(more), np.int32))),
    )


def starts(counts: Sequence[int] | Int32) -> Int32:
    """Where each of so many begins, and the end."""
    return np.concatenate(([0], np.cumsum(counts))).astype(np.int32)


def ragged(firsts: Int32, counts: Int32) -> Int64:
    """firsts[0], firsts[0] + 1, … counts[0] of them; then those of firsts[1]; …"""
    ends = np.cumsum(counts, dtype=np.int64)
    return np.repeat(firsts - (ends - counts), counts) + np.arange(ends[-1] if len(ends) else 0)
