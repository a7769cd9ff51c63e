"""What probes tell of a position: always of the raw logits, before temperature and mask, or of what they come from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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

Float64 = NDArray[np.float64]

NO_IDS = np.zeros(0, np.int32)


def log_probabilities(logits: Float32) -> Float64:
    """log softmax of `logits` [V]."""
    shifted = logits.astype(np.float64) - float(logits.max())
    whole: Float64 = shifted - np.log(np.exp(shifted).sum())
    return whole


def top(logits: Float32, count: int) -> tuple[Float32, Int32]:
    """Log-probabilities of the `count` most likely tokens, then the mass of all others; and their ids.

    Falling; equals in the order of their ids. At most V of them.
    """
    count = min(count, len(logits))
    least = np.partition(logits, -count)[-count] if count else np.inf
    candidates = np.flatnonzero(logits >= least)
    ids = candidates[np.argsort(-logits[candidates], kind="stable")][:count]
    chosen = log_probabilities(logits)[ids]
    tail = max(0.0, 1.0 - float(np.exp(chosen).sum()))
    return np.append(chosen, tail).astype(np.float32), ids.astype(np.int32)


def entropy(logits: Float32) -> float:
    """In nats."""
    logarithms = log_probabilities(logits)
    return float(-(np.exp(logarithms) * logarithms).sum())


def probe(batch: Batch, logits: Float32, hidden: Float32, rows: Int64, result: StepResult) -> None:
    """Writes the batch's probes into `result`. `logits` [·, V], of those that look at `hidden` [·, hidden]; `rows` [Q]:
    which of either each probe sees."""
    seen = [hidden if kind == PROBE_HIDDEN else logits for kind in batch.probe_kinds.tolist()]
    answers = [_answer(batch, number, seen[number][row]) for number, row in enumerate(rows.tolist())]
    values, ids = [values for values, _ in answers], [ids for _, ids in answers]
    result.probe_values = np.concatenate(values) if values else result.probe_values
    result.probe_ids = np.concatenate(ids) if ids else result.probe_ids
    result.probe_starts = _starts(values)
    result.id_starts = _starts(ids)


def _starts(parts: list[Float32] | list[Int32]) -> Int32:
    return np.cumsum([0, *map(len, parts)], dtype=np.int32)


def _answer(batch: Batch, number: int, logits: Float32) -> tuple[Float32, Int32]:
    kind = int(batch.probe_kinds[number])
    if kind == PROBE_TOP:
        return top(logits, int(batch.probe_counts[number]))
    if kind == PROBE_LOG_PROBABILITIES:
        asked = batch.asked[batch.asked_starts[number] : batch.asked_starts[number + 1]]
        return log_probabilities(logits)[asked].astype(np.float32), NO_IDS
    if kind == PROBE_ENTROPY:
        return np.array([entropy(logits)], np.float32), NO_IDS
    assert kind in (PROBE_LOGITS, PROBE_HIDDEN), kind
    return logits.copy(), NO_IDS
