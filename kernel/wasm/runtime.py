"""Loads programs and starts guests. One for the whole kernel."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakValueDictionary

import wasmtime
from wasmtime import component as components

from cadenza.kernel.limits import HEAVY_THREADS, IMAGE_BYTES, ProcessLimits
from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.artifacts import Artifacts, CompileLimits
from cadenza.kernel.wasm.calls_unsafe import NativeCalls, native_calls
from cadenza.kernel.wasm.engine import FINGERPRINT
from cadenza.kernel.wasm.fiber_unsafe import Fiber, Host
from cadenza.kernel.wasm.guest import Guest
from cadenza.kernel.wasm.program import Program, check_header
from cadenza.kernel.wasm.seams import Handlers
from cadenza.kvfs.errors import LimitExceeded

__all__ = ["CompileLimits", "NativeCalls", "Program", "WasmRuntime", "WasmStatistics", "native_calls"]

PROGRAMS_KEPT: Final = 64                    # loaded programs that nobody runs; the rest wait on disk
COMPILES_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class WasmStatistics:
    """Counts since the runtime was made; `guests` and `programs` are those there are now."""

    guests: int
    programs: int
    compiled: int
    loaded_from_disk: int
    found_in_memory: int


class WasmRuntime:
    """`handlers` serve the imports of every guest. Owns the engine, the cache of artifacts, the worker threads and,
    until they end, the guests."""

    def __init__(self, handlers: Handlers, cache: Path, abi: str, compile_limits: CompileLimits | None = None,
                 native: NativeCalls | None = None) -> None:  # fmt: skip
        """`cache`: a directory of ours alone. `abi`: the text of kernel.wit; a program may import what is in it and has
        a handler. Raises Invalid for a WIT or a cache that will not do."""
        provided = {interface: list(functions) for interface, functions in handlers.items()}
        self._abi = wit.Abi.parse(abi)
        self._host = Host(self._abi, handlers, native)
        self._artifacts = Artifacts(cache, abi, provided, compile_limits or CompileLimits())
        self._world = hashlib.sha256(repr((FINGERPRINT, abi, sorted(provided.items()))).encode()).hexdigest()[:16]
        self._programs: WeakValueDictionary[str, Program] = WeakValueDictionary()
        self._kept: OrderedDict[str, Program] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Program]] = {}
        self._compiles = asyncio.Semaphore(COMPILES_AT_ONCE)
        self._executor = ThreadPoolExecutor(HEAVY_THREADS, "heavy-guest")
        self._guests: set[Guest] = set()
        self._compiled = self._loaded = self._found = 0

    async def load(self, wasm: bytes, wall_seconds: float | None = None) -> Program:
        """The program, from memory, from disk, or compiled now, in that time or as the limits say. Valid as long as it
        is held.

        Raises Invalid (not Wasm, not a component, invalid, foreign imports, no `run`), LimitExceeded (size, compiling).
        """
        if len(wasm) > IMAGE_BYTES:
            raise LimitExceeded(f"the program has {len(wasm)} bytes, over {IMAGE_BYTES}", "IMAGE_BYTES")
        check_header(wasm)
        digest = (await asyncio.to_thread(hashlib.sha256, wasm)).hexdigest()
        program = self._programs.get(digest)
        if program is not None:
            self._found += 1
            return self._keep(program)
        task = self._loading.get(digest)
        if task is None:
            task = self._loading[digest] = asyncio.create_task(self._open(digest, wasm, wall_seconds))
            task.add_done_callback(lambda _: self._loading.pop(digest, None))
        return await asyncio.shield(task)    # others may wait for it too

    async def _open(self, digest: str, wasm: bytes, wall_seconds: float | None) -> Program:
        key = f"{digest}-{self._world}"
        component = await self._from_disk(key)
        if component is None:
            async with self._compiles:
                await self._artifacts.compile(key, wasm, wall_seconds)
            self._compiled += 1
            component = await asyncio.to_thread(self._deserialize, key)
        program = self._programs[digest] = Program(digest, component)
        return self._keep(program)

    async def _from_disk(self, key: str) -> Any:
        """None if it is not there, or made for another CPU: then it is compiled anew."""
        if not self._artifacts.has(key):
            return None
        try:
            component = await asyncio.to_thread(self._deserialize, key)
        except wasmtime.WasmtimeError:
            self._artifacts.discard(key)
            return None
        self._loaded += 1
        return component

    def _deserialize(self, key: str) -> Any:
        return components.Component.deserialize_file(self._host.engine, str(self._artifacts.path(key)))

    def _keep(self, program: Program) -> Program:
        self._kept[program.digest] = program
        self._kept.move_to_end(program.digest)
        if len(self._kept) > PROGRAMS_KEPT:
            self._kept.popitem(last=False)
        return program

    def instantiate(self, program: Program, process: Any, limits: ProcessLimits, wake: Callable[[], None],
                    export: str = "run") -> Guest:
        """A guest that has not run yet: call `advance`. Never blocks. Raises Invalid if there is no such export."""
        fiber = Fiber(self._host, program.component, program.export(export), limits.memory_bytes, limits.cpu_fuel)
        guest = Guest(fiber, process, wake, self._executor, self._guests.discard, limits.cpu_fuel)
        self._guests.add(guest)
        return guest

    def statistics(self) -> WasmStatistics:
        return WasmStatistics(len(self._guests), len(self._programs), self._compiled, self._loaded, self._found)

    def close(self) -> None:
        """Kills the guests, and waits for the slices that run on worker threads. Idempotent."""
        for task in list(self._loading.values()):
            task.cancel()
        for guest in list(self._guests):
            guest.close()
        self._executor.shutdown()

    def __enter__(self) -> WasmRuntime:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
