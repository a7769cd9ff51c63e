"""From logits to a token. What is drawn depends on the logits, the sampler, its seed and its draw, on nothing else.

    bias → penalties → mask → top-k → top-p of what is left → min-p → softmax at the temperature → inverse of the
    distribution function

A filter keeps every logit from some least one on, so tokens that are equally likely stay or go together. The
distribution function runs over the kept tokens in the order of their ids: no sort is needed to draw, and a small
change of the logits changes few draws. The one uniform number is a hash of (seed, draw): no state is kept.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.device.batch import Batch, Float32, Int32, Int64, UInt8, UInt64
from cadenza.kernel.device.penalties import Histories, History

Float64 = NDArray[np.float64]

NUCLEUS_FIRST = 1024      # the most likely tokens, tried before all are sorted
SUM_BLOCK = 1024
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], 1, bitorder="little")
_HIDDEN = np.where(_BITS.view(np.bool_), np.float32(0), np.float32(-np.inf))          # [byte, bit]


def _mix(words: UInt64) -> UInt64:
    """The finaliser of SplitMix64 (Steele, Lea & Flood 2014, figure 17)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def uniforms(seeds: UInt64, draws: Int64) -> Float64:
    """One number of [0, 1) for each (seed, draw): element `draw` of the SplitMix64 stream that begins at mix(seed)."""
    counters = (draws.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    words = _mix(_mix(seeds) + counters)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def masked(logits: Float32, mask: UInt8) -> Float32:
    """`logits` [V], −∞ where `mask`, packed bits [⌈V/8⌉], does not allow. Something is allowed. What a byte hides is
    looked up and added: choosing bit by bit would cost ten times as much."""
    assert mask.any(), "a mask hides every token: the kernel refuses it before it comes here"
    return logits + _HIDDEN.take(mask, 0, mode="clip").reshape(-1)[: len(logits)]


def least_kept(logits: Float32, temperature: float, top_k: int, top_p: float, min_p: float) -> float:
    """The least logit that the filters keep; −∞ when all are off. The greatest is always kept."""
    least = -np.inf
    if 0 < top_k < len(logits):
        least = float(np.partition(logits, -top_k)[-top_k])
    if top_p < 1:
        left = logits if least == -np.inf else logits[logits >= least]
        least = _nucleus(left, temperature, top_p)
    if min_p > 0:
        greatest = float(logits.max())
        least = max(least, greatest + temperature * np.log(min(min_p, 1.0)))
    return least


def _weights(logits: Float32, greatest: float, temperature: float) -> Float32:
    """exp of (logit − greatest) / temperature: the greatest weighs 1."""
    with np.errstate(over="ignore", under="ignore"):
        weights: Float32 = np.exp((logits - np.float32(greatest)) / np.float32(temperature))
    return weights


def _running(weights: Float32) -> Float64:
    """Sums of all up to the end of each block. An array of all running sums would cost more than all else."""
    return np.add.reduceat(weights, np.arange(0, len(weights), SUM_BLOCK), dtype=np.float64).cumsum()


def _where_reached(weights: Float32, running: Float64, goal: float, side: Literal["left", "right"]) -> int:
    """The first index up to which `weights` sum to `goal` ("left") or to more ("right"); the last if none does."""
    block = min(int(running.searchsorted(goal, side)), len(running) - 1)
    inside = weights[block * SUM_BLOCK : (block + 1) * SUM_BLOCK]
    before = running[block - 1] if block else 0.0
    index = int((before + inside.cumsum(dtype=np.float64)).searchsorted(goal, side))
    return block * SUM_BLOCK + min(index, len(inside) - 1)


def _nucleus(logits: Float32, temperature: float, top_p: float) -> float:
    """The least of the fewest most likely logits that together reach `top_p` (Holtzman et al. 2020, section 3.1)."""
    greatest = float(logits.max())
    goal = top_p * float(_running(_weights(logits, greatest, temperature))[-1])
    for count in (NUCLEUS_FIRST, len(logits)):
        first = logits if count >= len(logits) else np.partition(logits, -count)[-count:]
        falling = -np.sort(-first)
        weights = _weights(falling, greatest, temperature)
        running = _running(weights)
        if running[-1] >= goal:
            break
    return float(falling[_where_reached(weights, running, goal, "left")])


def draw(
    logits: Float32, temperature: float, top_k: int, top_p: float, min_p: float, uniform: float
) -> int:
    """One token of finite (or, when masked, −∞) `logits` [V]. Temperature 0 takes the first of the greatest."""
    if temperature == 0:
        return int(logits.argmax())
    least = least_kept(logits, temperature, top_k, top_p, min_p)
    kept = np.flatnonzero(logits >= least) if least > -np.inf else None
    values = logits if kept is None else logits[kept]
    weights = _weights(values, float(values.max()), temperature)
    running = _running(weights)
    index = _where_reached(weights, running, uniform * float(running[-1]), "right")
    if weights[index] == 0:                      # rounding went past the last that weighs anything
        index = int(np.flatnonzero(weights[:index])[-1])
    return index if kept is None else int(kept[index])


def sample(batch: Batch, logits: Float32, rows: Int64, histories: Histories) -> Int32:
    """The batch's samples [N]. `logits` [·, V] and `rows` [N]: which of them each sample draws from.
    What lanes have forgotten is forgotten before."""
    changed = len(batch.sample_biases) or len(batch.penalties)
    if len(rows) and not changed and not batch.temperature.any():
        return _likeliest(batch, logits, rows)
    numbers = uniforms(batch.seeds, batch.draws)
    tokens = np.empty(len(rows), np.int32)
    for n, row in enumerate(rows.tolist()):
        history = histories.of(batch, n)
        tokens[n] = draw(
            _changed(batch, n, logits[row], history), float(batch.temperature[n]), int(batch.top_k[n]),
            float(batch.top_p[n]), float(batch.min_p[n]), float(numbers[n]),
        )
        if history is not None:
            history.append(int(tokens[n]))
    return tokens


def _likeliest(batch: Batch, logits: Float32, rows: Int64) -> Int32:
    """Of the tokens that masks allow."""
    if not len(batch.masks):
        likeliest: Int32 = logits.argmax(1)[rows].astype(np.int32)
        return likeliest
    return np.array([(logits[row] if mask < 0 else masked(logits[row], batch.masks[mask])).argmax()
                     for row, mask in zip(rows.tolist(), batch.sample_masks.tolist(), strict=True)], np.int32)


def _changed(batch: Batch, sample: int, logits: Float32, history: History | None) -> Float32:
    """`logits` [V] as that sample sees them."""
    bias = int(batch.sample_biases[sample]) if len(batch.sample_biases) else -1
    if bias >= 0 or history is not None:
        logits = logits.copy()
    if bias >= 0:
        named = slice(*batch.bias_starts[bias : bias + 2].tolist())
        logits[batch.bias_tokens[named]] += batch.bias_values[named]
    if history is not None:
        history.penalise(logits, *batch.penalties[sample].tolist())
    mask = int(batch.sample_masks[sample])
    return logits if mask < 0 else masked(logits, batch.masks[mask])
