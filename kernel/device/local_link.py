"""A link to a device in this process, for tests: steps at once, delivers when the step would have been done."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from cadenza.kernel.device.batch import Batch, Device, DeviceFacts, StepResult
from cadenza.kernel.device.link import Deliver
from cadenza.kvfs.errors import DeviceLost

log = logging.getLogger(__name__)


class LocalLink:
    """Owns its device. A step runs inside `submit`, and blocks for as long as the device does.

    Its result is delivered on the event loop after `result.seconds`, counted from the end of the step before it
    (`virtual_seconds`, for a device that only says what a step costs), or as soon as possible.
    """

    def __init__(self, device: Device, *, virtual_seconds: bool = True) -> None:
        self._device = device
        self._virtual_seconds = virtual_seconds
        self._waiting: deque[asyncio.Handle] = deque()
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
        loop = asyncio.get_running_loop()
        if self._virtual_seconds and result.seconds:
            self._idle_at = max(self._idle_at, loop.time()) + result.seconds
        handle: asyncio.Handle = loop.call_at(self._idle_at, self._done, result)
        self._waiting.append(handle)

    def fail(self, reason: str) -> None:
        """As if the device died now: what is under way never comes back, and `lost` is called soon, once."""
        if not self._gone:
            self._end(reason)
            asyncio.get_running_loop().call_soon(self._lost, reason)

    def close(self) -> None:
        """Idempotent. `lost` is not called."""
        if not self._gone:
            self._end("it was closed")

    def _step(self, batch: Batch) -> StepResult:
        try:
            return self._device.step(batch)
        except Exception as error:  # noqa: BLE001  here the worker's process boundary would be
            log.exception("step %d failed", batch.step)
            return StepResult(batch.step, error=f"{type(error).__name__}: {error}")

    def _done(self, result: StepResult) -> None:
        self._waiting.popleft()
        self._deliver(result)

    def _end(self, reason: str) -> None:
        self._gone = reason
        while self._waiting:
            self._waiting.popleft().cancel()
        self._device.close()
