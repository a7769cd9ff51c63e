"""The device that computes on the CPU: with torch alone, the oracle that faster ones must agree with, or with compiled
kernels beneath it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.attention import PagedAttention
from cadenza.kernel.device.batch import PROBE_HIDDEN, Batch, DeviceFacts, Float32, Int32, Int64, StepResult, UInt8
from cadenza.kernel.device.native_attention import NativeAttention
from cadenza.kernel.device.paged_kv import PagedKv
from cadenza.kernel.device.penalties import Histories
from cadenza.kernel.device.probing import probe
from cadenza.kernel.device.sampling import sample
from cadenza.kernel.limits import LANES
from cadenza.kernel.model.adapter import check_shapes, read_adapter
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Attention, Decoder
from cadenza.kernel.model.low_rank import NONE, read_maps
from cadenza.kernel.model.native import NativeOperations
from cadenza.kernel.model.operations import Operations, TorchOperations, torch_dtype
from cadenza.kernel.model.weights import Progress, RandomWeights, StoredWeights, no_progress
from cadenza.kernel.native.library_unsafe import Kernels
from cadenza.kvfs.errors import Internal

NO_SLOTS = np.zeros(0, np.int32)
SCORED_ROWS = 64                         # whose logits are held at once: bounds them

# A model directory, or a configuration with tensors by their names in such a directory.
Model = Path | tuple[ModelConfig, Mapping[str, Tensor]]


class TorchDevice:
    """One model over one pool of pages. Steps one at a time; used from one thread."""

    def __init__(
        self,
        model: Model,
        *,
        pages: int,
        page_tokens: int = 16,
        dtype: str = "float32",
        threads: int | None = None,
        host_pages: int = 0,
        progress: Progress = no_progress,
        kernels: Kernels | None = None,
    ) -> None:
        """Reads the weights into `dtype` and makes the pages; blocks. `threads` holds for the whole OS process. Without
        `kernels`, or for heads that they do not take, torch computes everything.

        Raises what `ModelConfig.from_directory` and `StoredWeights` raise.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        config, weights = opened(model, progress)
        operations = _operations(dtype, config, kernels)
        with torch.inference_mode():
            self._decoder = Decoder(config, weights, operations)
            self._kv = PagedKv(config, pages, page_tokens, operations.held)
        self._operations = operations
        self._lanes = np.zeros(LANES, np.int32)                  # the last token sampled on each
        self._ask_for_masks: Callable[[], None] = lambda: None
        self._histories = Histories()
        self._closed = False
        self.facts = DeviceFacts(
            name=f"{_name(operations)} {dtype}, {torch.get_num_threads()} threads",
            pages=pages,
            page_tokens=page_tokens,
            page_bytes=self._kv.image_bytes,
            vocabulary_size=config.vocabulary_size,
            context_tokens=config.context_tokens,
            host_pages=host_pages,
            hidden_size=config.hidden,
        )
        self._host = torch.zeros(0, self.facts.page_bytes, dtype=torch.uint8)

    @classmethod
    def random(
        cls,
        config: ModelConfig,
        *,
        pages: int,
        page_tokens: int = 16,
        dtype: str = "float32",
        threads: int | None = None,
        host_pages: int = 0,
        seed: int = 0,
        kernels: Kernels | None = None,
    ) -> TorchDevice:
        """Of that shape, with random weights and no file: for benchmarks."""
        weights = RandomWeights(config, torch_dtype(dtype), seed)
        return cls((config, weights), pages=pages, page_tokens=page_tokens, dtype=dtype, threads=threads,
                   host_pages=host_pages, kernels=kernels)  # fmt: skip

    def attach(self, host: UInt8) -> None:
        """Names the memory of the host tier, [host_pages, page_bytes]. Once, before the first step that moves pages."""
        self._host = torch.from_numpy(host)

    def step(self, batch: Batch) -> StepResult:
        """Copies pages, computes, samples, probes. Raises Internal when the model's numbers are not finite.

        After a failed step the slots it wrote are zero and lanes are as before; the device goes on.
        """
        started = perf_counter()
        assert not self._closed, "a step after close"
        self.check(batch, self.facts, len(self._host))
        result = StepResult(batch.step)
        self._histories.forget(batch.forgotten)
        with torch.inference_mode():
            self._move(batch)
            if len(batch.tokens):
                slots = np.repeat(batch.adapters, np.diff(batch.row_starts)) if len(batch.adapters) else NO_SLOTS
                self._answer(batch, self._forward(batch, slots, result), slots, result)
        result.seconds = perf_counter() - started
        return result

    def close(self) -> None:
        """Gives the memory back. Idempotent."""
        self._closed = True
        self.__dict__.pop("_decoder", None)
        self.__dict__.pop("_kv", None)
        self.__dict__.pop("_operations", None)

    def __enter__(self) -> TorchDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _move(self, batch: Batch) -> None:
        """Runs of neighbouring host pages go together."""
        if len(batch.moves):
            self._kv.move(batch.moves)
        for page, host in _runs(batch.swap_outs, 1):
            self._kv.save(page, self._host[host[0] : host[-1] + 1])
        for host, page in _runs(batch.swap_ins, 0):
            self._kv.load(self._host[host[0] : host[-1] + 1], page)
        if len(batch.copies):
            self._kv.copy(batch.copies)

    def ask_for_masks(self, ask: Callable[[], None]) -> None:
        """See `LateMasking`."""
        self._ask_for_masks = ask

    def load_adapter(self, slot: int, directory: Path) -> None:
        """See `Adapting`."""
        adapter = read_adapter(directory)
        check_shapes(adapter, self._decoder.config)
        self._decoder.adapters.put(slot, read_maps(adapter, self._decoder.dtype))

    def drop_adapter(self, slot: int) -> None:
        """Idempotent."""
        self._decoder.adapters.drop(slot)

    def _forward(self, batch: Batch, slots: Int32, result: StepResult) -> Tensor:
        """Hidden states [T, hidden] of the batch's tokens; their K, V and positions are in the pages then. `slots`: the
        adapter of each token, or of none."""
        named = batch.tokens < 0
        tokens = np.where(named, self._lanes[np.where(named, -1 - batch.tokens, 0)], batch.tokens)
        self._kv.positions[batch.slots] = batch.positions
        self._decoder.adapters.choose(slots)
        hidden = self._decoder.forward(torch.from_numpy(tokens), torch.from_numpy(batch.positions),
                                       self._attention(batch))
        if not isfinite(hidden.sum()) and not torch.isfinite(hidden).all():       # a sum is cheap, but may overflow
            self._spare(batch, hidden, np.arange(len(tokens)), result)
        return hidden

    def _attention(self, batch: Batch) -> Attention:
        if isinstance(self._operations, NativeOperations):
            return NativeAttention(batch, self._kv, self._decoder.config, self._decoder.sights, self._operations)
        return PagedAttention(batch, self._kv, self._decoder.dtype, self._decoder.sights)

    def _spare(self, batch: Batch, numbers: Tensor, tokens: Int64, result: StepResult) -> None:
        """Some of `numbers` [N, ·], those of `tokens` [N], are not finite. Where an adapter made them, only its row
        fails, and its numbers are zero from now on; else the step does. Raises Internal."""
        broken = tokens[(~torch.isfinite(numbers).all(1)).numpy()]
        rows = rows_of_adapters(batch, broken)
        if rows is None:
            self._kv.erase(torch.from_numpy(batch.slots.astype(np.int64)))
            raise not_finite(batch.step)
        theirs = np.isin(np.repeat(np.arange(len(batch.adapters)), np.diff(batch.row_starts)), rows)      # [T]
        self._kv.erase(torch.from_numpy(batch.slots[theirs].astype(np.int64)))
        numbers[torch.from_numpy(theirs[tokens])] = 0.0
        result.failed_rows = np.union1d(result.failed_rows, rows).astype(np.int32)

    def _answer(self, batch: Batch, hidden: Tensor, slots: Int32, result: StepResult) -> None:
        """The head is computed only for tokens that a sampler or a probe looks at, once each, and for scores."""
        if len(batch.score_tokens):
            result.scores = self._scores(batch, hidden, slots, result)
        if not len(batch.sample_tokens) and not len(batch.probe_tokens):
            return
        shown = batch.probe_kinds == PROBE_HIDDEN
        looked_at = np.concatenate((batch.sample_tokens, batch.probe_tokens[~shown]))
        asked, rows = looked_at, np.arange(len(looked_at))
        if len(looked_at) > 1 and int(np.diff(looked_at).min()) < 1:
            asked, rows = np.unique(looked_at, return_inverse=True)
        logits: Float32 = self._logits(batch, hidden, asked, slots, result).numpy()
        if len(shown):
            seen = np.empty(len(shown), np.int64)
            seen[~shown], seen[shown] = rows[len(batch.sample_tokens) :], np.arange(shown.sum())
            probe(batch, logits, self._states(hidden, batch.probe_tokens[shown]), seen, result)
        if len(batch.late_masks):
            self._ask_for_masks()
        result.tokens = sample(batch, logits, rows[: len(batch.sample_tokens)], self._histories)
        remembered = batch.sample_lanes >= 0
        self._lanes[batch.sample_lanes[remembered]] = result.tokens[remembered]

    def _logits(self, batch: Batch, hidden: Tensor, asked: Int32, slots: Int32, result: StepResult) -> Tensor:
        """float32 [N, V] of the tokens `asked` [N]."""
        if not len(asked):
            return torch.zeros(0, self.facts.vocabulary_size)
        self._decoder.adapters.choose(slots[asked] if len(slots) else NO_SLOTS)
        logits = self._decoder.logits(hidden[torch.from_numpy(asked.astype(np.int64))])
        if not torch.isfinite(torch.stack(torch.aminmax(logits))).all():
            self._spare(batch, logits, asked.astype(np.int64), result)
        return logits

    def _states(self, hidden: Tensor, asked: Int32) -> Float32:
        """Normed, float32 [N, hidden]."""
        states: Float32 = self._decoder.normed(hidden[torch.from_numpy(asked.astype(np.int64))]).float().numpy()
        return states

    def _scores(self, batch: Batch, hidden: Tensor, slots: Int32, result: StepResult) -> Float32:
        scores = np.empty(len(batch.score_tokens), np.float32)
        for first in range(0, len(scores), SCORED_ROWS):
            block = slice(first, first + SCORED_ROWS)
            logits = self._logits(batch, hidden, batch.score_tokens[block], slots, result)
            targets = torch.from_numpy(batch.score_targets[block].astype(np.int64))
            scores[block] = (logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)).numpy()
        return scores

    @staticmethod
    def check(batch: Batch, facts: DeviceFacts, host_pages: int) -> None:
        """Batches are made by the kernel: a fault here is ours."""
        tokens, rows = len(batch.tokens), len(batch.row_starts) - 1
        slots = facts.pages * facts.page_tokens
        assert len(batch.positions) == len(batch.slots) == tokens == batch.row_starts[-1], "one of each a token"
        assert len(batch.adapters) in (0, rows), "one adapter a row, or none at all"
        assert rows == len(batch.contiguous) == len(batch.segment_starts) - 1 == len(batch.visible_starts) - 1, "rows"
        assert len(batch.segment_tokens) == batch.segment_starts[-1] == len(batch.page_starts) - 1, "segments"
        assert _within(batch.tokens, -LANES, facts.vocabulary_size), "a token or lane that does not exist"
        assert _within(batch.slots, 0, slots), "a slot outside the pool"
        assert _within(batch.pages, 0, facts.pages), "a page outside the pool"
        assert _within(batch.moves, 0, slots), "a token moves from or to where no slot is"
        assert _within(batch.swap_outs[:, 0], 0, facts.pages), "a page outside the pool goes out"
        assert _within(batch.swap_outs[:, 1], 0, host_pages), "a page goes out to where no host page is"
        assert _within(batch.swap_ins[:, 0], 0, host_pages), "a page comes in from where no host page is"
        assert _within(batch.swap_ins[:, 1], 0, facts.pages), "a page comes in outside the pool"
        assert _within(batch.copies, 0, facts.pages), "a copy of a page outside the pool"
        assert _within(batch.sample_tokens, 0, tokens), "a sample of a token that the batch has not"
        assert _within(batch.probe_tokens, 0, tokens), "a probe of a token that the batch has not"
        assert _within(batch.asked, 0, facts.vocabulary_size), "a probe of a token that does not exist"
        assert _within(batch.score_tokens, 0, tokens), "a score of a token that the batch has not"
        for named in (batch.score_targets, batch.bias_tokens, batch.told):
            assert _within(named, 0, facts.vocabulary_size), "a token that does not exist"


