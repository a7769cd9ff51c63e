"""From what the operator said, and what the model is, to a device that is up."""

from __future__ import annotations

import os
from pathlib import Path

from cadenza.kernel.device.kinds import (
    DeviceConfig,
    FlashInferConfig,
    NullConfig,
    TorchConfig,
    compiled_kernels,
    gpu_ready,
)
from cadenza.kernel.device.link import DeviceLink
from cadenza.kernel.device.local_link import LocalLink
from cadenza.kernel.device.worker_link import WorkerLink
from cadenza.kernel.limits import STAGING_PAGES
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.facts import describe
from cadenza.kernel.native.cpu import has_bfloat16
from cadenza.kvfs.errors import Invalid, Unsupported
from cadenza.server.options import Progress, ServeOptions

GIBIBYTE = 1 << 30
DEFAULT_KV_GIB = 1.0                      # a GPU has more: --kv-gib
MOST_DEFAULT_TOKENS = 262_144             # of KV, where that is less: a small model need not fill a gibibyte
SMALL_WEIGHT_BYTES = 256 << 20            # up to here a model is computed with as float32: exact, and fast enough
FRACTIONS = 1000                          # of a progress that comes as a fraction


async def start_device(options: ServeOptions, directory: Path, progress: Progress) -> DeviceLink:
    """Raises what is wrong with the options or the model; DeviceLost if the worker died while it loaded."""
    config = device_config(options, directory)

    def tell(what: str, fraction: float) -> None:
        progress(what, int(fraction * FRACTIONS), FRACTIONS)

    if options.in_process:
        return LocalLink(config.build(tell))
    return await WorkerLink.start(config, tell)


def device_config(options: ServeOptions, directory: Path) -> DeviceConfig:
    """Raises Unsupported for a device or type that is not here, Invalid for sizes that make no sense."""
    model = ModelConfig.from_directory(directory)
    if options.page_tokens < 1 or options.page_tokens > 1024:
        raise Invalid(f"a page of {options.page_tokens} tokens makes no sense: 1 to 1024", "page_tokens")
    if options.device == "null":
        return NullConfig(pages=options.pages or 4096, page_tokens=options.page_tokens, host_pages=STAGING_PAGES + 4096,
                          vocabulary_size=model.vocabulary_size, context_tokens=model.context_tokens)
    if options.device not in ("auto", "cpu", "cuda"):
        raise Unsupported(f"there is no device {options.device!r}: choose auto, cpu, cuda or null")
    if options.device == "cuda" or (options.device == "auto" and gpu_ready()):
        dtype = "bfloat16" if options.dtype == "auto" else options.dtype
        return FlashInferConfig(pages=choose_pages(options, model, dtype), directory=str(directory), dtype=dtype,
                                host_pages=choose_host_pages(options, model, dtype), page_tokens=options.page_tokens)
    dtype = choose_dtype(options, directory, model)
    return TorchConfig(pages=choose_pages(options, model, dtype), host_pages=choose_host_pages(options, model, dtype),
                       directory=str(directory),
                       page_tokens=options.page_tokens, dtype=dtype, threads=choose_threads(options.threads),
                       cache=str(options.cache))  # fmt: skip


def choose_dtype(options: ServeOptions, directory: Path, model: ModelConfig) -> str:
    """ "auto" is bfloat16 for a large model that is stored so, where the CPU multiplies it or a compiler is there for
    kernels that read it; else float32."""
    if options.dtype != "auto":
        return options.dtype
    large = describe(directory).weight_bytes > SMALL_WEIGHT_BYTES and model.dtype == "bfloat16"
    fast = large and (has_bfloat16() or compiled_kernels(str(options.cache)) is not None)
    return "bfloat16" if fast else "float32"


def choose_threads(asked: int | None) -> int:
    """One core is left to the programs: with it, no step waits at a barrier for a thread that they have displaced."""
    return asked if asked is not None else max(1, len(os.sched_getaffinity(0)) - 1)


def choose_host_pages(options: ServeOptions, model: ModelConfig, dtype: str) -> int:
    """Those that fit, and what the way to the disk takes."""
    page_bytes = options.page_tokens * (model.kv_bytes_per_token(dtype) + 4)
    return STAGING_PAGES + int(options.host_gib * GIBIBYTE) // page_bytes


def choose_pages(options: ServeOptions, model: ModelConfig, dtype: str) -> int:
    """As many as were asked for, by number or by memory. Raises Invalid when that is none."""
    if options.pages is not None:
        return options.pages
    page_bytes = options.page_tokens * model.kv_bytes_per_token(dtype)
    if options.kv_gib is None:
        pages = min(int(DEFAULT_KV_GIB * GIBIBYTE) // page_bytes, MOST_DEFAULT_TOKENS // options.page_tokens)
    else:
        pages = int(options.kv_gib * GIBIBYTE) // page_bytes
    if pages < 1:
        raise Invalid(f"{options.kv_gib} GiB hold no page of {page_bytes} bytes (--kv-gib, --page-tokens)", "kv_gib")
    return pages
