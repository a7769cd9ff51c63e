"""Attention over pages: what each token of a batch may see, and the reading of it.

A row's pages are gathered one segment after the other. The slots of one row then lie so:

    slot     0 … 15 │ 16 … 31 ││ 32 … 47 ││ …         │ page   ││ segment
    offset   0 … 15 │ 16 … 20 · · · ││ 21 … 36 ││ …   · hidden: no token of this row

A token sees a slot if and only if the slot's offset is at most its own, the slot's position is at most its own, and,
when ranges of visible offsets name the token, one of them holds the slot's offset. In a contiguous row the second
follows from the first. A token that sees nothing reads zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from cadenza.kernel.device.batch import Batch, Int64
from cadenza.kernel.device.paged_kv import PagedKv

Bool = NDArray[np.bool_]

HIDDEN = np.iinfo(np.int64).max       # offset of a slot that holds no token of the row
QUERY_BLOCK = 512                     # queries of a long row that are read at once: bounds the mask


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
    def segments(self) -> slice:
        return slice(*self.batch.segment_starts[self.number : self.number + 2].tolist())

    @property
    def pages(self) -> Int64:
        segments = self.segments
        first, end = self.batch.page_starts[[segments.start, segments.stop]].tolist()
        return self.batch.pages[first:end].astype(np.int64)

    @property
    def length(self) -> int:
        return int(self.batch.segment_tokens[self.segments].sum())

    @property
    def plain(self) -> bool:
        """Causality by offset says all, and slots are offsets."""
        first, end = self.batch.visible_starts[self.number : self.number + 2].tolist()
        segments = self.segments
        return bool(self.batch.contiguous[self.number]) and first == end and segments.stop - segments.start == 1


def slot_offsets(row: Row, page_tokens: int) -> Int64:
    """The offset of each gathered slot [pages · page tokens], HIDDEN where there is none."""
    batch, base, parts = row.batch, 0, []
    for segment in range(row.segments.start, row.segments.stop):
        pages = int(batch.page_starts[segment + 1] - batch.page_starts[segment])
        tokens = int(batch.segment_tokens[segment])
        offsets = np.arange(pages * page_tokens, dtype=np.int64)
        parts.append(np.where(offsets < tokens, offsets + base, HIDDEN))
        base += tokens
    return np.concatenate(parts)


def visible_slots(row: Row, kv: PagedKv) -> Bool:
    """Which gathered slots each token of `row` sees, [T, pages · page tokens]. The batch's positions are in `kv`."""
    batch, tokens = row.batch, row.tokens
    count = tokens.stop - tokens.start
    offsets = slot_offsets(row, kv.page_tokens)
    seen: Bool = offsets <= np.arange(row.length - count, row.length)[:, None]
    if not batch.contiguous[row.number]:
        held = kv.positions.reshape(-1, kv.page_tokens)[row.pages].ravel()
        seen &= held <= batch.positions[tokens, None]
    ranges = batch.visible_ranges[slice(*batch.visible_starts[row.number : row.number + 2].tolist())]
    return seen & _named(ranges, offsets, count) if len(ranges) else seen


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


class Chunk:
    """One row of several tokens: prefill, verification."""

    def __init__(self, row: Row, kv: PagedKv) -> None:
        self._kv = kv
        self._tokens = row.tokens
        self._pages = torch.from_numpy(row.pages)
        count = self._tokens.stop - self._tokens.start
        self._causal = row.plain and row.length == count
        # A plain row drops the hidden end of its last page.
        self._length = row.length if row.plain else len(row.pages) * kv.page_tokens
        self._visible = None if self._causal else torch.from_numpy(visible_slots(row, kv)[:, : self._length])

    def read(self, layer: int, queries: Tensor, out: Tensor) -> None:
        keys, values = (x[None, :, : self._length] for x in self._kv.gather(layer, self._pages))
        mine, answer = queries[self._tokens].transpose(0, 1)[None], out[self._tokens]
        block = mine.shape[2] if self._visible is None else QUERY_BLOCK
        for first in range(0, mine.shape[2], block):
            part = slice(first, first + block)
            read = scaled_dot_product_attention(
                mine[:, :, part], keys, values, enable_gqa=True, is_causal=self._causal,
                attn_mask=None if self._visible is None else self._visible[part],
            )
            answer[part] = read[0].transpose(0, 1)


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
                seen[number, : len(own) * kv.page_tokens] = visible_slots(row, kv)[0]
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

    def __init__(self, batch: Batch, kv: PagedKv, dtype: torch.dtype) -> None:
        self._kv = kv
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
        """Decodes share a reader when their page counts round up to the same power of two."""
        chunks: list[Readers] = []
        decodes: dict[int, list[Row]] = {}
        for number, count in enumerate(np.diff(batch.row_starts).tolist()):
            row = Row(batch, number)
            if count == 1:
                decodes.setdefault((len(row.pages) - 1).bit_length(), []).append(row)
            elif count:
                chunks.append(Chunk(row, self._kv))
        return chunks + [Decodes(rows, self._kv, dtype) for rows in decodes.values()]
