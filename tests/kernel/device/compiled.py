"""The paths by which a device computes, as tests name them."""

from __future__ import annotations

from cadenza.kernel.native.library_unsafe import Kernels, kernels
from cadenza.server.options import default_cache

PATHS = ["torch", "compiled"]


def kernels_of(path: str) -> Kernels | None:
    return kernels(default_cache()) if path == "compiled" else None
