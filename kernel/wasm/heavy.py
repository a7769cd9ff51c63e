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

    Slices of several guests take turns: each goes to the end of the executor's queue. The loop knows of every slice, so
    that a virtual clock stands still meanwhile.
    """

    def __init__(self, executor: ThreadPoolExecutor, fiber: Fiber, resumed: Callable[[Step], None]) -> None:
        """Call on the event loop's thread."""
        self._executor, self._fiber, self._resumed = executor, fiber, resumed
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()        # guards the two below, and the fiber at the end of a slice
        self._away = False                   # a slice runs or is queued
        self._killed = False
        fiber.slice(SLICE_FUEL * HEAVY_SLICES)
        self._send()

    def _send(self) -> None:
        self._away = True
        self._loop.run_in_executor(self._executor, self._slice).add_done_callback(self._back)

    def _slice(self) -> Step:
        step = Step.SPENT if self._killed else self._fiber.poll_released()
        with self._lock:
            self._away = False
            if self._killed:
                self._fiber.close()
        return step

    def _back(self, answer: asyncio.Future[Step]) -> None:
        """On the event loop's thread, after each slice."""
        if self._killed or answer.cancelled():
            return
        step = answer.result()
        if step in (Step.SPENT, Step.STARTED):
            self._send()
        else:
            self._fiber.slice(SLICE_FUEL)
            self._resumed(step)

    def kill(self) -> None:
        """Closes the fiber: at once, or when its slice ends. `resumed` is not called any more."""
        with self._lock:
            self._killed = True
            if not self._away:
                self._fiber.close()
