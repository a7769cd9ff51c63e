"""Attention over pages: the reading of what row.py says that tokens see.

What a token reads is cut into parts, each read by itself and merged by the natural logarithms of the sums of weights:
out = Σ exp(log_i − log) · out_i, log = log Σ exp(log_i). A part of which a token sees nothing has −∞ and adds nothing.
So a long run of neighbouring slots is read where it lies, and only what is scattered is gathered; and keys that are to
be read `shift` positions further on stay as they are: the queries of that part are turned back. Layers with another
window see other tokens, so what is read is planned once for each window; a sink is one more part, which adds to the sum
of weights and nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Batch, Int64
from cadenza.kernel.device.paged_kv import PagedKv
from cadenza.kernel.device.row import Bool, Row, Segment, runs
from cadenza.kernel.device.scoring import Read, Scoring, scoring
from cadenza.kernel.model.decoder import Sight
from cadenza.kernel.model.rope import Rotation, rotate, rotation

QUERY_BLOCK = 512                     # queries of a part with a mask that are read at once: bounds the mask
IN_PLACE_TOKENS = 512                 # a run of so many slots is read where it lies: less is cheaper to gather

def merge(reads: Sequence[Read], sinks: Tensor | None = None) -> Tensor:
    """Of several parts, each what was read […, head dim] and the natural logarithm of the sum of its weights […]. Zero
    where every part says −∞. `sinks`: scores that are in the sum of weights, of a shape that goes with […]."""
    if len(reads) == 1 and sinks is None:
        return reads[0][0]
    every = [logs for _, logs in reads]
    if sinks is not None:
        every.append(sinks.expand_as(every[0]))
    weights = torch.softmax(torch.stack(every), 0).nan_to_num_(0.0)
    merged = reads[0][0].float() * weights[0][..., None]
    for (out, _), weight in zip(reads[1:], weights[1:], strict=False):       # the last weight may be the sinks'
        merged.addcmul_(out.float(), weight[..., None])
    return merged.to(reads[0][0].dtype)


class Turning:
    """Turns queries back, as if the keys stood further on. `frequencies`: those by which the model rotates."""

    def __init__(self, frequencies: Tensor) -> None:
        self._frequencies = frequencies.double()

    def by(self, shifts: Sequence[int]) -> Rotation | None:
        """None when there is nothing to turn."""
        return rotation(self._frequencies, -torch.tensor(shifts), torch.float32) if any(shifts) else None


def turned(queries: Tensor, turn: Rotation | None) -> Tensor:
    """`queries` [T, heads, head dim], turned in float32."""
    return queries if turn is None else rotate(queries.float(), turn).to(queries.dtype)


class Surroundings(NamedTuple):
    """What readers share: the pages, how queries are turned back, how scores are made."""

    kv: PagedKv
    turning: Turning
    score: Scoring
    dtype: torch.dtype


class Part:
    """Slots that the tokens of a row read in one go: all of them (`visible` None), those up to their own (`causal`), or
    those of `visible` [T, slots]. Neighbouring slots are read where they lie."""

    def __init__(self, around: Surroundings, slots: Int64, turn: Rotation | None = None, *, causal: bool = False,
                 visible: Bool | None = None) -> None:  # fmt: skip
        self._kv, self._score, self._turn, self._causal = around.kv, around.score, turn, causal
        self._slots = torch.from_numpy(slots) if len(runs(slots)) > 1 else slice(int(slots[0]), int(slots[-1]) + 1)
        self._visible = None if visible is None else torch.from_numpy(visible)

    def read(self, layer: int, queries: Tensor) -> Read:
        """`queries` [T, heads, head dim]. What they read [heads, T, head dim], and the logarithms [heads, T]."""
        mine = turned(queries, self._turn).transpose(0, 1)[None]
        keys, values = self._kv.read(layer, self._slots)
        out, logs = self._read(mine, keys[None], values[None])
        return out[0], logs[0]

    def _read(self, queries: Tensor, keys: Tensor, values: Tensor) -> Read:
        if self._causal:
            return self._score(queries, keys, values, is_causal=True)
        if self._visible is None:
            # The queries of a kv head one after the other: more rows at a time for the same keys.
            grouped = queries.reshape(1, keys.shape[1], -1, queries.shape[3])
            out, logs = self._score(grouped, keys, values)
            return out.reshape(queries.shape), logs.reshape(queries.shape[:3])
        blocks = [(queries[:, :, first : first + QUERY_BLOCK], self._visible[first : first + QUERY_BLOCK])
                  for first in range(0, queries.shape[2], QUERY_BLOCK)]  # fmt: skip
        reads = [self._masked(some, keys, values, visible) for some, visible in blocks]
        return torch.cat([out for out, _ in reads], 2), torch.cat([logs for _, logs in reads], 2)

    def _masked(self, queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor) -> Read:
        """`visible` [queries, slots]."""
        hidden = torch.zeros(visible.shape, dtype=queries.dtype).masked_fill_(~visible, -torch.inf)
        out, logs = self._score(queries, keys, values, attn_mask=hidden[None, None])
        return out, logs.masked_fill(~visible.any(1), -torch.inf)


class Readers(Protocol):
    """Some rows of a step, read together in every layer."""

    def read(self, layer: int, queries: Tensor, out: Tensor, sinks: Tensor | None) -> None:
        """`queries` [tokens of the batch, heads, head dim]; writes those of its own tokens into `out`, likewise.
        `sinks` [heads]."""


class Chunk:
    """One row of several tokens: prefill, verification."""

    def __init__(self, row: Row, around: Surroundings) -> None:
        self._tokens, self._row, self._around = row.tokens, row, around
        before, own = row.parted()
        positions = around.kv.positions
        seen = [segment for segment in before if row.sees_all(segment, positions)]
        masked = [segment for segment in before if not row.sees_all(segment, positions)]
        causal = row.sees_causally(own)
        self._parts = self._seen_parts(seen) + self._masked_parts(masked if causal else [*masked, own])
        if causal:
            self._parts.append(Part(around, own.slots, causal=True))

    def read(self, layer: int, queries: Tensor, out: Tensor, sinks: Tensor | None) -> None:
        mine = queries[self._tokens]
        reads = [part.read(layer, mine) for part in self._parts]
        out[self._tokens] = merge(reads, None if sinks is None else sinks[:, None]).transpose(0, 1)

    def _seen_parts(self, segments: list[Segment]) -> list[Part]:
        return [Part(self._around, slots, self._around.turning.by([shift]))
                for shift, some in _by_shift(segments).items() for slots in _pieces([x.slots for x in some])]

    def _masked_parts(self, segments: list[Segment]) -> list[Part]:
        row, positions = self._row, self._around.kv.positions
        return [Part(self._around, np.concatenate([x.slots for x in some]), self._around.turning.by([shift]),
                     visible=np.concatenate([row.visible(x, positions) for x in some], 1))
                for shift, some in _by_shift(segments).items()]  # fmt: skip


def _by_shift(segments: list[Segment]) -> dict[int, list[Segment]]:
    found: dict[int, list[Segment]] = defaultdict(list)
    for segment in segments:
        found[segment.shift].append(segment)
    return found


def _pieces(slots: list[Int64]) -> list[Int64]:
    """The long runs, then all the rest together."""
    if sum(map(len, slots)) < IN_PLACE_TOKENS:
        return [np.concatenate(slots)]
    every = [run for some in slots for run in runs(some)]
    long = [run for run in every if len(run) >= IN_PLACE_TOKENS]
    rest = [run for run in every if len(run) < IN_PLACE_TOKENS]
    return [*long, np.concatenate(rest)] if rest else long


class Glance(NamedTuple):
    """Slots that one token reads in one go, all of them."""

    token: int
    slots: Int64
    shift: int


def glances(row: Row, kv: PagedKv) -> list[Glance]:
    """Of a row of one token: one a shift, and one a long run. At least one, if of nothing."""
    token = row.tokens.start
    if row.plain:
        return [Glance(token, slots, 0) for slots in _pieces([segment.slots for segment in row.segments()])]
    seen = [segment._replace(slots=segment.slots[row.visible(segment, kv.positions)[0]]) for segment in row.segments()]
    found = [Glance(token, slots, shift) for shift, some in _by_shift(seen).items()
             for slots in _pieces([segment.slots for segment in some]) if len(slots)]  # fmt: skip
    return found or [Glance(token, seen[-1].slots[:0], 0)]


class Together:
    """Glances of similar lengths, gathered and padded to the longest with slots that none sees."""

    def __init__(self, some: list[Glance], around: Surroundings) -> None:
        self._kv, self._score = around.kv, around.score
        self.tokens = torch.tensor([glance.token for glance in some])
        self._turn = around.turning.by([glance.shift for glance in some])
        lengths = np.array([len(glance.slots) for glance in some])
        slots = np.zeros((len(some), max(1, lengths.max())), np.int64)
        seen = np.arange(slots.shape[1]) < lengths[:, None]
        slots[seen] = np.concatenate([glance.slots for glance in some])
        self._slots = torch.from_numpy(slots.ravel())
        # Added to scores: [1, glances, 1, slots].
        self._hidden = torch.zeros(1, *seen[:, None].shape, dtype=around.dtype)
        self._hidden.masked_fill_(torch.from_numpy(~seen[None, :, None]), -torch.inf)

    def read(self, layer: int, queries: Tensor) -> Read:
        """`queries` [tokens of the batch, heads, head dim]. [glances, heads, head dim], and logarithms."""
        count, (heads, head_dim) = len(self.tokens), queries.shape[1:]
        # Kv heads are the batch, glances the heads, a kv head's queries the sequence: [kv heads, glances, slots, dim].
        keys, values = (x.view(len(x), count, -1, head_dim) for x in self._kv.read(layer, self._slots))
        grouped = turned(queries[self.tokens], self._turn).view(count, len(keys), -1, head_dim).transpose(0, 1)
        hidden = self._hidden.expand(len(keys), -1, grouped.shape[2], -1)
        out, logs = self._score(grouped, keys, values, attn_mask=hidden)
        return out.transpose(0, 1).reshape(count, heads, head_dim), logs.transpose(0, 1).reshape(count, heads)


class InPlace:
    """One glance at a long run."""

    def __init__(self, glance: Glance, around: Surroundings) -> None:
        self.tokens = torch.tensor([glance.token])
        self._part = Part(around, glance.slots, around.turning.by([glance.shift]))

    def read(self, layer: int, queries: Tensor) -> Read:
        """As `Together.read`."""
        out, logs = self._part.read(layer, queries[self.tokens])
        return out.transpose(0, 1), logs.transpose(0, 1)


class Decodes:
    """Rows of one token each."""

    def __init__(self, rows: list[Row], around: Surroundings) -> None:
        """Glances share a reader when their lengths in pages round up to the same power of two."""
        self._readers: list[Together | InPlace] = []
        short: dict[int, list[Glance]] = defaultdict(list)
        for glance in (glance for row in rows for glance in glances(row, around.kv)):
            if len(glance.slots) >= IN_PLACE_TOKENS and len(runs(glance.slots)) == 1:
                self._readers.append(InPlace(glance, around))
            else:
                short[(-(-len(glance.slots) // around.kv.page_tokens) - 1).bit_length()].append(glance)
        self._readers += [Together(some, around) for some in short.values()]
        self._tokens, self._places = _places(torch.cat([reader.tokens for reader in self._readers]))

    def read(self, layer: int, queries: Tensor, out: Tensor, sinks: Tensor | None) -> None:
        reads = [reader.read(layer, queries) for reader in self._readers]
        found, logs = (torch.cat(some) for some in zip(*reads, strict=True))
        if len(self._places) > 1:
            found = torch.cat((found, torch.zeros_like(found[:1])))
            logs = torch.cat((logs, torch.full_like(logs[:1], -torch.inf)))
        out[self._tokens] = merge([(found[places], logs[places]) for places in self._places], sinks)


def _places(tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Each of `tokens` once, and where in `tokens` it stands for the first time, the second, …; `len(tokens)` for one
    that does not."""
    once, counts = torch.unique(tokens, return_counts=True)
    order = torch.argsort(tokens, stable=True)
    starts = counts.cumsum(0) - counts
    times = [torch.where(time < counts, starts + time, len(tokens)) for time in range(int(counts.max()))]
    ends = torch.cat((order, torch.tensor([len(tokens)])))
    return once, [ends[time] for time in times]


