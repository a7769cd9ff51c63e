"""Attention over pages: what each token of a batch may see, and the reading of it.

Segments are runs of slots in pages. The slots of one row, gathered page after page, lie so:

    slot     0 … 15 │ 16 … 31 ││ 32 … 47 ││ …         │ page   ││ segment
    offset   · · 0 … │ … 18 · · ││ 25 … 40 ││ …   · hidden: no token of this row that anybody reads

A token sees a slot if and only if the slot's offset is at most its own, the slot's position (with its segment's shift)
is at most its own, and, when ranges of visible offsets name the token, one of them holds the slot's offset. In a
contiguous row the second follows from the first. A token that sees nothing reads zeros.

Several parts of a row are read one by one and merged by the natural logarithms of the sums of their weights:
out = Σ exp(lse_i − lse) · out_i, lse = log Σ exp(lse_i). A part of which a token sees nothing has −∞ and adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cadenza.kernel.device.batch import Batch, Int64
from cadenza.kernel.device.paged_kv import PagedKv
from cadenza.kernel.model.rope import Rotation, rotate, rotation

Bool = NDArray[np.bool_]

HIDDEN = np.iinfo(np.int64).max       # offset of a slot that holds no token of the row
QUERY_BLOCK = 512                     # queries of a part with a mask that are read at once: bounds the mask
MOST_RUNS = 8                         # runs of neighbouring pages of a segment that are read in place

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


class Segment(NamedTuple):
    """One segment of a row: `length` tokens, `skip` slots into `pages`, offsets from `first` on."""

    pages: Int64
    first: int
    skip: int
    length: int
    shift: int

    def offsets(self, page_tokens: int) -> Int64:
        """Of each slot of its pages; HIDDEN where there is no token of it."""
        own = np.arange(len(self.pages) * page_tokens, dtype=np.int64) - self.skip
        return np.where((own >= 0) & (own < self.length), own + self.first, HIDDEN)


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a batch: T of its own tokens at the end of L offsets."""

    batch: Batch
    number: int

    @property
    def tokens(self) -> slice:
        """Into `batch.tokens`."""
        return slice(*self.batch.row_starts[self.number : self.number + 2].tolist())

    @property
    def _segments(self) -> slice:
        return slice(*self.batch.segment_starts[self.number : self.number + 2].tolist())

    def segments(self) -> Iterator[Segment]:
        """Those that hold a token."""
        batch = self.batch
        for n in range(self._segments.start, self._segments.stop):
            if batch.segment_tokens[n]:
                pages = batch.pages[batch.page_starts[n] : batch.page_starts[n + 1]].astype(np.int64)
                yield Segment(pages, int(batch.segment_firsts[n]), int(batch.segment_skips[n]),
                              int(batch.segment_tokens[n]), int(batch.segment_shifts[n]))  # fmt: skip

    @property
    def pages(self) -> Int64:
        segments = self._segments
        first, end = self.batch.page_starts[[segments.start, segments.stop]].tolist()
        return self.batch.pages[first:end].astype(np.int64)

    @property
    def length(self) -> int:
        last = self._segments.stop - 1
        return int(self.batch.segment_firsts[last] + self.batch.segment_tokens[last])

    @property
    def shifted(self) -> bool:
        return bool(self.batch.segment_shifts[self._segments].any())

    @property
    def ranges(self) -> NDArray[np.int32]:
        """Its visible ranges, [·, 3]."""
        return self.batch.visible_ranges[slice(*self.batch.visible_starts[self.number : self.number + 2].tolist())]

    @property
    def plain(self) -> bool:
        """Causality by offset says all, and slots are offsets."""
        segments = self._segments
        one = segments.stop - segments.start == 1
        return one and bool(self.batch.contiguous[self.number]) and not len(self.ranges)


def visible_slots(row: Row, segment: Segment, kv: PagedKv) -> Bool:
    """Which slots of the segment's pages each token of `row` sees, [T, slots]. The batch's positions are in `kv`."""
    batch, tokens = row.batch, row.tokens
    count = tokens.stop - tokens.start
    offsets = segment.offsets(kv.page_tokens)
    seen: Bool = offsets <= np.arange(row.length - count, row.length)[:, None]
    if not batch.contiguous[row.number]:
        held = kv.positions.reshape(-1, kv.page_tokens)[segment.pages].ravel()
        seen &= held + segment.shift <= batch.positions[tokens, None]
    return seen & _named(row.ranges, offsets, count) if len(row.ranges) else seen


def _named(ranges: NDArray[np.int32], offsets: Int64, tokens: int) -> Bool:
    """Which slots lie in a range of the token; all of them for a token without one. [tokens, slots]"""
    named = np.ones((tokens, len(offsets)), np.bool_)
    named[ranges[:, 0]] = False
    for token, first, count in ranges.tolist():
        named[token] |= (offsets >= first) & (offsets < first + count)
    return named


