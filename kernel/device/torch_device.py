"""The device that computes on the CPU: with torch alone, the oracle that faster ones must agree with, or with compiled
kernels beneath it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.answers import Answers, Means, adapters_of_tokens
from cadenza.kernel.device.attention import PagedAttention
from cadenza.kernel.device.batch import Batch, DeviceFacts, Int32, StepResult, UInt8
from cadenza.kernel.device.native_attention import NativeAttention, readings_of
from cadenza.kernel.device.paged_kv import PagedKv
from cadenza.kernel.device.probing import probe
from cadenza.kernel.device.sampling import sample
from cadenza.kernel.limits import LANES
from cadenza.kernel.model.adapter import check_shapes, read_adapter
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Attention, Begun, Decoder
from cadenza.kernel.model.low_rank import read_maps
from cadenza.kernel.model.native import NativeOperations
from cadenza.kernel.model.operations import Operations, TorchOperations, torch_dtype
from cadenza.kernel.model.recordings import Recordings
from cadenza.kernel.model.weights import Progress, RandomWeights, StoredWeights, no_progress
from cadenza.kernel.native.library_unsafe import Kernels

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
        self._recordings = Recordings(operations) if isinstance(operations, NativeOperations) else None
        self._readings = readings_of(self._decoder.sights)
        self._lanes = np.zeros(LANES, np.int32)                  # the last token sampled on each
        self._answers = Answers(Means(self._decoder, torch.device("cpu"), Tensor.numpy, probe, sample, self._kv.erase,
                                      SCORED_ROWS))  # fmt: skip
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
            weights="" if str(operations.held) == f"torch.{dtype}" else dtype,
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
        self._answers.forget(batch.forgotten)
        with torch.inference_mode():
            self._move(batch)
            if len(batch.tokens):
                self._answers.write(batch, self._forward(batch), result)
                remembered = batch.sample_lanes >= 0
                self._lanes[batch.sample_lanes[remembered]] = result.tokens[remembered]
        result.seconds = perf_counter() - started
        return result

    def close(self) -> None:
        """Gives the memory back. Idempotent."""
        self._closed = True
        for name in ("_answers", "_decoder", "_kv", "_operations"):
            self.__dict__.pop(name, None)

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
        self._answers.ask_for_masks(ask)

    def load_adapter(self, slot: int, directory: Path) -> None:
        """See `Adapting`."""
        adapter = read_adapter(directory)
        check_shapes(adapter, self._decoder.config)
        self._decoder.adapters.put(slot, read_maps(adapter, self._decoder.dtype))

    def drop_adapter(self, slot: int) -> None:
        """Idempotent."""
        self._decoder.adapters.drop(slot)

    def _forward(self, batch: Batch) -> Tensor:
        """Hidden states [T, hidden] of the batch's tokens; their K, V and positions are in the pages then."""
        named = batch.tokens < 0
        tokens = np.where(named, self._lanes[np.where(named, -1 - batch.tokens, 0)], batch.tokens)
        self._kv.positions[batch.slots] = batch.positions
        self._decoder.adapters.choose(adapters_of_tokens(batch))
        begun = self._decoder.begun(torch.from_numpy(tokens), torch.from_numpy(batch.positions))
        x, added = self._through(batch, begun)
        return x + added

    def _through(self, batch: Batch, begun: Begun) -> tuple[Tensor, Tensor]:
        """The layers. What adapters add is torch's work, which cannot be replayed."""
        if self._recordings is None:
            attention: Attention = PagedAttention(batch, self._kv, self._decoder.dtype, self._decoder.sights)
            return self._decoder.through(begun, attention)
        native = NativeAttention(batch, self._kv, self._decoder.config, self._decoder.sights,
                                 self._recordings.operations, self._readings)  # fmt: skip
        if self._decoder.adapters.groups:
            return self._decoder.through(begun, native)
        return self._recordings((len(batch.tokens), native.items), begun,
                                lambda still: self._decoder.through(still, native))

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

