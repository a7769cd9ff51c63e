"""Paging: what must come to the device before a pass can read it, and what makes room for it.

Pages move in steps: out to the host tier, then in from it, then the rows are computed. A frame taken away here may thus
be given to somebody else in the same step. What works have in hand is never taken away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cadenza.kernel.device.batch import Int32
from cadenza.kvfs.errors import CadenzaError
from cadenza.kvfs.pool import ABSENT
from cadenza.kvfs.tiers import Tiers

if TYPE_CHECKING:
    from cadenza.kernel.passes import Work
    from cadenza.kvfs.directory import FileSystem
    from cadenza.kvfs.file import File

Moves = list[tuple[int, int]]


class Pager:
    """Decides which pages lie where. Nothing here blocks; everything happens on the event loop's thread."""

    def __init__(self, files: FileSystem, tiers: Tiers) -> None:
        self.files = files
        self.pool = files.pool
        self.tiers = tiers
        self.next_step = 1                   # the step that will carry the moves asked for now
        self.works: Callable[[], Iterable[Work]] = lambda: ()           # all that is under way
        self.pump: Callable[[], None] = lambda: None                    # there are moves, or there is room
        self.load: Callable[[Work, list[int]], None] = _cannot_load     # from disk; calls `pump` when done
        self.spill: Callable[[int], None] = lambda pages: None          # makes room in the host tier, later
        self.swapped_out = 0
        self.swapped_in = 0
        self._outs: Moves = []
        self._ins: Moves = []
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    # --- what the engine asks ---

    @property
    def moving(self) -> bool:
        """Whether there are moves to make, if only for their own sake."""
        return bool(self._outs or self._ins)

    def take_moves(self) -> tuple[Int32, Int32]:
        """The moves of the step that is being submitted: out, [·, 2] of (frame, host page); in, the other way round."""
        outs, ins = (np.array(moves, np.int32).reshape(-1, 2) for moves in (self._outs, self._ins))
        self._outs, self._ins = [], []
        self.next_step += 1
        return outs, ins

    def answered(self, step: int) -> None:
        """Every step up to `step` is done."""
        self.tiers.answered(step)
        while self._waiting and self._waiting[0][0] <= step:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(None)

    def bring(self, work: Work) -> bool:
        """Whether all that `work` reads is on the device, or comes there in the next step. If not, it is being loaded
        from disk, and `pump` is called when that is done. Raises NoPages, and then brings nothing."""
        absent = list(dict.fromkeys(page for file in (work.file, *work.reads) for page in file.absent_pages()))
        if not all(page in self.tiers.host for page in absent):
            self.load(work, absent)
            return False
        if absent:
            self.enter(absent, [self.tiers.host[page] for page in absent])
            for page in absent:
                self.tiers.take_from_host(page, self.next_step)
        work.present = True
        return True

    def make_room(self, frames: int) -> bool:
        """Whether so many frames are free now: idle files that were used least recently leave the device for that."""
        wanted = frames - self.pool.free
        if wanted > 0:
            pinned = {page for work in self.works() for file in (work.file, *work.reads) for page in file.pages}
            self._push_out(self._victims(pinned), wanted)
        return self.pool.can_allocate(frames)

    # --- what storage asks ---

    def enter(self, pages: Sequence[int], hosts: Sequence[int]) -> None:
        """Absent pages come to the device from those host pages in the next step. Raises NoPages."""
        frames = self.pool.enter(pages)
        self._ins += zip(hosts, frames, strict=True)
        self.swapped_in += len(pages)

    def copy_out(self, pages: Sequence[int], hosts: Sequence[int]) -> None:
        """Pages on the device are copied to those host pages in the next step; they stay where they are."""
        self._outs += zip(self.pool.frames[pages].tolist(), hosts, strict=True)

    async def moved(self) -> None:
        """Returns when every move asked for by now has been made. Raises what the device was lost with."""
        step = self.next_step if self.moving else self.next_step - 1
        if step <= self.tiers.last_answered:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((step, future))
        self.pump()
        await future

    def lose(self, error: CadenzaError) -> None:
        """The device is gone: nothing moves any more."""
        while self._waiting:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_exception(error)

    def recount(self) -> None:
        """Raises AssertionError unless every used page lies somewhere, and each host page is counted once."""
        self.tiers.recount(page for file in self.files.living for page in file.pages)

    def statistics(self) -> dict[str, int]:
        return {"swapped_out": self.swapped_out, "swapped_in": self.swapped_in, **self.tiers.statistics()}

    def _victims(self, pinned: set[int]) -> Iterable[tuple[File, list[int]]]:
        """Idle files, least recently used first, with those of their pages that may leave."""
        frames, seen = self.pool.frames, set(pinned)
        for file in sorted(self.files.living, key=lambda file: file.used):
            pages = [page for page in dict.fromkeys(file.pages) if page not in seen and frames[page] != ABSENT]
            seen.update(pages)
            if pages:
                yield file, pages

    def _push_out(self, victims: Iterable[tuple[File, list[int]]], wanted: int) -> None:
        for file, pages in victims:
            if wanted <= 0:
                return
            leaving = self._leave(pages[-wanted:])
            if leaving:
                file.forget_room()
            wanted -= leaving
        if wanted > 0:
            self.spill(wanted)

    def _leave(self, pages: list[int]) -> int:
        """How many of `pages` left: those on disk at once, the others as the host tier has room."""
        tiers = self.tiers
        fresh = [page for page in pages if page not in tiers.stored]
        hosts = tiers.take_host_pages(len(fresh))
        moved = fresh[: len(hosts)]
        self._outs += zip(self.pool.frames[moved].tolist(), hosts, strict=True)
        for page, host in zip(moved, hosts, strict=True):
            tiers.put_on_host(page, host, self.next_step)
        leaving = [*moved, *(page for page in pages if page in tiers.stored)]
        self.pool.leave(leaving)
        self.swapped_out += len(moved)
        return len(leaving)


def _cannot_load(work: Work, pages: list[int]) -> None:
    raise AssertionError(f"pages {pages[:8]} lie nowhere")
