"""From hidden states to what a batch asked for: samples, probes and scores. One way for all devices that compute.

    hidden ─▶ finite? ─▶ scores ─▶ head, where somebody looks ─▶ finite? ─▶ probes ─▶ late masks ─▶ samples

Numbers that are not finite fail the step, or, where adapters made them, their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import PROBE_HIDDEN, Batch, Float32, Int32, Int64, StepResult
from cadenza.kernel.device.penalties import Histories
from cadenza.kernel.model.decoder import Decoder
from cadenza.kernel.model.low_rank import NONE
from cadenza.kvfs.errors import Internal

NO_SLOTS = np.zeros(0, np.int32)


class Means(NamedTuple):
    """What a device answers with. `numbers`: logits and hidden states as `probe` and `sample` take them. `erase`: makes
    slots of its pool zero. `scored_rows`: whose logits are held at once, which bounds them."""

    decoder: Decoder
    device: torch.device
    numbers: Callable[[Tensor], Any]
    probe: Callable[[Batch, Any, Any, Int64, StepResult], None]
    sample: Callable[[Batch, Any, Int64, Histories], Int32]
    erase: Callable[[Tensor], None]
    scored_rows: int


class Answers:
    """Of one device. Remembers histories of lanes; who remembers their tokens is up to the device."""

    def __init__(self, means: Means) -> None:
        self._means, self._decoder = means, means.decoder
        self._histories = Histories()
        self._ask_for_masks: Callable[[], None] = lambda: None

    def ask_for_masks(self, ask: Callable[[], None]) -> None:
        """See `LateMasking`."""
        self._ask_for_masks = ask

    def forget(self, lanes: Int32) -> None:
        """They were given back."""
        self._histories.forget(lanes)

    def write(self, batch: Batch, hidden: Tensor, result: StepResult) -> None:
        """Into `result`, what the batch asks of its hidden states [T, hidden]. The head is computed only for tokens
        that a sampler or a probe looks at, once each, and for scores. Raises Internal."""
        slots = adapters_of_tokens(batch)
        self._spare(batch, hidden, None, result)
        if len(batch.score_tokens):
            result.scores = self._scores(batch, hidden, slots, result)
        if not len(batch.sample_tokens) and not len(batch.probe_tokens):
            return
        shown, samples, means = batch.probe_kinds == PROBE_HIDDEN, len(batch.sample_tokens), self._means
        asked = np.concatenate((batch.sample_tokens, batch.probe_tokens[~shown])) if len(shown) else batch.sample_tokens
        rows = np.arange(len(asked))
        if not _rising(asked):
            asked, rows = np.unique(asked, return_inverse=True)
        logits = means.numbers(self._logits(batch, hidden, asked, slots, result))
        if len(shown):
            seen = np.empty(len(shown), np.int64)
            seen[~shown], seen[shown] = rows[samples:], np.arange(shown.sum())
            states = self._decoder.normed(hidden[self.on(batch.probe_tokens[shown])])
            means.probe(batch, logits, means.numbers(states.float()), seen, result)
        if len(batch.late_masks):
            self._ask_for_masks()
        result.tokens = means.sample(batch, logits, rows[:samples], self._histories)

    def _logits(self, batch: Batch, hidden: Tensor, asked: Int32, slots: Int32, result: StepResult) -> Tensor:
        """float32 [N, V] of the tokens `asked` [N]."""
        if not len(asked):
            return hidden.new_zeros(0, 0)
        self._decoder.adapters.choose(slots[asked] if len(slots) else NO_SLOTS)
        every = len(asked) == len(hidden) and _rising(asked)
        logits = self._decoder.logits(hidden if every else hidden[self.on(asked)])
        self._spare(batch, logits, asked, result)
        return logits

    def _scores(self, batch: Batch, hidden: Tensor, slots: Int32, result: StepResult) -> Float32:
        scores = np.empty(len(batch.score_tokens), np.float32)
        for first in range(0, len(scores), self._means.scored_rows):
            block = slice(first, first + self._means.scored_rows)
            logits = self._logits(batch, hidden, batch.score_tokens[block], slots, result)
            targets = logits.gather(1, self.on(batch.score_targets[block])[:, None])[:, 0]
            scores[block] = (targets - logits.logsumexp(1)).cpu().numpy()
        return scores

    def _spare(self, batch: Batch, numbers: Tensor, tokens: Int32 | None, result: StepResult) -> None:
        """Where some of `numbers` [N, ·], those of `tokens` [N], or of all, are not finite: if adapters made them, only
        their rows fail, and their numbers are zero from now on; else the step does. Raises Internal."""
        if not numbers.numel() or _finite(numbers):
            return
        tokens = np.arange(len(numbers), dtype=np.int32) if tokens is None else tokens
        rows = rows_of_adapters(batch, tokens[(~torch.isfinite(numbers).all(1)).cpu().numpy()])
        if rows is None:
            self._means.erase(self.on(batch.slots))
            raise Internal(f"step {batch.step}: the model computed numbers that are not finite; are its weights "
                           "damaged?")
        theirs = np.isin(np.repeat(np.arange(len(batch.adapters)), np.diff(batch.row_starts)), rows)      # [T]
        self._means.erase(self.on(batch.slots[theirs]))
        numbers[torch.from_numpy(theirs[tokens]).to(numbers.device)] = 0.0
        result.failed_rows = np.union1d(result.failed_rows, rows).astype(np.int32)

    def on(self, numbers: Int32 | Int64) -> Tensor:
        """As int64, where the device computes."""
        return torch.from_numpy(numbers.astype(np.int64)).to(self._means.device)


def _finite(numbers: Tensor) -> bool:
    if numbers.device.type == "cpu" and numbers.dtype == torch.float32:
        values = numbers.numpy()                               # torch would wake its own threads for so small a thing
        return isfinite(values.max()) and isfinite(values.min())
    return bool(torch.isfinite(torch.stack(torch.aminmax(numbers))).all())


def _rising(numbers: Int32) -> bool:
    return bool((numbers[1:] > numbers[:-1]).all())


def adapters_of_tokens(batch: Batch) -> Int32:
    """Of each token the slot of its row's adapter, −1: none; nothing where all rows have none."""
    return np.repeat(batch.adapters, np.diff(batch.row_starts)) if len(batch.adapters) else NO_SLOTS


def rows_of_adapters(batch: Batch, broken: Int32) -> Int64 | None:
    """The rows of tokens `broken`, whose numbers are not finite; None if not adapters alone made them so."""
    rows: Int64 = np.unique(np.searchsorted(batch.row_starts, broken, side="right") - 1)
    return rows if len(batch.adapters) and not (batch.adapters[rows] == NONE).any() else None
