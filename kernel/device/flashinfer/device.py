"""The device that computes on a CUDA GPU, by torch and the attention kernels of flashinfer; it answers as TorchDevice
does, up to the rounding of bfloat16.

    move pages → plan (host, once a window) → decoder → is all finite? → head → is all finite? → probe, sample

It has not run on a GPU yet: its plans, padding and answers are tested on the CPU with kernels that stand in for
flashinfer's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import NamedTuple

import torch
from torch import Tensor

from cadenza.kernel.device.answers import Answers, Means, adapters_of_tokens
from cadenza.kernel.device.batch import Batch, DeviceFacts, Int32, StepResult, UInt8
from cadenza.kernel.device.flashinfer.cascade import CASCADE_BYTES, CASCADE_BYTES_OVER_GRAPH, Shared
from cadenza.kernel.device.flashinfer.decodes import SIZES, Capture, GraphCapture, PaddedDecodes
from cadenza.kernel.device.flashinfer.gpu_probing import probe
from cadenza.kernel.device.flashinfer.gpu_sampling import sample
from cadenza.kernel.device.flashinfer.kernels import FlashInferKernels, missing
from cadenza.kernel.device.flashinfer.planned_attention import Kernels, Parts, PlannedAttention
from cadenza.kernel.device.flashinfer.planning import beginnings, plain_rows, readings
from cadenza.kernel.device.flashinfer.pool import Pool
from cadenza.kernel.device.flashinfer.reading import Reading
from cadenza.kernel.device.torch_device import Model, TorchDevice, opened
from cadenza.kernel.limits import LANES
from cadenza.kernel.model.adapter import check_shapes, read_adapter
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.decoder import Attention, Decoder
from cadenza.kernel.model.low_rank import read_maps
from cadenza.kernel.model.operations import TorchOperations, torch_dtype
from cadenza.kernel.model.weights import Progress, RandomWeights, no_progress
from cadenza.kvfs.errors import Unsupported

SCORED_ROWS = 512                        # whose logits are held at once: bounds them


class Hardware(NamedTuple):
    """Where a device computes, and with what. Without `capture` no step is padded. A cascade spares at least so many
    fetched bytes a layer, in a step that goes eagerly anyway, and in one of decodes alone."""

    device: torch.device
    dtype: str
    name: str
    kernels: Callable[[ModelConfig], Kernels]
    capture: Capture | None
    cascade_bytes: int = CASCADE_BYTES
    cascade_bytes_over_graph: int = CASCADE_BYTES_OVER_GRAPH


def gpu(*, graphs: bool = True) -> Hardware:
    """The current CUDA GPU. Raises Unsupported, naming what is missing."""
    lacks = missing()
    if lacks:
        raise Unsupported(f"a flashinfer device needs {' and '.join(lacks)}; without, choose the device cpu")
    return Hardware(torch.device("cuda", torch.cuda.current_device()), "bfloat16", torch.cuda.get_device_name(),
                    lambda config: FlashInferKernels(config, SIZES[-1]), GraphCapture() if graphs else None)


class FlashInferDevice:
    """One model over one pool of pages. Steps one at a time; used from one thread."""

    def __init__(self, model: Model, *, pages: int, page_tokens: int = 16, host_pages: int = 0,
                 hardware: Hardware | None = None, progress: Progress = no_progress) -> None:  # fmt: skip
        """Reads the weights onto the GPU, makes the pages, captures graphs; blocks. `hardware`: by default `gpu()`.

        Raises what `gpu`, `ModelConfig.from_directory` and `StoredWeights` raise, Unsupported for unusual heads.
        """
        self._hardware = hardware or gpu()
        device, operations = self._hardware.device, TorchOperations(self._hardware.dtype)
        config, weights = opened(model, progress)
        self._host = torch.zeros(0, 0, dtype=torch.uint8)
        self._closed = False
        with torch.inference_mode():
            self.kernels = self._hardware.kernels(config)
            with torch.device(device):                           # where the decoder makes what it computes once
                self._decoder = Decoder(config, Placed(weights, device), operations)
            self._decoder.adapters.device = device
            self._pool = Pool(config, pages, page_tokens, operations.held, device)
            self._lanes = torch.zeros(LANES, dtype=torch.int64, device=device)
            self._answers = Answers(Means(self._decoder, device, lambda numbers: numbers, probe, sample,
                                          self._pool.erase, SCORED_ROWS))  # fmt: skip
            self._windows = {sight.window: sight for sight in self._decoder.sights}
            self._padded = list(self._captured(config))
        self.facts = DeviceFacts(
            name=f"flashinfer {self._hardware.name} {self._hardware.dtype}",
            pages=pages,
            page_tokens=page_tokens,
            page_bytes=self._pool.image_bytes,
            vocabulary_size=config.vocabulary_size,
            context_tokens=config.context_tokens,
            host_pages=host_pages,
            hidden_size=config.hidden,
        )

    @classmethod
    def random(cls, config: ModelConfig, *, pages: int, page_tokens: int = 16, host_pages: int = 0, seed: int = 0,
               hardware: Hardware | None = None) -> FlashInferDevice:  # fmt: skip
        """Of that shape, with random weights and no file: for benchmarks. TorchDevice of that seed has the same."""
        return cls((config, RandomWeights(config, torch_dtype((hardware or gpu()).dtype), seed)), pages=pages,
                   page_tokens=page_tokens, host_pages=host_pages, hardware=hardware)  # fmt: skip

    def attach(self, host: UInt8) -> None:
        """See `Device`. Pins it where the system lets us: else copies are slower, and the same."""
        self._unpin()
        self._host = torch.from_numpy(host)
        if self._hardware.device.type == "cuda" and host.size:
            torch.cuda.cudart().cudaHostRegister(self._host.data_ptr(), host.nbytes, 0)  # type: ignore[no-untyped-call]

    def step(self, batch: Batch) -> StepResult:
        """As `TorchDevice.step`."""
        started = perf_counter()
        assert not self._closed, "a step after close"
        TorchDevice.check(batch, self.facts, len(self._host))
        result = StepResult(batch.step)
        self._answers.forget(batch.forgotten)
        with torch.inference_mode():
            self._move(batch)
            if len(batch.tokens):
                self._answers.write(batch, self._forward(batch), result)
                remembered, on = batch.sample_lanes >= 0, self._answers.on
                self._lanes[on(batch.sample_lanes[remembered])] = on(result.tokens[remembered])
            self._wait()
        result.seconds = perf_counter() - started
        return result

    def close(self) -> None:
        """Gives the memory back. Idempotent."""
        self._unpin()
        self._closed = True
        for name in ("_answers", "_padded", "_decoder", "_pool", "kernels"):
            self.__dict__.pop(name, None)

    def __enter__(self) -> FlashInferDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask_for_masks(self, ask: Callable[[], None]) -> None:
        """See `LateMasking`."""
        self._answers.ask_for_masks(ask)

    def load_adapter(self, slot: int, directory: Path) -> None:
        """See `Adapting`."""
        adapter = read_adapter(directory)
        check_shapes(adapter, self._decoder.config)
        self._decoder.adapters.put(slot, read_maps(adapter, self._decoder.dtype, self._hardware.device))

    def drop_adapter(self, slot: int) -> None:
        """Idempotent."""
        self._decoder.adapters.drop(slot)

    def _captured(self, config: ModelConfig) -> Iterator[PaddedDecodes]:
        """The largest first: graphs of fewer rows find room in its memory. Experts are chosen on the host: no graph."""
        if self._hardware.capture is None or config.experts is not None:
            return
        for size in reversed(SIZES):
            yield PaddedDecodes(size, self._looked_up, self._pool, self.kernels, self._decoder.sights,
                                config.context_tokens, self._hardware.device, self._hardware.capture)

    def _unpin(self) -> None:
        if self._hardware.device.type == "cuda" and self._host.numel():
            torch.cuda.cudart().cudaHostUnregister(self._host.data_ptr())  # type: ignore[no-untyped-call]
        self._host = torch.zeros(0, 0, dtype=torch.uint8)

    def _wait(self) -> None:
        if self._hardware.device.type == "cuda":
            torch.cuda.synchronize()

    def _move(self, batch: Batch) -> None:
        if len(batch.moves):
            self._pool.move(batch.moves)
        if len(batch.swap_outs):
            self._pool.save(batch.swap_outs[:, 0], self._host, batch.swap_outs[:, 1])
        if len(batch.swap_ins):
            self._pool.load(self._host, batch.swap_ins[:, 0], batch.swap_ins[:, 1])
        if len(batch.copies):
            self._pool.copy(batch.copies)

    def _forward(self, batch: Batch) -> Tensor:
        """Hidden states [T, hidden] of the batch's tokens; their K, V and positions are in the pages then."""
        adapters = adapters_of_tokens(batch)
        self._pool.positions[batch.slots] = batch.positions
        self._decoder.adapters.choose(adapters)
        graph = self._graph(batch, adapters)
        if graph is not None:
            return graph.forward(batch, {window: self._readings(batch, window)[0] for window in self._windows})
        on = self._answers.on
        attention = PlannedAttention(self._pool, on(batch.slots), self._decoder.sights, self._parts(batch))
        return self._looked_up(on(batch.tokens), on(batch.positions), attention)

    def _graph(self, batch: Batch, adapters: Int32) -> PaddedDecodes | None:
        """The least that holds a step of decodes alone; None where the step is another, or better read together."""
        rows, references = len(batch.contiguous), len(batch.pages)
        if rows != len(batch.tokens) or len(adapters) or len(plain_rows(batch)) != rows:
            return None
        fitting = [graph for graph in self._padded if graph.holds(rows, references)]
        if not fitting or (0 in self._windows and self._shared(batch, self._hardware.cascade_bytes_over_graph)):
            return None
        return fitting[-1]

    def _parts(self, batch: Batch) -> Mapping[int, Parts]:
        """Planned for each window, by readers of its own."""
        found, used = {}, 0
        for window, sight in self._windows.items():
            shared = [] if window else self._shared(batch, self._hardware.cascade_bytes)
            some = self._readings(batch, window, shared)
            readers = [self.kernels.reader(used + number) for number in range(len(some))]
            found[window] = Parts(some, readers, sight, len(batch.tokens), self.kernels, self._hardware.device)
            used += len(some)
        return found

    def _readings(self, batch: Batch, window: int, shared: Sequence[Shared] = ()) -> list[Reading]:
        return readings(batch, self._pool.positions, self.facts.page_tokens, window, shared)

    def _shared(self, batch: Batch, least_bytes: int) -> list[Shared]:
        page_bytes = self._pool.image_bytes // self._decoder.config.layers
        return beginnings(batch, self.facts.page_tokens, -(-least_bytes // page_bytes))

    def _looked_up(self, tokens: Tensor, positions: Tensor, attention: Attention) -> Tensor:
        """The decoder over inputs of which some name lanes."""
        tokens = torch.where(tokens < 0, self._lanes[(-1 - tokens).clamp(min=0)], tokens)
        return self._decoder.forward(tokens, positions, attention)


class Placed(Mapping[str, Tensor]):
    """Weights, each put onto a device as it is asked for."""

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device) -> None:
        self._weights, self._device = weights, device

    def __getitem__(self, name: str) -> Tensor:
        with torch.device("cpu"):
            tensor = self._weights[name]
        return tensor.to(self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