class Readers(Protocol):
    """Some rows of a step, read together in every layer."""

    def read(self, layer: int, queries: Tensor, out: Tensor) -> None:
        """`queries` [tokens of the batch, heads, head dim]; writes those of its own tokens into `out`, likewise."""


class Part:
    """A run of slots that the tokens of a row read in one go: all of them (`visible` None), those up to their own
    (`causal`), or those of `visible` [T, slots]. Slots of neighbouring pages are read where they lie."""

    def __init__(self, kv: PagedKv, pages: Int64, first: int, length: int, *, causal: bool = False,
                 visible: Bool | None = None, turn: Rotation | None = None) -> None:  # fmt: skip
        """`length` slots from slot `first` of `pages` on."""
        self._kv, self._causal, self._turn = kv, causal, turn
        at, self._first = divmod(first, kv.page_tokens)
        pages = pages[at : at - (-(self._first + length) // kv.page_tokens)]
        self._slots = slice(self._first, self._first + length)
        self._start = int(pages[0]) * kv.page_tokens if len(_runs(pages)) == 1 else None
        self._pages = torch.from_numpy(pages)
        self._visible = None if visible is None else torch.from_numpy(visible)

    def read(self, layer: int, queries: Tensor) -> tuple[Tensor, Tensor]:
        """`queries` [1, heads, T, head dim]. What they read, likewise, and the logarithms [1, heads, T]."""
        if self._turn is not None:
            queries = rotate(queries.transpose(1, 2).float(), self._turn).to(queries.dtype).transpose(1, 2)
        keys, values = self._kv.view(layer, self._start) if self._start is not None else self._kv.gather(
            layer, self._pages)  # fmt: skip
        keys, values = keys[None, :, self._slots], values[None, :, self._slots]
        if self._causal:
            read: tuple[Tensor, Tensor] = _flash(queries, keys, values, is_causal=True)
            return read
        if self._visible is None:
            # The queries of a kv head one after the other: more rows at a time for the same keys.
            grouped = queries.reshape(1, keys.shape[1], -1, queries.shape[3])
            out, logs = _flash(grouped, keys, values)
            return out.reshape(queries.shape), logs.reshape(queries.shape[:3])
        blocks = [self._masked(queries, keys, values, first) for first in range(0, queries.shape[2], QUERY_BLOCK)]
        return torch.cat([out for out, _ in blocks], 2), torch.cat([lse for _, lse in blocks], 2)

    def _masked(self, queries: Tensor, keys: Tensor, values: Tensor, first: int) -> tuple[Tensor, Tensor]:
        assert self._visible is not None, "a part without a mask"
        part = slice(first, first + QUERY_BLOCK)
        hidden = torch.zeros(self._visible[part].shape, dtype=queries.dtype)
        hidden.masked_fill_(~self._visible[part], -torch.inf)
        out, lse = _flash(queries[:, :, part], keys, values, attn_mask=hidden[None, None])
        blind = ~self._visible[part].any(1)
        return out.masked_fill(blind[:, None], 0), lse.masked_fill(blind, -torch.inf)


def _runs(pages: Int64) -> list[Int64]:
    """Pages that are neighbours in the pool, together."""
    return np.split(pages, np.flatnonzero(np.diff(pages) != 1) + 1)


def merge(reads: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Of several parts, each what was read [1, heads, T, head dim] and the natural logarithm of the sum of its weights
    [1, heads, T]. Zero where every part says −∞."""
    if len(reads) == 1:
        return reads[0][0]
    logs = torch.stack([lse for _, lse in reads])
    weights = torch.softmax(logs, 0).nan_to_num_(0.0)
    merged = reads[0][0].float() * weights[0][..., None]
    for (out, _), weight in zip(reads[1:], weights[1:], strict=True):
        merged.addcmul_(out.float(), weight[..., None])
    return merged.to(reads[0][0].dtype)


class Chunk:
    """One row of several tokens, or of many segments: prefill, verification, modules."""

    def __init__(self, row: Row, kv: PagedKv, frequencies: Tensor) -> None:
        self._tokens = row.tokens
        self._row, self._kv, self._frequencies = row, kv, frequencies
        self._parts = [part for segment in row.segments() for part in self._plan(segment)]

    def read(self, layer: int, queries: Tensor, out: Tensor) -> None:
        mine = queries[self._tokens].transpose(0, 1)[None]
        read = merge([part.read(layer, mine) for part in self._parts])
        out[self._tokens] = read[0].transpose(0, 1)

    def _plan(self, segment: Segment) -> list[Part]:
        """What stands before the row's own tokens, in as few runs as can be, and what is among them."""
        row, kv = self._row, self._kv
        if not self._ordered(segment):
            length = len(segment.pages) * kv.page_tokens
            return [Part(kv, segment.pages, 0, length, visible=visible_slots(row, segment, kv),
                         turn=self._turn(segment.shift))]  # fmt: skip
        own = max(0, segment.first + segment.length - (row.length - (row.tokens.stop - row.tokens.start)))
        parts = self._before(segment, segment.length - own)
        if own:
            parts.append(Part(kv, segment.pages, segment.skip + segment.length - own, own, causal=True))
        return parts

    def _before(self, segment: Segment, length: int) -> list[Part]:
        """The first `length` tokens of a segment, all of which every token sees."""
        if not length:
            return []
        size, turn = self._kv.page_tokens, self._turn(segment.shift)
        pages = segment.pages[: -(-(segment.skip + length) // size)]
        runs = _runs(pages)
        if len(runs) > MOST_RUNS:
            return [Part(self._kv, pages, segment.skip, length, turn=turn)]
        parts, first = [], segment.skip
        for run in runs:
            count = min(len(run) * size - first, length)
            parts.append(Part(self._kv, run, first, count, turn=turn))
            first, length = 0, length - count
        return parts

    def _ordered(self, segment: Segment) -> bool:
        """Whether every token sees all of the segment that stands before it in the row."""
        row, positions = self._row, self._kv.positions.reshape(-1, self._kv.page_tokens)
        if row.plain:
            return True
        if len(row.ranges):
            return False
        mine = row.batch.positions[row.tokens]
        own = max(0, segment.first + segment.length - (row.length - len(mine)))
        held = positions[segment.pages].ravel()[segment.skip : segment.skip + segment.length - own]
        before = not len(held) or int(held.max()) + segment.shift <= int(mine.min())
        return before and (not own or bool((np.diff(mine) >= 0).all()))

    def _turn(self, shift: int) -> Rotation | None:
        """Turns a query back, as if the keys stood `shift` further on."""
        return rotation(self._frequencies.double(), torch.tensor([-shift]), torch.float32) if shift else None


class Decodes:
    """Rows of one token each and of similar lengths, padded to the longest with slots that none sees."""

    def __init__(self, rows: list[Row], kv: PagedKv, dtype: torch.dtype) -> None:
        self._kv = kv
        self._tokens = torch.tensor([row.tokens.start for row in rows])
        width = max(len(row.pages) for row in rows)
        pages = np.zeros((len(rows), width), np.int64)
        seen = np.arange(width * kv.page_tokens) < np.array([row.length for row in rows])[:, None]
        for number, row in enumerate(rows):
            own = row.pages
            pages[number, : len(own)] = own
            if not row.plain:
                seen[number] = False
                slots = [visible_slots(row, segment, kv)[0] for segment in row.segments()]
                seen[number, : len(own) * kv.page_tokens] = np.concatenate(slots)
        self._pages = torch.from_numpy(pages.ravel())
        # Added to scores: [1, rows, 1, slots].
        self._hidden = torch.zeros(1, *seen[:, None].shape, dtype=dtype)
        self._hidden.masked_fill_(torch.from_numpy(~seen[None, :, None]), -torch.inf)

    def read(self, layer: int, queries: Tensor, out: Tensor) -> None:
        rows, (heads, head_dim) = len(self._tokens), queries.shape[1:]
        # Kv heads are the batch, rows the heads, a kv head's queries the sequence: [kv heads, rows, slots, head dim].
        keys, values = (x.view(len(x), rows, -1, head_dim) for x in self._kv.gather(layer, self._pages))
        grouped = queries[self._tokens].view(rows, len(keys), -1, head_dim).transpose(0, 1)
        hidden = self._hidden.expand(len(keys), -1, grouped.shape[2], -1)
        read = scaled_dot_product_attention(grouped, keys, values, attn_mask=hidden)
        out[self._tokens] = read.transpose(0, 1).reshape(rows, heads, head_dim)


class PagedAttention:
    """The attention of one step: planned once, then used by every layer."""

    def __init__(self, batch: Batch, kv: PagedKv, dtype: torch.dtype, frequencies: Tensor) -> None:
        """`frequencies`: those by which the model rotates queries and keys."""
        self._kv = kv
        self._frequencies = frequencies
        self._slots = torch.from_numpy(batch.slots.astype(np.int64))
        self._readers = self._plan(batch, dtype)

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Rows of one step may read what others of it write: all is written before any is read."""
        self._kv.write(layer, self._slots, keys, values)
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        for reader in self._readers:
            reader.read(layer, queries, out)
        return out.view(len(out), -1)

    def _plan(self, batch: Batch, dtype: torch.dtype) -> list[Readers]:
        """Decodes share a reader when their page counts round up to the same power of two; shifts need own queries."""
        chunks: list[Readers] = []
        decodes: dict[int, list[Row]] = {}
        for number, count in enumerate(np.diff(batch.row_starts).tolist()):
            row = Row(batch, number)
            if count == 1 and not row.shifted:
                decodes.setdefault((len(row.pages) - 1).bit_length(), []).append(row)
            elif count:
                chunks.append(Chunk(row, self._kv, self._frequencies))
        return chunks + [Decodes(rows, self._kv, dtype) for rows in decodes.values()]