class PagedAttention:
    """The attention of one step: planned once, then used by every layer."""

    def __init__(self, batch: Batch, kv: PagedKv, dtype: torch.dtype, sights: Sequence[Sight]) -> None:
        """`sights`: how each layer reads; those with the same window share the rest."""
        self._kv, self._sights = kv, sights
        self._slots = torch.from_numpy(batch.slots.astype(np.int64))
        self._readers = {window: self._plan(batch, dtype, sight)
                         for window, sight in {sight.window: sight for sight in sights}.items()}

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Rows of one step may read what others of it write: all is written before any is read."""
        self._kv.write(layer, self._slots, keys, values)
        out, sight = torch.empty_like(queries, memory_format=torch.contiguous_format), self._sights[layer]
        for reader in self._readers[sight.window]:
            reader.read(layer, queries, out, sight.sinks)
        return out.view(len(out), -1)

    def _plan(self, batch: Batch, dtype: torch.dtype, sight: Sight) -> list[Readers]:
        around = Surroundings(self._kv, Turning(sight.frequencies), scoring(sight.cap), dtype)
        rows = [Row(batch, number, self._kv.page_tokens, sight.window) for number in range(len(batch.row_starts) - 1)]
        readers: list[Readers] = [Chunk(row, around) for row in rows if row.count > 1]
        decodes = [row for row in rows if row.count == 1]
        return [*readers, Decodes(decodes, around)] if decodes else readers
