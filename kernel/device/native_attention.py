"""The attention of a step by the compiled kernels: pages are read where they lie, whatever a row reads of them.

Everything that row.py says is told as it stands in the batch: windows, ranges, segments with skips and shifts; a kernel
decides who sees what, a tile of tokens at a time. So nothing is planned for a row unless it names ranges or shifts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Batch, Float32, Int32, Int64, UInt8
from cadenza.kernel.device.paged_kv import PagedKv
from cadenza.kernel.device.row import Row
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Sight
from cadenza.kernel.model.native import NativeOperations
from cadenza.kernel.model.rope import rotation
from cadenza.kernel.native.library_unsafe import BFLOAT16, FLOAT32, Kernels, Reading

# What layers with the same window are told of a step, by window. The places stay: what was recorded reads them there.
Readings = dict[int, tuple[Sight, Reading]]
NO_ANGLES = np.zeros(0, np.float32)
NO_NAMES = np.zeros(0, np.uint8)


class NativeAttention:
    """See `Attention`. What it answers is valid until the next layer's call."""

    def __init__(
        self, batch: Batch, kv: PagedKv, config: ModelConfig, sights: Sequence[Sight], operations: NativeOperations,
        readings: Readings,
    ) -> None:  # fmt: skip
        """`sights`: how each layer reads. `readings`: what `readings_of` them made, told anew in each step."""
        self._kv, self._sights, self._tokens = kv, sights, len(batch.tokens)
        self._width, self._scratch = config.heads * config.head_dim, operations.scratch
        self._kernel = operations.kernels.attention
        group = config.queries_per_kv_head
        block = operations.kernels.most_queries // group
        rows, firsts = _items(batch.row_starts, block)
        named_starts, named = _named(batch, kv.page_tokens)
        kind = BFLOAT16 if kv.dtype == torch.bfloat16 else FLOAT32
        sizes = (len(batch.row_starts) - 1, len(rows), kv.page_tokens, len(kv.positions), config.kv_heads, group,
                 config.head_dim, kind)  # fmt: skip
        arrays = (rows, firsts, batch.positions, batch.slots, batch.row_starts, batch.segment_starts,
                  batch.segment_tokens, batch.segment_firsts, batch.segment_skips, batch.segment_shifts,
                  batch.page_starts, batch.pages)  # fmt: skip
        self.items = len(rows)           # a step of as many tokens and items makes the kernel do as much
        self._readings = readings
        for window, (sight, reading) in readings.items():
            turns, angles = _turns(batch.segment_shifts, sight.frequencies)
            reading.tell((*sizes, window, len(sight.frequencies)), (*arrays, turns), kv.positions, angles, named_starts,
                         named, block, sight.cap)  # fmt: skip

    @staticmethod
    def serves(config: ModelConfig, kernels: Kernels) -> bool:
        """Whether heads of that shape fit what the kernel holds at once."""
        return config.queries_per_kv_head <= kernels.most_queries and config.head_dim <= kernels.most_head_dim

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Rows of one step may read what others of it write: all is written before any is read."""
        sight, pitch = self._sights[layer], queries.stride(0)
        assert keys.stride(0) == values.stride(0) == pitch, "queries, keys and values lie side by side"
        out = self._scratch("attended", self._tokens, self._width)
        self._kernel(self._readings[sight.window][1].place, self._tokens, queries.data_ptr(), keys.data_ptr(),
                     values.data_ptr(), pitch, 0 if sight.sinks is None else sight.sinks.data_ptr(),
                     *self._kv.addresses[layer], out.data_ptr())  # fmt: skip
        return out


def readings_of(sights: Sequence[Sight]) -> Readings:
    """Those with the same window share the rest."""
    return {sight.window: (sight, Reading()) for sight in sights}


def _items(row_starts: Int32, block: int) -> tuple[Int32, Int32]:
    """Rows cut into blocks of so many tokens: the row of each, and the first of its tokens in the row."""
    counts = np.diff(row_starts)
    if counts.max() <= block:
        return np.arange(len(counts), dtype=np.int32), np.zeros(len(counts), np.int32)
    blocks = -(-counts // block)
    rows = np.repeat(np.arange(len(counts), dtype=np.int32), blocks)
    numbers = np.arange(len(rows)) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    return rows, (numbers * block).astype(np.int32)


def _turns(shifts: Int32, frequencies: Tensor) -> tuple[Int32, Float32]:
    """Which angles the queries of each segment are turned back by, −1 for none; cosines and sines [·, 2, half]."""
    if not shifts.any():
        return np.full(len(shifts), -1, np.int32), NO_ANGLES
    some, turns = np.unique(shifts, return_inverse=True)
    angles = rotation(frequencies.double(), -torch.from_numpy(some), torch.float32)
    return (np.where(shifts == 0, -1, turns).astype(np.int32),
            torch.cat((angles.cosine, angles.sine), 1).contiguous().numpy())


def _named(batch: Batch, page_tokens: int) -> tuple[Int64, UInt8]:
    """For each row where its part of the second begins, −1 without ranges: which offsets lie in a range of each token,
    [tokens, offsets]; all of them for a token without one."""
    starts = np.full(len(batch.row_starts) - 1, -1, np.int64)
    if not len(batch.visible_ranges):
        return starts, NO_NAMES
    made: list[UInt8] = []
    for number in np.flatnonzero(np.diff(batch.visible_starts)).tolist():
        starts[number] = sum(len(some) for some in made)
        row = Row(batch, number, page_tokens)
        made.append(row.named(np.arange(row.length)).view(np.uint8).ravel())
    return starts, np.concatenate(made)
