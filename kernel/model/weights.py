"""The tensors of a model, read one at a time as the decoder asks for them: files are mapped, never read as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.tensors import StoredTensor, checked_tensors, needed_tensors
from cadenza.kvfs.errors import Invalid

# progress(bytes read so far, bytes in all)
Progress = Callable[[int, int], None]


def no_progress(done_bytes: int, total_bytes: int) -> None:
    """For who does not want to know."""


class StoredWeights(Mapping[str, Tensor]):
    """name → tensor as it is stored, on the CPU. A tensor is mapped when it is asked for, and not kept.

    Opening checks every name, shape and type, and raises as `checked_tensors` does; reading raises Invalid when the
    file has been damaged since.
    """

    def __init__(self, directory: Path, config: ModelConfig, progress: Progress = no_progress) -> None:
        self._stored = checked_tensors(directory, config)
        self._progress = progress
        self._total_bytes = sum(tensor.size for tensor in self._stored.values())
        self._seen: set[str] = set()
        self._done_bytes = 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._map(name, self._stored[name])
        if name not in self._seen:
            self._seen.add(name)
            self._done_bytes += self._stored[name].size
            self._progress(self._done_bytes, self._total_bytes)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @staticmethod
    def _map(name: str, stored: StoredTensor) -> Tensor:
        try:
            with safe_open(str(stored.file), framework="pt", device="cpu") as opened:
                tensor: Tensor = opened.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as fault:
            raise Invalid(f"{stored.file}: cannot read tensor {name}: {fault}", field=name) from None


class RandomWeights(Mapping[str, Tensor]):
    """Weights of the right shapes and of no meaning, for benchmarks: the same for the same seed.

    Matrices are normal with a deviation of 1/√width, so that activations neither vanish nor grow; norms are 1.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> None:
        self._shapes = needed_tensors(config)
        self._dtype = dtype
        self._seed = seed

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        if name.endswith("norm.weight"):
            return torch.ones(shape, dtype=self._dtype)
        generator = torch.Generator().manual_seed(self._seed * len(self._shapes) + list(self._shapes).index(name))
        width = shape[-1]
        return torch.empty(shape, dtype=self._dtype).normal_(0.0, width**-0.5, generator=generator)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
