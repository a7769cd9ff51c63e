"""What serving a model costs in memory, before it is loaded: weights, and KV by the token and by the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cadenza.kernel.device.kinds import FlashInferConfig, TorchConfig, compiled_kernels
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.facts import ModelReport
from cadenza.kernel.native.cpu import has_bfloat16
from cadenza.server.devices import device_config
from cadenza.server.options import ServeOptions

MEMORY = Path("/proc/meminfo")
GIBIBYTE = 1 << 30


@dataclass(frozen=True, slots=True)
class ModelMemory:
    """Of a device as `cadenza serve` would make it. Bytes, but for the numbers of pages and tokens."""

    dtype: str
    weight_bytes: int
    token_bytes: int
    page_tokens: int
    pages: int
    host_pages: int

    @property
    def page_bytes(self) -> int:
        return self.page_tokens * self.token_bytes

    @property
    def total_bytes(self) -> int:
        return self.weight_bytes + (self.pages + self.host_pages) * self.page_bytes

    def __str__(self) -> str:
        return (f"weights {_size(self.weight_bytes)} as {self.dtype}; KV {_size(self.token_bytes)} a token, "
                f"{_size(self.page_bytes)} a page of {self.page_tokens} tokens; {self.pages} pages "
                f"({self.pages * self.page_tokens} tokens) and {self.host_pages} in the host tier; "
                f"{_size(self.total_bytes)} in all")


def model_memory(report: ModelReport, options: ServeOptions) -> ModelMemory:
    """Of a sound model. Embeddings that are the head as well are held twice, once in the layout of each.
    Every layer keeps every token, with a window or without."""
    config = ModelConfig.from_directory(report.directory)
    device = device_config(options, report.directory)
    assert isinstance(device, TorchConfig | FlashInferConfig), "a model is served by such a device"
    embeddings = config.vocabulary_size * config.hidden
    maps = report.parameters - (0 if config.tied_embeddings else embeddings)
    embedding_bytes = 4 if device.dtype == "float32" else 2
    return ModelMemory(device.dtype, maps * _map_bytes(device, config) + embeddings * embedding_bytes,
                       config.kv_bytes_per_token(device.dtype), device.page_tokens, device.pages, device.host_pages)


def _map_bytes(device: TorchConfig | FlashInferConfig, config: ModelConfig) -> int:
    """Of a value of a linear map. Compiled kernels read bfloat16 where that is all it is; torch alone widens it."""
    if device.dtype == "int8":
        return 1
    compiled = isinstance(device, TorchConfig) and compiled_kernels(device.cache) is not None
    if device.dtype == "float32":
        return 2 if compiled and config.dtype == "bfloat16" else 4
    return 2 if compiled or has_bfloat16() or isinstance(device, FlashInferConfig) else 4


def available_bytes(path: Path = MEMORY) -> int | None:
    """What the system could give without swapping; None where it does not say."""
    try:
        lines = path.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _size(count: int) -> str:
    for unit, size in (("GiB", GIBIBYTE), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"
