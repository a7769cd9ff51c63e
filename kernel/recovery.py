"""A device that was lost is started again, and programs go on as if it had only been slow.

    lost ──▶ what lay on it alone is lost: files are computed again when somebody reads them; what cannot be is told
         ──▶ work under way begins again from what is known of it, unless it was there too often when a device was lost
         ──▶ the device is built anew, adapters are loaded, the pump runs again; or, past DEVICE_RESTARTS, all fails
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from cadenza.kernel.limits import (
    DEVICE_LOSSES_PER_PASS,
    DEVICE_RESTART_SECONDS,
    DEVICE_RESTARTS,
    DEVICE_RESTARTS_WITHIN_SECONDS,
)
from cadenza.kvfs.errors import CadenzaError, DeviceLost, Unsupported

if TYPE_CHECKING:
    from cadenza.kernel.engine import Engine
    from cadenza.kernel.passes import Work

log = logging.getLogger(__name__)


async def _nothing() -> None:
    pass


class Recovery:
    """Of one engine. `reload` is awaited when the device is there again, before anything is submitted."""

    def __init__(self, engine: Engine) -> None:
        self.reload: Callable[[], Awaitable[None]] = _nothing
        self.changed: Callable[[bool], None] = lambda there: None      # the device has gone, or is there again
        self.losses = 0
        self._engine = engine
        self._begun: deque[float] = deque(maxlen=DEVICE_RESTARTS)      # when it was started again, lately
        self._task: asyncio.Task[None] | None = None

    def begin(self, reason: str, works: Iterable[Work], suspects: frozenset[Work]) -> None:
        """The device has just been lost. `suspects`: those of `works` that had rows under way."""
        log.error("the device is gone: %s", reason)
        self.losses += 1
        self.changed(False)
        error = DeviceLost(f"the device failed ({reason}); what it held is gone")
        self._engine.pager.lose(error)
        for work in list(works):
            self._begin_again(work, error, work in suspects)
        if self._task is None:
            self._task = asyncio.ensure_future(self._restart(error))

    async def close(self) -> None:
        """Gives up what is under way. Idempotent."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _begin_again(self, work: Work, error: DeviceLost, is_suspect: bool) -> None:
        work.losses += is_suspect
        if work.losses >= DEVICE_LOSSES_PER_PASS:
            work.fail(DeviceLost(f"{error.message}; this was under way {work.losses} times when that happened"))
            return
        work.trace.preempted()
        work.begin_again()
        try:
            self._engine.pager.ensure_recomputable(work)
        except DeviceLost as beyond:
            work.fail(beyond)

    async def _restart(self, error: DeviceLost) -> None:
        """Until the device is there, or it has been tried too often."""
        clock = asyncio.get_running_loop().time
        while len(self._begun) < DEVICE_RESTARTS or clock() - self._begun[0] > DEVICE_RESTARTS_WITHIN_SECONDS:
            self._begun.append(clock())
            try:
                await self._engine.link.restart()
                await self.reload()
            except Unsupported as fault:
                log.error("%s", fault)
                break
            except (CadenzaError, OSError) as fault:
                log.error("the device could not be started again: %s", fault)
                await asyncio.sleep(DEVICE_RESTART_SECONDS)
                continue
            log.warning("the device is back after %.1f s", clock() - self._begun[-1])
            self._task = None
            self._engine.come_back()
            self.changed(True)
            return
        log.error("the device does not come back: restart the daemon")
        self._engine.give_up(error)
