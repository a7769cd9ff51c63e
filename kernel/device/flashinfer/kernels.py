"""The kernels of flashinfer-python 0.7.2 (Ye et al. 2024, arXiv 2501.01005), behind the seam of planned_attention.py.

All attention goes through its FA2 prefill kernels on tensor cores: one module to compile, and the only one that takes
masks. Workspaces are shared by all readers, whose kernels run one after the other; what a plan writes is each reader's.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cadenza.kernel.device.batch import Int32
from cadenza.kernel.device.flashinfer.planned_attention import Found, Reader
from cadenza.kernel.device.flashinfer.reading import Reading
from cadenza.kernel.model.config import ModelConfig
from cadenza.kvfs.errors import Unsupported

HEAD_DIMS = (64, 128, 256)
LEAST_WORKSPACE_BYTES = 128 << 20        # what flashinfer recommends
LAYOUT, BACKEND = "NHD", "fa2"
TILE, BLOCKS_PER_PROCESSOR = 128, 2      # of the prefill kernels: rows × heads of a kv head at once; see scheduler.cuh


def missing() -> list[str]:
    """What this machine lacks for this device, for a person; imports nothing that is not there."""
    lacks = [] if find_spec("flashinfer") else ["the package flashinfer-python (pip install 'cadenza[gpu]')"]
    lacks += [] if torch.cuda.is_available() else ["a CUDA GPU that torch can use"]
    return lacks


def workspace_bytes(config: ModelConfig, processors: int, fixed_requests: int) -> int:
    """Enough for what split attention keeps between its two passes: float32 values and a logarithm for each head of as
    many rows as `processors` of a GPU hold at once, or as `fixed_requests` of one query are padded to."""
    group = config.queries_per_kv_head
    at_once = -(-(BLOCKS_PER_PROCESSOR * processors // config.kv_heads + 1) * TILE // group)
    in_graphs = fixed_requests * (1 + -(-TILE // group))
    rows = max(at_once, in_graphs)
    return max(LEAST_WORKSPACE_BYTES, config.heads * rows * (config.head_dim + 1) * 4 + 4096)


class FlashInferKernels:
    """Of one model on the current CUDA device."""

    def __init__(self, config: ModelConfig, fixed_requests: int, dtype: torch.dtype = torch.bfloat16) -> None:
        """`fixed_requests`: the most of a fixed reader. Raises Unsupported for heads that no kernel is made for."""
        if config.head_dim not in HEAD_DIMS:
            possible = ", ".join(map(str, HEAD_DIMS))
            raise Unsupported(f"heads of {config.head_dim} values are not supported by flashinfer; {possible} are")
        import flashinfer

        self._library, self._config, self._dtype = flashinfer, config, dtype
        self._device = torch.device("cuda", torch.cuda.current_device())
        processors = torch.cuda.get_device_properties(self._device).multi_processor_count
        size = workspace_bytes(config, processors, fixed_requests)
        self._space = torch.zeros(size, dtype=torch.uint8, device=self._device)
        self._readers: list[WrapperReader] = []

    def reader(self, number: int) -> Reader:
        """See `Kernels`."""
        while len(self._readers) <= number:
            wrapper = self._library.BatchPrefillWithPagedKVCacheWrapper(self._space, LAYOUT, backend=BACKEND)
            self._readers.append(WrapperReader(wrapper, self._config, self._dtype, fixed=False))
        return self._readers[number]

    def fixed_reader(self, requests: int, most_pages: int) -> Reader:
        """See `Kernels`."""
        starts, pages, last = (torch.zeros(n, dtype=torch.int32, device=self._device)
                               for n in (requests + 1, most_pages, requests))
        wrapper = self._library.BatchDecodeWithPagedKVCacheWrapper(
            self._space, LAYOUT, use_cuda_graph=True, use_tensor_cores=True, backend=BACKEND,
            paged_kv_indptr_buffer=starts, paged_kv_indices_buffer=pages, paged_kv_last_page_len_buffer=last,
        )  # fmt: skip
        return WrapperReader(wrapper, self._config, self._dtype, fixed=True)

    def merge(self, one: Found, other: Found) -> Found:
        """See `Kernels`."""
        out, logs = self._library.merge_state(*one, *other)
        return out, logs


class WrapperReader:
    """One of the library's wrappers: any reading; or, with page tables at fixed places, one query a request."""

    def __init__(self, wrapper: Any, config: ModelConfig, dtype: torch.dtype, fixed: bool) -> None:
        self._wrapper, self._config, self._dtype, self._fixed = wrapper, config, dtype, fixed

    def plan(self, reading: Reading, cap: float) -> None:
        """See `Reader`. `window_left` counts the tokens before a query's own; −1 is no window."""
        config = self._config
        tables = [_tensor(x) for x in (reading.page_starts, reading.pages, reading.last_page_tokens)]
        shape = config.heads, config.kv_heads, config.head_dim, reading.page_tokens
        options = {"window_left": reading.window - 1, "logits_soft_cap": cap or None, "q_data_type": self._dtype}
        if self._fixed:
            self._wrapper.plan(*tables, *shape, **options)
            return
        mask = None if reading.mask is None else torch.from_numpy(reading.mask).to(self._wrapper.device)
        self._wrapper.plan(_tensor(reading.query_starts), *tables, *shape, custom_mask=mask, causal=reading.causal,
                           **options)  # fmt: skip

    def read(self, queries: Tensor, keys: Tensor, values: Tensor) -> Found:
        """See `Reader`."""
        out, logs = self._wrapper.run(queries.contiguous(), (keys, values), return_lse=True)
        return out, logs


def _tensor(numbers: Int32) -> Tensor:
    """On the host, where plans are made."""
    return torch.from_numpy(np.ascontiguousarray(numbers, np.int32))
