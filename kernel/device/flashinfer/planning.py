"""From a batch to readings: once a step for all layers of the same window, in numpy alone.

    plain rows     one segment of contiguous tokens: by pages, causal          most of a batch; nothing a token is done
    that share     the pages with which they begin, read once by all queries   see cascade.py
    other rows     by slots: what one token sees exactly; of several, what all of them see, what they see causally,
                   and the rest under a mask; each shift by itself

What a token reads in several requests is merged afterwards: see planned_attention.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from cadenza.kernel.device.batch import Batch, Int32, Int64
from cadenza.kernel.device.flashinfer.cascade import Shared, shared_beginnings
from cadenza.kernel.device.flashinfer.reading import Reading, Request, by_slots, ragged, starts
from cadenza.kernel.device.row import Bool, Row, Segment


def plain_rows(batch: Batch) -> Int64:
    """Numbers of rows of one segment, contiguous, in which no range hides anything."""
    plain = batch.contiguous.view(np.bool_) & (np.diff(batch.visible_starts) == 0)
    return np.flatnonzero(plain & (np.diff(batch.segment_starts) == 1))


def readings(
    batch: Batch, positions: Int32, page_tokens: int, window: int = 0, shared: Sequence[Shared] = ()
) -> list[Reading]:
    """What all tokens of the batch read in a layer of that window. `positions` of all slots; `shared`: what plain rows
    begin with and read together, without a window only."""
    plain = plain_rows(batch)
    found = [_together(batch, shared, page_tokens)] if shared else []
    if len(plain):
        found.append(_plain(batch, plain, page_tokens, window, shared))
    alike: dict[tuple[bool, bool], list[Request]] = defaultdict(list)
    others = np.setdiff1d(np.arange(len(batch.contiguous)), plain) if len(plain) < len(batch.contiguous) else plain[:0]
    for number in others.tolist():
        for request in _requests(Row(batch, number, page_tokens, window), positions):
            alike[request.causal, request.visible is None].append(request)
    return found + [by_slots(some) for some in alike.values()]


def beginnings(batch: Batch, page_tokens: int, least_pages: int) -> list[Shared]:
    """What plain rows are better to read together: pages that stand whole before their own tokens."""
    rows = plain_rows(batch)
    segments = batch.segment_starts[rows]
    whole = (batch.segment_tokens[segments] - np.diff(batch.row_starts)[rows]) // page_tokens
    if not least_pages <= whole.sum():
        return []
    firsts = batch.page_starts[segments]
    pages = [batch.pages[first : first + count] for first, count in zip(firsts, whole, strict=True)]
    return shared_beginnings(rows.tolist(), pages, least_pages)


def _plain(batch: Batch, rows: Int64, page_tokens: int, window: int, shared: Sequence[Shared]) -> Reading:
    """Pages that lie before every token's window are left out, and those that are read together."""
    segments = batch.segment_starts[rows]
    counts, lengths = np.diff(batch.row_starts)[rows], batch.segment_tokens[segments]
    skipped = np.zeros(len(batch.contiguous), np.int32)
    for group in shared:
        skipped[list(group.rows)] = group.pages
    dropped = skipped[rows]
    if window:
        dropped = np.maximum(0, lengths - counts + 1 - window) // page_tokens
    kept = -(-lengths // page_tokens) - dropped
    return Reading(
        queries=ragged(batch.row_starts[rows], counts).astype(np.int32),
        query_starts=starts(counts),
        page_tokens=page_tokens,
        page_starts=starts(kept),
        pages=batch.pages[ragged(batch.page_starts[segments] + dropped, kept)],
        last_page_tokens=((lengths - 1) % page_tokens + 1).astype(np.int32),
        causal=True,
        window=window,
    )


def _together(batch: Batch, shared: Sequence[Shared], page_tokens: int) -> Reading:
    rows = [np.array(group.rows) for group in shared]
    counts = np.diff(batch.row_starts)
    pages = [batch.pages[(first := batch.page_starts[batch.segment_starts[group.rows[0]]]) : first + group.pages]
             for group in shared]  # fmt: skip
    return Reading(
        queries=np.concatenate([ragged(batch.row_starts[some], counts[some]) for some in rows]).astype(np.int32),
        query_starts=starts([int(counts[some].sum()) for some in rows]),
        page_tokens=page_tokens,
        page_starts=starts([group.pages for group in shared]),
        pages=np.concatenate(pages),
        last_page_tokens=np.full(len(shared), page_tokens, np.int32),
        causal=False,
    )


def _requests(row: Row, positions: Int32) -> Iterator[Request]:
    tokens = np.arange(row.tokens.start, row.tokens.stop, dtype=np.int32)
    if row.count == 1:
        seen = [_at(segment, row.visible(segment, positions)[0]) for segment in row.segments()]
        for shift, slots in _by_shift(seen):
            yield Request(tokens, slots, causal=True, shift=shift)
        return
    before, own = row.parted()
    causal = row.sees_causally(own)
    seen = [segment for segment in before if row.sees_all(segment, positions)]
    masked = [segment for segment in before if not row.sees_all(segment, positions)]
    for shift, slots in _by_shift([*seen, own] if causal else seen):
        yield Request(tokens, slots, causal=causal and shift == 0, shift=shift)
    yield from _masked(row, tokens, masked if causal else [*masked, own], positions)


def _masked(row: Row, tokens: Int32, segments: list[Segment], positions: Int32) -> Iterator[Request]:
    """Without tokens that see nothing, and slots that none sees."""
    for shift in sorted({segment.shift for segment in segments}):
        some = [segment for segment in segments if segment.shift == shift]
        visible = np.concatenate([row.visible(segment, positions) for segment in some], 1)
        slots = np.concatenate([segment.slots for segment in some])
        looking, seen = visible.any(1), visible.any(0)
        if looking.any():
            yield Request(tokens[looking], slots[seen], causal=False, visible=visible[looking][:, seen], shift=shift)


def _by_shift(segments: list[Segment]) -> Iterator[tuple[int, Int64]]:
    """The slots of each shift, in order; no shift without any."""
    for shift in sorted({segment.shift for segment in segments if len(segment.slots)}):
        yield shift, np.concatenate([segment.slots for segment in segments if segment.shift == shift])


def _at(segment: Segment, seen: Bool) -> Segment:
    return segment._replace(slots=segment.slots[seen])
