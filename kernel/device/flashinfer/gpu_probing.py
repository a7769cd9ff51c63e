"""probing.py over the probes of a step, in torch, where the logits are: only what was asked for leaves the GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import (
    PROBE_ENTROPY,
    PROBE_HIDDEN,
    PROBE_LOG_PROBABILITIES,
    PROBE_LOGITS,
    PROBE_TOP,
    Batch,
    Float32,
    Int32,
    Int64,
    StepResult,
)
from cadenza.kernel.device.flashinfer.reading import starts
from cadenza.kernel.device.probing import NO_IDS


def probe(batch: Batch, logits: Tensor, hidden: Tensor, rows: Int64, result: StepResult) -> None:
    """Writes the batch's probes into `result`. `logits` float32 [·, V], of those that look at `hidden` [·, hidden];
    `rows` [Q]: which of either each probe sees."""
    if not len(rows):
        return
    seen = [hidden if kind == PROBE_HIDDEN else logits for kind in batch.probe_kinds.tolist()]
    answers = [_answer(batch, number, seen[number][row]) for number, row in enumerate(rows.tolist())]
    values, ids = zip(*answers, strict=True)
    result.probe_values, result.probe_ids = np.concatenate(values), np.concatenate(ids)
    result.probe_starts, result.id_starts = starts([len(x) for x in values]), starts([len(x) for x in ids])


def _answer(batch: Batch, number: int, logits: Tensor) -> tuple[Float32, Int32]:
    kind = int(batch.probe_kinds[number])
    if kind in (PROBE_LOGITS, PROBE_HIDDEN):
        return _host(logits), NO_IDS
    logarithms = torch.log_softmax(logits.double(), 0)
    if kind == PROBE_TOP:
        ids = torch.sort(logits, descending=True, stable=True).indices[: int(batch.probe_counts[number])]
        tail = (1.0 - logarithms[ids].exp().sum()).clamp(min=0.0)
        return _host(torch.cat((logarithms[ids], tail[None]))), ids.cpu().numpy().astype(np.int32)
    if kind == PROBE_LOG_PROBABILITIES:
        asked = batch.asked[batch.asked_starts[number] : batch.asked_starts[number + 1]]
        return _host(logarithms[torch.from_numpy(asked.astype(np.int64)).to(logits.device)]), NO_IDS
    assert kind == PROBE_ENTROPY, kind
    return _host(-(logarithms.exp() * logarithms).sum()[None]), NO_IDS


def _host(values: Tensor) -> Float32:
    numbers: Float32 = values.float().cpu().numpy()
    return numbers