def _runs(moves: Int32, along: int) -> list[tuple[Int32, Int32]]:
    """`moves` [·, 2], cut where column `along` does not go on by one: both columns of each piece."""
    if not len(moves):
        return []
    pieces = np.split(moves, np.flatnonzero(np.diff(moves[:, along]) != 1) + 1)
    return [(np.ascontiguousarray(piece[:, 0]), np.ascontiguousarray(piece[:, 1])) for piece in pieces]


def _within(numbers: np.ndarray[tuple[int, ...], np.dtype[np.int32]], first: int, end: int) -> bool:
    if first == 0:
        return not len(numbers) or int(numbers.view(np.uint32).max()) < end            # none is less than 0
    return not len(numbers) or bool(first <= numbers.min() and numbers.max() < end)


def rows_of_adapters(batch: Batch, broken: Int64) -> Int64 | None:
    """The rows of tokens `broken`, whose numbers are not finite; None if not adapters alone made them so."""
    rows: Int64 = np.unique(np.searchsorted(batch.row_starts, broken, side="right") - 1)
    return rows if len(batch.adapters) and not (batch.adapters[rows] == NONE).any() else None


def not_finite(step: int) -> Internal:
    return Internal(f"step {step}: the model computed numbers that are not finite; are its weights damaged?")


def _operations(dtype: str, config: ModelConfig, kernels: Kernels | None) -> Operations:
    if kernels is None or not NativeAttention.serves(config, kernels):
        return TorchOperations(dtype)
    kernels.use_threads(torch.get_num_threads())
    return NativeOperations(dtype, kernels)


def _name(operations: Operations) -> str:
    """For a person: which path is in use."""
    return f"compiled {operations.kernels.instructions}" if isinstance(operations, NativeOperations) else "torch cpu"


def opened(model: Model, progress: Progress) -> tuple[ModelConfig, Mapping[str, Tensor]]:
    if isinstance(model, Path):
        config = ModelConfig.from_directory(model)
        return config, StoredWeights(model, config, progress)
    return model

