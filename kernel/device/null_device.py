"""The device that computes nothing: scripted tokens at a scripted cost, to test schedulers, limits and faults with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cadenza.kernel.device.batch import (
    PROBE_ENTROPY,
    PROBE_HIDDEN,
    PROBE_LOG_PROBABILITIES,
    PROBE_TOP,
    Batch,
    DeviceFacts,
    Float32,
    Int32,
    StepResult,
    UInt8,
    UInt64,
)
from cadenza.kernel.limits import LANES

HIDDEN_SIZE = 8


@dataclass(frozen=True, slots=True)
class CostModel:
    """What a step takes: a fixed part, one for each input token beyond `saturation_tokens`, and one for each token that
    a row reads. Each page moved takes its time too, beside the rest if `overlapped`: then the longer of the two counts.
    """

    fixed_ms: float = 0.0
    per_token_ms: float = 0.0
    per_context_token_ms: float = 0.0
    per_moved_page_ms: float = 0.0
    saturation_tokens: int = 0
    overlapped: bool = False

    def seconds(self, batch: Batch) -> float:
        context, tokens = int(batch.segment_tokens.sum()), max(0, len(batch.tokens) - self.saturation_tokens)
        computed = self.per_token_ms * tokens + self.per_context_token_ms * context
        if len(batch.row_starts) > 1:
            computed += self.fixed_ms
        moved = self.per_moved_page_ms * (len(batch.swap_outs) + len(batch.swap_ins))
        return (max(computed, moved) if self.overlapped else computed + moved) / 1000


@dataclass(frozen=True, slots=True)
class Draw:
    """What a script knows of a sample: the token that it follows, that one's position, and the sampler."""

    token: int
    position: int
    lane: int
    draw: int
    seed: int
    temperature: float


Script = Callable[[Draw], int]


class NullDevice:
    """Keeps the seam's promises without K and V: lanes remember, masks bind, probes have their shapes.

    Without a script a token follows from the token and position before it, and, above temperature 0, from the seed and
    the number of its draw; so outcomes do not depend on lanes, batches or timing. Probes and scores see equally likely
    tokens, and hidden states of zeros. Biases and penalties change nothing.
    `sleep`: a step takes the scripted time; else it only says so in `seconds`.
    """

    def __init__(
        self,
        *,
        pages: int = 4096,
        page_tokens: int = 16,
        vocabulary_size: int = 1024,
        context_tokens: int = 131_072,
        host_pages: int = 0,
        cost: CostModel | None = None,
        script: Script | None = None,
        sleep: bool = False,
    ) -> None:
        self.facts = DeviceFacts(
            name="null",
            pages=pages,
            page_tokens=page_tokens,
            page_bytes=0,
            vocabulary_size=vocabulary_size,
            context_tokens=context_tokens,
            host_pages=host_pages,
            hidden_size=HIDDEN_SIZE,
        )
        self._cost = cost or CostModel()
        self._script = script
        self._sleep = sleep
        self._lanes = np.zeros(LANES, np.int32)

    def attach(self, host: UInt8) -> None:
        """An image has no bytes."""

    def step(self, batch: Batch) -> StepResult:
        """Blocks for the scripted time only if asked to `sleep`."""
        tokens = np.where(batch.tokens < 0, self._lanes[np.maximum(-1 - batch.tokens, 0)], batch.tokens)
        sampled = self._sample(batch, tokens)
        remembered = batch.sample_lanes >= 0
        self._lanes[batch.sample_lanes[remembered]] = sampled[remembered]
        result = StepResult(batch.step, tokens=sampled, seconds=self._cost.seconds(batch))
        if len(batch.probe_kinds):
            self._probe(batch, result)
        result.scores = np.full(len(batch.score_tokens), -np.log(self.facts.vocabulary_size), np.float32)
        if self._sleep and result.seconds:
            time.sleep(result.seconds)
        return result

    def close(self) -> None:
        """Holds nothing."""

    def _sample(self, batch: Batch, tokens: Int32) -> Int32:
        last, positions = tokens[batch.sample_tokens], batch.positions[batch.sample_tokens]
        if self._script is None:
            sampled = _follow(batch, last, positions, self.facts.vocabulary_size)
        else:
            draws = zip(last.tolist(), positions.tolist(), batch.sample_lanes.tolist(), batch.draws.tolist(),
                        batch.seeds.tolist(), batch.temperature.tolist(), strict=True)  # fmt: skip
            sampled = np.array([self._script(Draw(*draw)) for draw in draws], np.int32)
        for n in np.flatnonzero(batch.sample_masks >= 0).tolist():
            allowed = np.unpackbits(batch.masks[batch.sample_masks[n]], bitorder="little")
            if not allowed[sampled[n]]:
                sampled[n] = allowed.argmax()
        return sampled

    def _probe(self, batch: Batch, result: StepResult) -> None:
        answers = [self._answer(batch, number) for number in range(len(batch.probe_kinds))]
        result.probe_values = np.concatenate([values for values, _ in answers])
        result.probe_ids = np.concatenate([ids for _, ids in answers])
        result.probe_starts = np.cumsum([0, *(len(values) for values, _ in answers)], dtype=np.int32)
        result.id_starts = np.cumsum([0, *(len(ids) for _, ids in answers)], dtype=np.int32)

    def _answer(self, batch: Batch, number: int) -> tuple[Float32, Int32]:
        size, kind, none = self.facts.vocabulary_size, batch.probe_kinds[number], np.zeros(0, np.int32)
        each = -np.log(np.float32(size))
        if kind == PROBE_TOP:
            count = min(int(batch.probe_counts[number]), size)
            values = np.full(count + 1, each, np.float32)
            values[count] = 1 - count / size
            return values, np.arange(count, dtype=np.int32)
        if kind == PROBE_LOG_PROBABILITIES:
            return np.full(batch.asked_starts[number + 1] - batch.asked_starts[number], each, np.float32), none
        if kind == PROBE_ENTROPY:
            return np.array([-each], np.float32), none
        return np.zeros(HIDDEN_SIZE if kind == PROBE_HIDDEN else size, np.float32), none


def _follow(batch: Batch, tokens: Int32, positions: Int32, vocabulary_size: int) -> Int32:
    """splitmix64 (Steele, Lea, Flood 2014) of what a sample depends on, into the vocabulary."""
    random = batch.temperature > 0
    mixed = _mix(tokens.astype(np.uint64) << np.uint64(32) | positions.astype(np.uint64))
    mixed = _mix(mixed + np.where(random, _mix(batch.seeds) + batch.draws.astype(np.uint64), np.uint64(0)))
    return (mixed % np.uint64(vocabulary_size)).astype(np.int32)


def _mix(numbers: UInt64) -> UInt64:
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
