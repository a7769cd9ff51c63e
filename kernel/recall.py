"""`Recall`: what is lost of a file is computed again, for somebody who reads its pages otherwise than by a pass."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np

from cadenza.kernel.device.batch import StepResult
from cadenza.kernel.passes import Row, Work
from cadenza.kvfs.errors import CadenzaError

if TYPE_CHECKING:
    from cadenza.kernel.batch_builder import BatchBuilder
    from cadenza.kernel.engine import Engine
    from cadenza.kvfs.file import File

_NOTHING = np.zeros(0, np.int32)


async def recall(engine: Engine, file: File) -> None:
    """Returns when no page of `file` is lost. Raises Busy, or what stood in the way."""
    work = Recall(engine, file)
    try:
        engine.add(work)
        if work.missing:
            await work.done
    finally:
        work.abort()


class Recall(Work):
    """A pass without inputs. `done` ends when nothing of its file is missing, or with what it failed with."""

    __slots__ = ("done",)

    def __init__(self, engine: Engine, file: File) -> None:
        """Marks `file` as being appended to. Raises Busy if it is already."""
        file.begin_append(adapter=file.adapter)
        super().__init__(engine, file, [], _NOTHING, _NOTHING, 0)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wanted(self) -> int:
        return self.missing

    def submit(self, builder: BatchBuilder, count: int) -> None:
        raise AssertionError("nothing is submitted beyond what is missing")

    def accept(self, result: StepResult, row: Row) -> None:
        if not self.missing and not self.under_way:
            self._end(None)

    def fail(self, error: CadenzaError) -> None:
        if not self.over:
            self._end(error)

    def _end(self, error: CadenzaError | None) -> None:
        self.release(len(self.file))
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
