"""What a decode step cannot be faster than: the bytes it must read, over how fast this machine reads."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.tensors import needed_tensors

READ_BYTES = 512 << 20                # far more than any cache
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0}


def bandwidth(threads: int, tries: int = 5) -> float:
    """Bytes a second that so many threads together read from memory, at best."""
    parts = np.array_split(np.ones(READ_BYTES // 4, np.float32), threads)
    best = math.inf
    with ThreadPoolExecutor(threads) as pool:
        for read in (np.max, np.sum):
            for _ in range(tries):
                started = time.perf_counter()
                list(pool.map(read, parts))
                best = min(best, time.perf_counter() - started)
    return READ_BYTES / best


def step_bytes(config: ModelConfig, dtype: str, rows: int, context: int) -> float:
    """That a decode step of so many rows reads: every weight once, but an embedding that is not also the head; and K
    and V of `context` tokens for each row."""
    weights = sum(math.prod(shape) for shape in needed_tensors(config).values())
    if not config.tied_embeddings:
        weights -= config.vocabulary_size * config.hidden
    kv = "bfloat16" if dtype == "int8" else dtype
    return weights * BYTES[dtype] + rows * context * config.kv_bytes_per_token(kv)


def cores() -> int:
    return len(os.sched_getaffinity(0))
