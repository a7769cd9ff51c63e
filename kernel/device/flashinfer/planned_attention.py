"""The attention of one step, over readings: each answered by one call of a kernel, then merged.

    out = Σ 2^(log_i − log) · out_i      log = log2 Σ 2^(log_i)       of the readings i in which a token is a query

Logarithms of the sums of weights are base 2 here, as kernels make them; ours are natural elsewhere, sinks for one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Int64
from cadenza.kernel.device.flashinfer.pool import Pool
from cadenza.kernel.device.flashinfer.reading import Reading
from cadenza.kernel.device.row import Bool
from cadenza.kernel.model.decoder import Sight
from cadenza.kernel.model.rope import Rotation, rotate, rotation

NOTHING = -1e30                          # the logarithm of no weight, finite, so that two of them merge to zero

Found = tuple[Tensor, Tensor]            # what is read [N, heads, head dim], logarithms to base 2 [N, heads]


class Reader(Protocol):
    """A kernel with room for one plan at a time."""

    def plan(self, reading: Reading, cap: float) -> None:
        """For all `read` until the next. `cap` of scores, 0 for none."""

    def read(self, queries: Tensor, keys: Tensor, values: Tensor) -> Found:
        """`queries` [N, heads, head dim]; `keys` and `values` [pages, page_tokens, kv heads, head dim], in pages of the
        reading's."""


class Kernels(Protocol):
    """Paged attention of one model on one device. Readers are made once and kept."""

    def reader(self, number: int) -> Reader:
        """The one of that number: those of one step have different ones."""

    def fixed_reader(self, requests: int, most_pages: int) -> Reader:
        """A new one, for so many requests of one query: what `read` launches may be replayed after another plan."""

    def merge(self, one: Found, other: Found) -> Found:
        """Of the same queries."""


def natural(logs: Tensor) -> Tensor:
    """Logarithms to base 2 as natural ones."""
    return logs * math.log(2.0)


def beside_sinks(out: Tensor, logs: Tensor, sinks: Tensor) -> Tensor:
    """`out` [N, heads, head dim] with `sinks` [heads] in the sums of weights, whose base-2 `logs` are without."""
    return out * torch.sigmoid(natural(logs) - sinks)[..., None].to(out.dtype)


class Round(NamedTuple):
    """Some queries of a reading, each another token: where they stand, None for all in order, and their tokens.
    `fresh`: nothing has been read for them before."""

    places: Tensor | None
    tokens: Tensor
    fresh: bool


class Part:
    """One reading, planned."""

    def __init__(self, reading: Reading, reader: Reader, sight: Sight, touched: Bool, device: torch.device) -> None:
        """`touched` [tokens]: what parts before this one read for, and from now on this one."""
        self._reader, self._page_tokens = reader, reading.page_tokens
        reader.plan(reading, sight.cap)
        self.whole = np.array_equal(reading.queries, np.arange(len(touched)))
        self._queries = None if self.whole else _on(reading.queries.astype(np.int64), device)
        self._turn = _turn(reading, sight, device)
        self._rounds: list[Round] = []
        for places in reading.rounds():
            tokens = reading.queries[places].astype(np.int64)
            every = len(places) == len(reading.queries)
            self._rounds.append(Round(None if every else _on(places, device), _on(tokens, device),
                                      not touched[tokens].any()))
            touched[tokens] = True

    def read(self, layer: int, queries: Tensor, pool: Pool) -> Found:
        """Of the reading's queries out of all `queries` [T, heads, head dim]."""
        mine = queries if self._queries is None else queries.index_select(0, self._queries)
        if self._turn is not None:
            mine = rotate(mine.float(), self._turn).to(mine.dtype)
        return self._reader.read(mine, *pool.keys_values(layer, self._page_tokens))

    def add(self, found: Found, so_far: Found, kernels: Kernels) -> None:
        """What this part `found` to what its tokens have read `so_far`, [T, …]."""
        out, logs = so_far
        for places, tokens, fresh in self._rounds:
            some = found if places is None else (found[0].index_select(0, places), found[1].index_select(0, places))
            if not fresh:
                some = kernels.merge((out.index_select(0, tokens), logs.index_select(0, tokens)), some)
            out.index_copy_(0, tokens, some[0])
            logs.index_copy_(0, tokens, some[1])


class Parts:
    """All that tokens read in layers of one window."""

    def __init__(self, readings: Sequence[Reading], readers: Sequence[Reader], sight: Sight, tokens: int,
                 kernels: Kernels, device: torch.device) -> None:  # fmt: skip
        touched = np.zeros(tokens, np.bool_)
        self._kernels = kernels
        self._parts = [Part(reading, reader, sight, touched, device)
                       for reading, reader in zip(readings, readers, strict=True)]  # fmt: skip

    def read(self, layer: int, queries: Tensor, pool: Pool, sinks: Tensor | None) -> Tensor:
        """`queries` [T, heads, head dim]; the same shape."""
        out, logs = self._merged(layer, queries, pool)
        return out if sinks is None else beside_sinks(out, logs, sinks)

    def _merged(self, layer: int, queries: Tensor, pool: Pool) -> Found:
        if len(self._parts) == 1 and self._parts[0].whole:
            return self._parts[0].read(layer, queries, pool)
        so_far = (torch.zeros_like(queries, memory_format=torch.contiguous_format),
                  torch.full(queries.shape[:2], NOTHING, dtype=torch.float32, device=queries.device))  # fmt: skip
        for part in self._parts:
            part.add(part.read(layer, queries, pool), so_far, self._kernels)
        return so_far


class PlannedAttention:
    """The `Attention` of a step: `parts` by window."""

    def __init__(self, pool: Pool, slots: Tensor, sights: Sequence[Sight], parts: Mapping[int, Parts]) -> None:
        """`slots` [T] int64, where new keys and values go."""
        self._pool, self._slots, self._sights, self._parts = pool, slots, sights, parts

    def __call__(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Rows of one step may read what others of it write: all is written before any is read."""
        self._pool.write(layer, self._slots, keys, values)
        sight = self._sights[layer]
        return self._parts[sight.window].read(layer, queries, self._pool, sight.sinks).flatten(1)


def _turn(reading: Reading, sight: Sight, device: torch.device) -> Rotation | None:
    """Queries are turned back where keys are read further on, in float32."""
    if reading.shifts is None:
        return None
    back = -_on(reading.shifts.astype(np.int64), device)
    return Rotation(*(x.float() for x in rotation(sight.frequencies.to(device).double(), back, torch.float64)))


def _on(numbers: Int64, device: torch.device) -> Tensor:
    return torch.from_numpy(numbers).to(device)
