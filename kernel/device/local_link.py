"""A link to a device in this process, for tests: steps at once, delivers when the step would have been done."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cadenza.kernel.device.batch import Batch, Device, DeviceFacts, StepResult, UInt8, adapting
from cadenza.kernel.device.link import Deliver
from cadenza.kvfs.errors import DeviceLost, Unsupported

log = logging.getLogger(__name__)


class LocalLink:
    """Owns its device. A step runs inside `submit`, and blocks for as long as the device does.

    Its result is delivered on the event loop after `result.seconds`, counted from the end of the step before it
    (`virtual_seconds`, for a device that only says what a step costs), or as soon as possible.
    """

    def __init__(self, device: Device, *, virtual_seconds: bool = True) -> None:
        self._device = device
        self.host: UInt8 = np.zeros((device.facts.host_pages, device.facts.page_bytes), np.uint8)
        device.attach(self.host)
        self._virtual_seconds = virtual_seconds
        self._waiting: deque[StepResult] = deque()
        self._idle_at = 0.0
        self._deliver: Deliver = lambda result: None
        self._lost: Callable[[str], None] = lambda reason: None
        self._gone = ""

    @property
    def facts(self) -> DeviceFacts:
        return self._device.facts

    def connect(self, deliver: Deliver, lost: Callable[[str], None]) -> None:
        self._deliver, self._lost = deliver, lost

    def submit(self, batch: Batch) -> None:
        """Raises DeviceLost after `fail` or `close`."""
        if self._gone:
            raise DeviceLost(f"the device is gone: {self._gone}")
        result = self._step(batch)
        self._waiting.append(result)
        loop = asyncio.get_running_loop()
        now = loop.time()
        if self._virtual_seconds:
            self._idle_at = max(self._idle_at, now) + result.seconds
        if self._idle_at > now:
            loop.call_at(self._idle_at, self._done)
        else:
            loop.call_soon(self._done)

    def give_masks(self, masks: Sequence[tuple[int, UInt8]]) -> None:
        raise NotImplementedError("a step here is over when it is submitted: no mask comes late")

    async def load_adapter(self, slot: int, directory: Path) -> None:
        adapting(self._device).load_adapter(slot, directory)

    def drop_adapter(self, slot: int) -> None:
        adapting(self._device).drop_adapter(slot)

    def fail(self, reason: str) -> None:
        """As if the device died now: what is under way never comes back, and `lost` is called, once."""
        if not self._gone:
            self._end(reason)
            self._lost(reason)

    async def restart(self) -> None:
        raise Unsupported("a device in this process is not started again")

    def close(self) -> None:
        """Idempotent. `lost` is not called."""
        if not self._gone:
            self._end("it was closed")

    def _step(self, batch: Batch) -> StepResult:
        try:
            return self._device.step(batch)
        except Exception as error:  # here the boundary of the worker process would be
            log.exception("step %d failed", batch.step)
            return StepResult(batch.step, error=f"{type(error).__name__}: {error}")

    def _done(self) -> None:
        """Each call brings the oldest result; none is left after the end."""
        if self._waiting:
            self._deliver(self._waiting.popleft())

    def _end(self, reason: str) -> None:
        self._gone = reason
        self._waiting.clear()
        self._device.close()
