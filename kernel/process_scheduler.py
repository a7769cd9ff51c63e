"""Which program may run: a queue of guests that have something to do, run slice by slice between events."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from cadenza.kernel.wasm.seams import Advance

if TYPE_CHECKING:
    from cadenza.kernel.process import Process

TURN_SECONDS = 0.005      # how long programs run before the event loop sees to sockets, timers and the device


class ProcessScheduler:
    """Higher priority first, else first come first served; a program whose slice is used up goes to the end."""

    def __init__(self) -> None:
        self._queues: dict[int, deque[Process]] = {}         # by priority; none is empty
        self._highest = 0                                    # of the priorities that have a queue
        self._turn_is_due = False
        self.slices = 0

    def make_ready(self, process: Process) -> None:
        """`process` has something to do. It is queued already when this is called twice: callers see to that."""
        self._queue(process)
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def ready(self) -> int:
        return sum(len(queue) for queue in self._queues.values())

    def _turn(self) -> None:
        until = time.monotonic() + TURN_SECONDS
        try:
            while self._queues:
                self.slices += 1
                process = self._next()
                if process.advance() is Advance.READY:
                    self._queue(process)
                if time.monotonic() >= until:
                    break
        finally:                             # a fault of ours in one program's slice must not stop the others
            self._turn_is_due = bool(self._queues)
            if self._turn_is_due:
                asyncio.get_running_loop().call_soon(self._turn)

    def _queue(self, process: Process) -> None:
        priority = process.priority
        queue = self._queues.get(priority)
        if queue is not None:
            queue.append(process)
        else:
            self._queues[priority] = deque((process,))
            self._highest = max(self._queues)

    def _next(self) -> Process:
        queue = self._queues[self._highest]
        process = queue.popleft()
        if not queue:
            del self._queues[self._highest]
            self._highest = max(self._queues, default=0)
        return process
