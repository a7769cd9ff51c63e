"""How wasmtime is set up: the same in the daemon and in the compiling child, or an artifact would not fit.

Fuel bounds slices and totals. Traps do not use signals, so that no other handler in the process (faulthandler's) can
get in their way. What programs do not need is off, so that it need not be bounded: threads, shared memory, garbage
collected types, exceptions, stack switching (it aborts the process in wasmtime 50), asynchronous components.
"""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import version
from typing import Final

import wasmtime
from wasmtime import _ffi as ffi

from cadenza.kernel.limits import FIBER_STACK_BYTES, WASM_STACK_BYTES, ProcessLimits

VERSION: Final = version("wasmtime")
MAJOR: Final = "50"

# What is reserved of the address space for a linear memory: growth within it never moves, so a copy-on-write
# image stays shared.
RESERVATION_BYTES: Final = ProcessLimits().memory_bytes

_SETTINGS: Final = {
    "consume_fuel": True,
    "signals_based_traps": False,
    "max_wasm_stack": WASM_STACK_BYTES,
    "memory_reservation": RESERVATION_BYTES,
    "memory_reservation_for_growth": 0,
    "memory_guard_size": 0,
    "wasm_threads": False,
    "wasm_gc": False,
    "wasm_function_references": False,
    "wasm_exceptions": False,
    "wasm_stack_switching": False,
    "shared_memory": False,
}

FINGERPRINT: Final = hashlib.sha256(
    repr((VERSION, platform.machine(), sorted(_SETTINGS.items()))).encode()
).hexdigest()[:16]
"""Names everything that decides whether an artifact fits this engine, but for the CPU, which wasmtime checks."""


def new_engine() -> wasmtime.Engine:
    """Raises RuntimeError for a wasmtime that this runtime was not written for."""
    if VERSION.split(".")[0] != MAJOR:
        raise RuntimeError(f"wasmtime {VERSION} is installed; this runtime is written for {MAJOR}: install {MAJOR}.*")
    configuration = wasmtime.Config()
    for name, value in _SETTINGS.items():
        setattr(configuration, name, value)
    ffi.wasmtime_config_async_stack_size_set(configuration.ptr(), FIBER_STACK_BYTES)
    ffi.wasmtime_config_concurrency_support_set(configuration.ptr(), False)
    return wasmtime.Engine(configuration)
