"""A guest that computes for long continues on a worker thread, slice by slice, until it calls or ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cadenza.kernel.limits import HEAVY_SLICES, SLICE_FUEL
from cadenza.kernel.wasm.fiber_unsafe import Fiber, Step


class HeavyRun:
    """Owns `fiber` from creation until `resumed(step)` is called on the event loop, or until `kill`.

    Slices of several guests take turns: each goes to the end of the executor's queue.
    """

    def __init__(self, executor: ThreadPoolExecutor, fiber: Fiber, resumed: Callable[[Step], None]) -> None:
        """Call on the event loop's thread."""
        self._executor, self._fiber, self._resumed = executor, fiber, resumed
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()        # guards the two below, and the fiber between slices
        self._owned = True                   # a slice runs or is queued
        self._killed = False
        fiber.slice(SLICE_FUEL * HEAVY_SLICES)
        executor.submit(self._slice)

    def _slice(self) -> None:
        step = Step.SPENT if self._killed else self._fiber.poll_released()
        with self._lock:
            if self._killed:
                self._fiber.close()
                return
            self._owned = step in (Step.SPENT, Step.STARTED)
            if self._owned:
                self._executor.submit(self._slice)
                return
            self._fiber.slice(SLICE_FUEL)
        self._loop.call_soon_threadsafe(self._resumed, step)

    def kill(self) -> None:
        """Closes the fiber: at once, or when its slice ends. `resumed` may still be called."""
        with self._lock:
            self._killed = True
            if not self._owned:
                self._fiber.close()
