"""Paged attention by definition, in float64, behind the seam of flashinfer's kernels; and a device that computes on it
without a GPU."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.flashinfer.decodes import Capture, as_it_is
from cadenza.kernel.device.flashinfer.device import FlashInferDevice, Hardware
from cadenza.kernel.device.flashinfer.planned_attention import Found
from cadenza.kernel.device.flashinfer.reading import Reading
from cadenza.kernel.model.config import ModelConfig

from .dense import CONFIG, SEED


class ReferenceReader:
    """Interprets a plan, a request at a time."""

    def __init__(self, requests: int | None = None) -> None:
        self._requests = requests
        self.reading: Reading | None = None

    def plan(self, reading: Reading, cap: float) -> None:
        if self._requests is not None:
            assert len(reading.lengths) == self._requests, "a fixed reader is always asked for as many"
            assert reading.mask is None
            np.testing.assert_array_equal(np.diff(reading.query_starts), 1)
        assert reading.query_starts[-1] == len(reading.queries), "every query is in one request"
        assert (reading.lengths > 0).all(), "a request reads something"
        assert reading.mask is None or not (reading.causal or reading.window), "flashinfer takes a mask for all"
        self.reading, self._cap = reading, cap

    def read(self, queries: Tensor, keys: Tensor, values: Tensor) -> Found:
        plan = self.reading
        assert plan is not None
        assert len(queries) == len(plan.queries)
        assert keys.shape[1] == plan.page_tokens
        out, logs, mask_at = torch.zeros_like(queries), torch.zeros(queries.shape[:2]), 0
        for number, length in enumerate(plan.lengths.tolist()):
            mine = slice(*plan.query_starts[number : number + 2].tolist())
            pages = torch.from_numpy(plan.pages[slice(*plan.page_starts[number : number + 2])].astype(np.int64))
            count = mine.stop - mine.start
            seen = torch.ones(count, length, dtype=torch.bool)
            apart = torch.arange(length - count, length)[:, None] - torch.arange(length)
            if plan.causal:
                seen &= apart >= 0
            if plan.window:
                seen &= apart < plan.window
            if plan.mask is not None:
                seen = torch.from_numpy(plan.mask[mask_at : mask_at + count * length]).view(count, length)
                mask_at += count * length
            assert seen.any(1).all(), "no kernel is asked what it answers for nothing"
            read = [x[pages].flatten(0, 1)[:length] for x in (keys, values)]
            out[mine], logs[mine] = self._attend(queries[mine], *read, seen)
        return out, logs

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Found:
        group = queries.shape[1] // keys.shape[1]
        keys, values = (x.repeat_interleave(group, 1).double() for x in (keys, values))
        scores = torch.einsum("ihd,jhd->ihj", queries.double(), keys) / queries.shape[2] ** 0.5
        scores = self._cap * torch.tanh(scores / self._cap) if self._cap else scores
        scores = scores.masked_fill(~seen[:, None], -torch.inf)
        out = torch.einsum("ihj,jhd->ihd", scores.softmax(-1), values)
        return out.to(queries.dtype), (scores.logsumexp(-1) / math.log(2.0)).float()


class ReferenceKernels:
    """Remembers its readers, so that a test sees what was planned."""

    def __init__(self, config: ModelConfig) -> None:
        self.readers: list[ReferenceReader] = []
        self.merges = 0

    def reader(self, number: int) -> ReferenceReader:
        self.readers += [ReferenceReader() for _ in range(number + 1 - len(self.readers))]
        return self.readers[number]

    def fixed_reader(self, requests: int, most_pages: int) -> ReferenceReader:
        return ReferenceReader(requests)

    def merge(self, one: Found, other: Found) -> Found:
        """As flashinfer's: logarithms to base 2, none of them infinite."""
        self.merges += 1
        logs = torch.stack((one[1], other[1]))
        assert torch.isfinite(logs).all()
        weights = torch.exp2(logs - logs.amax(0))
        out = (torch.stack((one[0], other[0])) * weights[..., None]).sum(0) / weights.sum(0)[..., None]
        return out, torch.logaddexp2(one[1], other[1])


def flash_device(pages: int = 128, page_tokens: int = 4, config: ModelConfig = CONFIG, *, padding: bool = False,
                 cascade_bytes: int = 1 << 30) -> FlashInferDevice:  # fmt: skip
    """With the dense reference's weights. `padding`: decodes are padded as for graphs, and nothing is captured."""
    return FlashInferDevice.random(config, pages=pages, page_tokens=page_tokens, seed=SEED,
                                   hardware=reference_hardware(as_it_is if padding else None, cascade_bytes))


def reference_hardware(capture: Capture | None = None, cascade_bytes: int = 1 << 30) -> Hardware:
    return Hardware(torch.device("cpu"), "float32", "reference", ReferenceKernels, capture, cascade_bytes,
                    cascade_bytes)  # fmt: skip
