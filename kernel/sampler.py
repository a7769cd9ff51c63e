"""How a token is drawn from what a row says: what a program may ask, what of it is checked, what the device is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cadenza.kernel.device.batch import Float32, Int32
from cadenza.kernel.limits import BIAS_MOST, PENALTY_MOST, SAMPLER_BIASES
from cadenza.kvfs.errors import Invalid, LimitExceeded

if TYPE_CHECKING:
    from cadenza.kvfs.file import File

LARGEST_INT32 = 2**31 - 1


class Bias(NamedTuple):
    """Added to the logits of tokens, each named once."""

    tokens: Int32
    values: Float32


class Penalties(NamedTuple):
    """Of the last `window` tokens that a row sees, or of all: see device/penalties.py. 1, 0 and 0 are off."""

    repetition: float = 1.0
    frequency: float = 0.0
    presence: float = 0.0
    window: int = 0


class Sampler(NamedTuple):
    """temperature 0 is greedy; top_k 0, top_p 1 and min_p 0 are off. No penalties where they are off."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    bias: Bias | None = None
    penalties: Penalties | None = None

    def told(self, before: int) -> int:
        """How many tokens the device is told, at most, when a row sees `before`, its own included."""
        biased = 0 if self.bias is None else len(self.bias.tokens)
        return biased if self.penalties is None else biased + min(self.penalties.window or before, before)


def tokens_told(before: int, samples: Sequence[tuple[int, Sampler]]) -> int:
    """By the samples of a pass that reads so many tokens before its own."""
    return sum(sampler.told(before + row + 1) for row, sampler in samples)


class Past:
    """The tokens that passes read, as far as they stand in files now: all of them known."""

    def __init__(self, reads: Sequence[File], file: File) -> None:
        offsets, tokens, first = [], [], 0
        for each in (*reads, file):
            for segment in each.segments():
                offsets.append(np.arange(first + segment.first, first + segment.first + segment.length))
                tokens.append(each.tokens(segment.first, segment.length))
            first += len(each)
        self.end = first
        self._offsets, self._tokens = np.concatenate(offsets), np.concatenate(tokens)

    def seen(self, offset: int, window: int, ranges: Int32 | None = None) -> Int32:
        """The last `window` tokens, or all, up to that offset, and in one of `ranges` ([·, 3]: row, first, count) if
        there are any."""
        seen = self._offsets <= offset
        if ranges is not None and len(ranges):
            named = [(self._offsets >= first) & (self._offsets < first + count) for _, first, count in ranges.tolist()]
            seen &= np.any(named, axis=0)
        return self._tokens[seen][-window:] if window else self._tokens[seen]


def check_sampler(sampler: Sampler, vocabulary_size: int) -> None:
    """Raises Invalid or LimitExceeded naming the field."""
    bounds = [("temperature", sampler.temperature, 0.0, 1e4), ("top_p", sampler.top_p, 0.0, 1.0),
              ("min_p", sampler.min_p, 0.0, 1.0)]
    if sampler.penalties is not None:
        repetition, frequency, presence, _ = sampler.penalties
        bounds += [("penalties.repetition", repetition, 1 / PENALTY_MOST, PENALTY_MOST),
                   ("penalties.frequency", frequency, -PENALTY_MOST, PENALTY_MOST),
                   ("penalties.presence", presence, -PENALTY_MOST, PENALTY_MOST)]
    for name, value, low, high in bounds:
        if not (math.isfinite(value) and low <= value <= high):
            raise Invalid(f"{name} is {value}; it must be a number from {low:g} to {high:g}", name)
    if not 0 <= sampler.top_k <= LARGEST_INT32:
        raise Invalid(f"top_k is {sampler.top_k}; it must be from 0 (off) to {LARGEST_INT32}", "top_k")
    if sampler.top_p == 0.0:
        raise Invalid("top_p is 0, which leaves no token; 1 turns it off", "top_p")
    if sampler.bias is not None:
        _check_bias(sampler.bias, vocabulary_size)


def _check_bias(bias: Bias, vocabulary_size: int) -> None:
    tokens, values = bias
    if len(tokens) > SAMPLER_BIASES:
        raise LimitExceeded(f"a sampler has at most {SAMPLER_BIASES} biases, not {len(tokens)}: a mask takes any "
                            "number of tokens", "sampler_biases")
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary_size:
        raise Invalid(f"bias names a token outside the vocabulary of {vocabulary_size}", "bias")
    if len(np.unique(tokens)) < len(tokens):
        raise Invalid("bias names a token twice: give one value for each", "bias")
    if not bool((np.abs(values) <= BIAS_MOST).all()):
        raise Invalid(f"a bias is a number from {-BIAS_MOST:g} to {BIAS_MOST:g}; a mask rules tokens out", "bias")
