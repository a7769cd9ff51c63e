"""The kinds of device, as plain settings that travel as JSON; each knows how to build its device where it is to run."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from cadenza.kernel.device.batch import Device
from cadenza.kernel.device.null_device import CostModel, NullDevice
from cadenza.kernel.native.library_unsafe import Kernels, kernels
from cadenza.kvfs.errors import Invalid, Unsupported

log = logging.getLogger(__name__)

# progress(what is being done, fraction of it that is done)
Progress = Callable[[str, float], None]


class DeviceConfig(Protocol):
    """Settings of one kind: a dataclass of JSON values."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def build(self, progress: Progress) -> Device:
        """Blocks until the device is ready for steps. Raises CadenzaError for settings that cannot be met."""


@dataclass(frozen=True, slots=True)
class NullConfig:
    """A NullDevice. Costs in milliseconds; with `sleep` a step takes that time, else it only reports it."""

    kind: ClassVar[str] = "null"
    pages: int = 4096
    page_tokens: int = 16
    vocabulary_size: int = 1024
    context_tokens: int = 131_072
    host_pages: int = 0
    fixed_ms: float = 0.0
    per_token_ms: float = 0.0
    per_context_token_ms: float = 0.0
    per_moved_page_ms: float = 0.0
    sleep: bool = False

    def build(self, progress: Progress) -> Device:
        cost = CostModel(self.fixed_ms, self.per_token_ms, self.per_context_token_ms, self.per_moved_page_ms)
        return NullDevice(pages=self.pages, page_tokens=self.page_tokens, vocabulary_size=self.vocabulary_size,
                          context_tokens=self.context_tokens, host_pages=self.host_pages, cost=cost,
                          sleep=self.sleep)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TorchConfig:
    """A TorchDevice: of the model in `directory`, or of the shape that a `config.json` says, with random weights.
    `cache`: the directory where compiled kernels are kept; empty: torch computes alone."""

    kind: ClassVar[str] = "torch"
    pages: int
    directory: str = ""
    shape: dict[str, Any] | None = None
    seed: int = 0
    page_tokens: int = 16
    dtype: str = "float32"
    threads: int | None = None
    host_pages: int = 0
    cache: str = ""

    def build(self, progress: Progress) -> Device:
        from cadenza.kernel.device.torch_device import TorchDevice  # takes seconds, and only this kind needs it
        from cadenza.kernel.model.config import ModelConfig

        common: dict[str, Any] = {"pages": self.pages, "page_tokens": self.page_tokens, "dtype": self.dtype,
                                  "threads": self.threads, "host_pages": self.host_pages,
                                  "kernels": compiled_kernels(self.cache)}  # fmt: skip
        if self.shape is not None:
            return TorchDevice.random(ModelConfig.from_mapping(self.shape), seed=self.seed, **common)

        def weights(done_bytes: int, total_bytes: int) -> None:
            progress("loading weights", done_bytes / max(total_bytes, 1))

        return TorchDevice(Path(self.directory), progress=weights, **common)


def compiled_kernels(cache: str) -> Kernels | None:
    """None, and a warning that says why, where they cannot be compiled."""
    try:
        return kernels(Path(cache)) if cache else None
    except Unsupported as fault:
        log.warning("torch computes alone: %s", fault.message)
        return None


@dataclass(frozen=True, slots=True)
class FlashInferConfig:
    """A FlashInferDevice on the current CUDA GPU; the rest as of TorchConfig."""

    kind: ClassVar[str] = "flashinfer"
    pages: int
    directory: str = ""
    shape: dict[str, Any] | None = None
    seed: int = 0
    page_tokens: int = 16
    dtype: str = "bfloat16"
    host_pages: int = 0
    graphs: bool = True

    def build(self, progress: Progress) -> Device:
        """Raises Unsupported, naming what is missing, where CUDA or flashinfer is."""
        from cadenza.kernel.device.flashinfer.device import FlashInferDevice, gpu
        from cadenza.kernel.model.config import ModelConfig

        if self.dtype != "bfloat16":
            raise Unsupported(f"a flashinfer device computes in bfloat16, not in {self.dtype}")
        common: dict[str, Any] = {"pages": self.pages, "page_tokens": self.page_tokens, "host_pages": self.host_pages,
                                  "hardware": gpu(graphs=self.graphs)}  # fmt: skip
        if self.shape is not None:
            return FlashInferDevice.random(ModelConfig.from_mapping(self.shape), seed=self.seed, **common)

        def weights(done_bytes: int, total_bytes: int) -> None:
            progress("loading weights", done_bytes / max(total_bytes, 1))

        return FlashInferDevice(Path(self.directory), progress=weights, **common)


KINDS: dict[str, type[NullConfig] | type[TorchConfig] | type[FlashInferConfig]] = {
    kind.kind: kind for kind in (NullConfig, TorchConfig, FlashInferConfig)
}


def gpu_ready() -> bool:
    """Whether a FlashInferDevice could be built here. Imports torch, which takes seconds, only where flashinfer is."""
    if find_spec("flashinfer") is None:
        return False
    from cadenza.kernel.device.flashinfer.kernels import missing

    return not missing()


def to_json(config: DeviceConfig) -> str:
    return json.dumps({"kind": config.kind, **dataclasses.asdict(config)})


def from_json(text: str | bytes) -> DeviceConfig:
    """Raises Invalid for an unknown kind."""
    fields = json.loads(text)
    kind = fields.pop("kind")
    if kind not in KINDS:
        raise Invalid(f"there is no device {kind!r}: choose one of {', '.join(KINDS)}", "device")
    return KINDS[kind](**fields)
