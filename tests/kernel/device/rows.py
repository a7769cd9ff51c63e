"""Batches of rows of one token each, as decodes are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cadenza.kernel.device.batch import Batch


def decodes(step: int, tokens: Sequence[int], lanes: Sequence[int], position: int = 0, seed: int = 0) -> Batch:
    """Row r appends tokens[r] at `position`, samples once, and lane lanes[r] remembers it. Greedy without a seed."""
    rows = len(tokens)
    each = np.arange(rows + 1, dtype=np.int32)
    return Batch(
        step,
        tokens=np.array(tokens, np.int32),
        positions=np.full(rows, position, np.int32),
        slots=each[:-1],
        row_starts=each,
        segment_starts=each,
        segment_tokens=np.full(rows, position + 1, np.int32),
        segment_firsts=np.zeros(rows, np.int32),
        segment_skips=np.zeros(rows, np.int32),
        segment_shifts=np.zeros(rows, np.int32),
        page_starts=each,
        pages=each[:-1],
        contiguous=np.ones(rows, np.uint8),
        visible_starts=np.zeros(rows + 1, np.int32),
        sample_tokens=each[:-1],
        sample_lanes=np.array(lanes, np.int32),
        temperature=np.full(rows, 1.0 if seed else 0.0, np.float32),
        top_k=np.zeros(rows, np.int32),
        top_p=np.ones(rows, np.float32),
        min_p=np.zeros(rows, np.float32),
        seeds=np.full(rows, seed, np.uint64),
        draws=np.full(rows, position, np.int64),
        sample_masks=np.full(rows, -1, np.int32),
    )
