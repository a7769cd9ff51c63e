"""Interface `events`: the one call that blocks, timers, clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from cadenza.kernel.handles import Timer, Wait, Waitable, WaitOne, unique
from cadenza.kernel.limits import TIMER_SECONDS, WAIT_HANDLES
from cadenza.kernel.process import Process
from cadenza.kernel.wasm.seams import quick
from cadenza.kvfs.errors import Invalid, LimitExceeded
from cadenza.syscalls.suspension import settled

NANOSECONDS = 1e-9


class EventCalls:
    @quick
    def wait(self, process: Process, handles: Any, until: str, timeout_ns: int | None, intents: Sequence[Any]) -> Any:
        """The one hot call: a list at once, or a Wait."""
        numbers = handles.tolist()
        if len(numbers) == 1 and timeout_ns is None:
            waitable = process.handles.get(numbers[0], Waitable)
            if intents:
                process.waiting_for = intents[0].tool
            return numbers if waitable.ready else WaitOne(numbers[0], waitable)
        numbers = unique(numbers)
        if len(numbers) > WAIT_HANDLES:
            raise LimitExceeded(f"{len(numbers)} handles in one wait; at most {WAIT_HANDLES}", "wait_handles")
        if not numbers and timeout_ns is None:
            raise Invalid("a wait for nothing and for ever would never end: give a handle or a timeout", "handles")
        get = process.handles.get
        wait = Wait(numbers, [get(n, Waitable) for n in numbers], every=until == "all")
        ready = wait.answer_now()
        if ready is not None:
            return ready
        process.waiting_for = intents[0].tool if intents else ""
        if timeout_ns is not None:
            delay = check_delay(timeout_ns)
            wait.expire_with(asyncio.get_running_loop().call_later(delay, wait.expire).cancel)
        return wait

    @quick
    def timer(self, process: Process, delay_ns: int) -> int:
        process.handles.ensure_room()
        delay = check_delay(delay_ns)
        timer = Timer()
        timer.cancel = asyncio.get_running_loop().call_later(delay, timer.signal).cancel
        return process.handles.add(timer)

    def close(self, process: Process, handle: int) -> Any:
        return settled(process.handles.close(handle))

    @quick
    def now(self, process: Process) -> int:
        return time.monotonic_ns()

    @quick
    def wall_clock(self, process: Process) -> int:
        return time.time_ns()


def check_delay(nanoseconds: int) -> float:
    """In seconds. Raises Invalid past TIMER_SECONDS."""
    seconds = nanoseconds * NANOSECONDS
    if seconds > TIMER_SECONDS:
        raise Invalid(f"{seconds:g} s is longer than any timer may run ({TIMER_SECONDS:g} s)", "delay")
    return seconds
