"""Steps of decodes alone, padded to few sizes, so that each is one CUDA graph: captured once, replayed by one launch.

Of `size` rows the first are the batch's. The rest are padding: they embed token 0, and read and write the pool's spare
page and nothing else. All that changes from step to step lies at fixed places: inputs here, page tables in the readers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Batch
from cadenza.kernel.device.flashinfer.planned_attention import Kernels, Parts, PlannedAttention
from cadenza.kernel.device.flashinfer.pool import Pool
from cadenza.kernel.device.flashinfer.reading import Reading, padded, starts
from cadenza.kernel.model.decoder import Attention, Sight

SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256)
MOST_PAGE_REFERENCES = 1 << 22           # of one step; one with more goes without a graph

Compute = Callable[[], Tensor]
# Runs what computes into a tensor, and gives what computes into the same one again.
Capture = Callable[[Compute], Compute]


class Forward(Protocol):
    """The decoder, lanes looked up: inputs [T] → hidden states [T, hidden]."""

    def __call__(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor: ...


def as_it_is(compute: Compute) -> Compute:
    """Where there are no graphs."""
    return compute


class GraphCapture:
    """CUDA graphs that share their memory: only one of them runs at a time."""

    def __init__(self) -> None:
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, compute: Compute) -> Compute:
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            compute()                    # libraries make their workspaces at the first call, which no graph may
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            made = compute()

        def replay() -> Tensor:
            graph.replay()
            return made

        return replay


class PaddedDecodes:
    """Steps of up to `size` rows."""

    def __init__(self, size: int, forward: Forward, pool: Pool, kernels: Kernels, sights: Sequence[Sight],
                 context_tokens: int, device: torch.device, capture: Capture) -> None:  # fmt: skip
        self.size, self._pool, self._device = size, pool, device
        self._most_pages = min(size * -(-context_tokens // pool.page_tokens), MOST_PAGE_REFERENCES)
        self._inputs = torch.zeros(3, size, dtype=torch.int64, device=device)     # tokens, positions, slots
        by_window = {sight.window: sight for sight in sights}
        self._caps = {window: sight.cap for window, sight in by_window.items()}
        self._readers = {window: kernels.fixed_reader(size, self._most_pages) for window in by_window}
        parts = {window: Parts([self._padding(window)], [self._readers[window]], sight, size, kernels, device)
                 for window, sight in by_window.items()}  # fmt: skip
        attention = PlannedAttention(pool, self._inputs[2], sights, parts)
        self._fill(np.zeros((3, 0), np.int64))
        self._compute = capture(lambda: forward(self._inputs[0], self._inputs[1], attention))

    def holds(self, rows: int, page_references: int) -> bool:
        """Whether so many, and the padding that they need, have room here."""
        return rows <= self.size and page_references + self.size - rows <= self._most_pages

    def forward(self, batch: Batch, readings: Mapping[int, Reading]) -> Tensor:
        """Hidden states [T, hidden] of a batch of decodes, and their keys and values in the pool. `readings` by window:
        one of pages each. The next call overwrites them."""
        self._fill(np.stack((batch.tokens, batch.positions, batch.slots)).astype(np.int64))
        for window, reading in readings.items():
            self._readers[window].plan(padded(reading, self.size, self._pool.spare_page), self._caps[window])
        return self._compute()[: len(batch.tokens)]

    def _fill(self, inputs: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> None:
        """Padding goes to one slot after the other of the spare page, round and round."""
        filled = np.zeros((3, self.size), np.int64)
        page_tokens = self._pool.page_tokens
        filled[2] = self._pool.spare_page * page_tokens + np.arange(self.size) % page_tokens
        filled[:, : inputs.shape[1]] = inputs
        self._inputs.copy_(torch.from_numpy(filled))

    def _padding(self, window: int) -> Reading:
        """Of nothing else."""
        none = np.zeros(0, np.int32)
        return padded(Reading(none, starts(none), self._pool.page_tokens, starts(none), none, none, True, window),
                      self.size, self._pool.spare_page)  # fmt: skip
