"""Which type torch multiplies faster in. Runs among the peers."""

from __future__ import annotations

import math
import time

import torch


def faster_dtype() -> str:
    """bfloat16 is what the weights are stored in; on a CPU without instructions for it, it may be far slower."""
    def seconds(dtype: torch.dtype, rows: int) -> float:
        x, weight = torch.randn(rows, 896).to(dtype), torch.randn(4864, 896).to(dtype)
        best = math.inf
        for _ in range(3):
            started = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            best = min(best, time.perf_counter() - started)
        return best

    ratio = math.prod(seconds(torch.bfloat16, rows) / seconds(torch.float32, rows) for rows in (1, 128))
    return "bfloat16" if ratio < 1 else "float32"
