"""Which type torch multiplies faster in. Runs among the peers."""

from __future__ import annotations

import math
import time

import torch


def faster_dtype(*rows: int) -> str:
    """Of maps of so many rows. bfloat16 is what the weights are stored in, and half to read; on a CPU without
    instructions for it, more than a few rows may be far slower."""
    def seconds(dtype: torch.dtype, count: int) -> float:
        x, weight = torch.randn(count, 896).to(dtype), torch.randn(4864, 896).to(dtype)
        best = math.inf
        for _ in range(5):
            started = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            best = min(best, time.perf_counter() - started)
        return best

    ratio = math.prod(seconds(torch.bfloat16, count) / seconds(torch.float32, count) for count in rows)
    return "bfloat16" if ratio < 1 else "float32"
