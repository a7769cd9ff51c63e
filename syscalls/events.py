"""Interface `events`: the one call that blocks, timers, clocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from cadenza.kernel.handles import Timer, Wait, Waitable, WaitOne, unique
from cadenza.kernel.limits import TIMER_SECONDS, TOPIC_BYTES, WAIT_HANDLES
from cadenza.kernel.passes import Work
from cadenza.kernel.process import Process
from cadenza.kernel.waits import Intent
from cadenza.kernel.wasm.seams import quick
from cadenza.kvfs.errors import Invalid, LimitExceeded
from cadenza.syscalls.suspension import Expecting, settled

NANOSECONDS = 1e-9


class EventCalls:
    @quick
    def wait(self, process: Process, handles: Any, until: str, timeout_ns: int | None, intents: Sequence[Any]) -> Any:
        """The one hot call: a list at once, or a suspension."""
        numbers = handles.tolist()
        if len(numbers) == 1 and timeout_ns is None:
            waitable = process.handles.get(numbers[0], Waitable)
            if waitable.ready:
                return numbers
            one = WaitOne(numbers[0], waitable)
            return Expecting(process, one, fetch_intents(numbers, [waitable], intents)) if (
                intents or waitable.what) else one
        numbers = unique(numbers)
        if len(numbers) > WAIT_HANDLES:
            raise LimitExceeded(f"{len(numbers)} handles in one wait; at most {WAIT_HANDLES}", "wait_handles")
        if not numbers and timeout_ns is None:
            raise Invalid("a wait for nothing and for ever would never end: give a handle or a timeout", "handles")
        get = process.handles.get
        waitables = [get(n, Waitable) for n in numbers]
        wait = Wait(numbers, waitables, every=until == "all")
        ready = wait.answer_now()
        if ready is not None:
            return ready
        delay = 0.0
        if timeout_ns is not None:
            delay = check_delay(timeout_ns)
            wait.expire_with(asyncio.get_running_loop().call_later(delay, wait.expire).cancel)
        expected = fetch_intents(numbers, waitables, intents)
        if timeout_ns is not None and until == "any" and (expected or not numbers):
            expected.append(Intent(0, "timer", delay, certain=True))
        if not expected:
            return wait
        beside = any(isinstance(each, Work) and not each.ready for each in waitables)
        return Expecting(process, wait, expected, every=until == "all", beside=beside)

    @quick
    def timer(self, process: Process, delay_ns: int) -> int:
        process.handles.ensure_room()
        loop = asyncio.get_running_loop()
        timer = Timer(loop.time() + check_delay(delay_ns))
        timer.cancel = loop.call_at(timer.at, timer.signal).cancel
        return process.handles.add(timer)

    def close(self, process: Process, handle: int) -> Any:
        closed = process.handles.close(handle)
        process.waits.closed(process, handle, ended=isinstance(closed, Timer))
        return settled(closed)

    @quick
    def now(self, process: Process) -> int:
        """Of the loop's clock, which timers and waits go by: it may be a virtual one."""
        return round(asyncio.get_running_loop().time() / NANOSECONDS)

    @quick
    def wall_clock(self, process: Process) -> int:
        return time.time_ns()


def fetch_intents(numbers: Sequence[int], waitables: Sequence[Waitable], records: Sequence[Any]) -> list[Intent]:
    """What the program says of those that are not ready; of the others, what they are. Names are cut to TOPIC_BYTES."""
    said = {record.handle: record for record in records}
    intents: list[Intent] = []
    for number, waitable in zip(numbers, waitables, strict=True):
        record = said.get(number)
        if waitable.ready:
            continue
        if record is not None and (record.tool or (waitable.what and not isinstance(waitable, Timer))):
            expected = None if record.expected_ns is None else record.expected_ns * NANOSECONDS
            intents.append(Intent(number, (record.tool or waitable.what)[:TOPIC_BYTES], expected))
        elif isinstance(waitable, Timer):
            left = max(0.0, waitable.at - asyncio.get_running_loop().time())
            intents.append(Intent(number, waitable.what, left, certain=True))
        elif waitable.what:
            intents.append(Intent(number, waitable.what))
    return intents


def check_delay(nanoseconds: int) -> float:
    """In seconds. Raises Invalid past TIMER_SECONDS."""
    seconds = nanoseconds * NANOSECONDS
    if seconds > TIMER_SECONDS:
        raise Invalid(f"{seconds:g} s is longer than any timer may run ({TIMER_SECONDS:g} s)", "delay")
    return seconds
