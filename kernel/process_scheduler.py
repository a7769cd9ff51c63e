"""Which program may run: guests that have something to do are run slice by slice, between events."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cadenza.kernel.turns import Turns
from cadenza.kernel.wasm.seams import Advance

if TYPE_CHECKING:
    from cadenza.kernel.process import Process

TURN_SECONDS = 0.005      # how long programs run before the event loop sees to sockets, timers and the device


class ProcessScheduler:
    """Runs slices of programs, in the order that `Turns` says; one whose slice is used up goes to the end."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._turn_is_due = False
        self.slices = 0

    def make_ready(self, process: Process) -> None:
        """`process` has something to do. It is queued already when this is called twice: callers see to that."""
        self._turns.add(process)
        if not self._turn_is_due:
            self._turn_is_due = True
            asyncio.get_running_loop().call_soon(self._turn)

    def ready(self) -> int:
        return len(self._turns)

    def _turn(self) -> None:
        now = time.monotonic()
        until = now + TURN_SECONDS
        try:
            while (process := self._turns.take(now)) is not None:
                self.slices += 1
                if process.advance() is Advance.READY:
                    self._turns.add(process)
                now = time.monotonic()
                if now >= until:
                    break
        finally:                             # a fault of ours in one program's slice must not stop the others
            self._turn_is_due = bool(self._turns)
            if self._turn_is_due:
                asyncio.get_running_loop().call_soon(self._turn)
