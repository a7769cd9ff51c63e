"""Paging: what must come to the device before a pass can read it, and how pages leave it.

Pages move in steps: out to the host tier, then in from it, then the rows are computed. A frame taken away here may thus
be given to somebody else in the same step. Which pages leave, and how, a policy decides (reclaim.py); what works in
hand read is never taken away.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cadenza.kernel.device.batch import Int32
from cadenza.kvfs.errors import CadenzaError, DeviceLost
from cadenza.kvfs.pool import ABSENT
from cadenza.kvfs.tiers import Tiers

if TYPE_CHECKING:
    from cadenza.kernel.passes import Work
    from cadenza.kvfs.directory import FileSystem
    from cadenza.kvfs.file import File

Moves = list[tuple[int, int]]
NO_MOVES = np.zeros((0, 2), np.int32)


class LostRun(NamedTuple):
    """Tokens of a file, from offset `first` on, that lie in lost pages one after the other."""

    file: File
    first: int
    length: int


class Pager:
    """Keeps which pages lie where. Nothing here blocks; everything happens on the event loop's thread."""

    def __init__(self, files: FileSystem, tiers: Tiers) -> None:
        self.files = files
        self.pool = files.pool
        self.tiers = tiers
        self.next_step = 1                   # the step that will carry the moves asked for now
        self.budget = 0                      # pages that this step may still move in without being longer for it
        self.pump: Callable[[], None] = lambda: None                    # there are moves, or there is room
        self.make_room: Callable[[int], bool] = self.pool.can_allocate  # whether so many frames are free now
        self.load: Callable[[Work, list[int]], None] = _cannot_load     # from disk; calls `pump` when done
        self.spill: Callable[[int], None] = lambda pages: None          # makes room in the host tier, later
        self.recall: Callable[[File], Awaitable[None]] = _cannot_recall # computes what is lost of a file
        self.sources: set[int] = set()       # pages that this step copies: they stay until it has
        self.slots = {"": -1}                # where the device has which adapter
        self.kept: set[File] = set()         # nobody computes on them, but their pages stay where they are
        self.loading: set[Work] = set()      # what they read is on its way from disk
        self.swapped_out = 0
        self.swapped_in = 0
        self.discarded = 0
        self._regained: set[int] = set()     # pages that are computed again in this step
        self._slot_moves: list[Int32] = []   # in frames; before all else in the next step
        self._outs: Moves = []
        self._ins: Moves = []
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    # --- steps ---

    @property
    def moving(self) -> bool:
        """Whether there are moves to make, if only for their own sake."""
        return bool(self._outs or self._ins)

    def move_slots(self, moves: Int32) -> None:
        """Tokens of a file in hand move from slot to slot, [·, 2]: its pages are on the device, and nobody else's."""
        size = self.pool.page_tokens
        self._slot_moves.append(self.pool.frames[moves // size] * np.int32(size) + moves % size)

    def take_moves(self) -> tuple[Int32, Int32, Int32]:
        """The moves of the step that is being submitted: of slots, [·, 2]; of pages, out, [·, 2] of (frame, host page),
        and in, the other way round."""
        slots = np.concatenate(self._slot_moves) if self._slot_moves else NO_MOVES
        outs, ins = (np.array(moves, np.int32) if moves else NO_MOVES for moves in (self._outs, self._ins))
        self._slot_moves, self._outs, self._ins = [], [], []
        self._regained.clear()
        self.sources.clear()
        self.next_step += 1
        return slots, outs, ins

    def answered(self, step: int) -> None:
        """Every step up to `step` is done."""
        self.tiers.answered(step)
        while self._waiting and self._waiting[0][0] <= step:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_result(None)

    # --- coming ---

    def absent_pages(self, work: Work) -> list[int]:
        """Pages that `work` reads and that are not on the device, lost ones included; each once."""
        if not self.pool.absent:
            return []
        return list(dict.fromkeys(page for file in (work.file, *work.reads) for page in file.absent_pages()))

    def bring(self, work: Work) -> bool:
        """Whether all that `work` reads, but what is lost, is on the device, or comes there in the next step. If not,
        it comes later: as much of it in this step as the budget allows, or from disk, and `pump` is called when that is
        done. Raises NoPages, and then brings nothing."""
        away = [page for page in self.absent_pages(work) if page not in self.tiers.lost]
        on_disk = [page for page in away if page not in self.tiers.host]
        if on_disk:
            self.loading.add(work)
            self.load(work, on_disk)
            return False
        coming = away[: max(self.budget, 0)]
        self.make_room(len(coming))
        self.fetch(coming)
        work.present = len(coming) == len(away)
        return work.present

    def fetch(self, pages: Sequence[int]) -> None:
        """Absent pages come from the host tier in the next step, and stay there as well. Raises NoPages."""
        if pages:
            self.budget -= len(pages)
            self._ins += zip([self.tiers.host[page] for page in pages], self.pool.enter(pages), strict=True)
            for page in pages:
                self.tiers.enter(page, self.next_step)
            self.swapped_in += len(pages)

    def enter(self, pages: Sequence[int], hosts: Sequence[int]) -> None:
        """Absent pages come to the device from those host pages in the next step. Raises NoPages."""
        self._ins += zip(hosts, self.pool.enter(pages), strict=True)
        self.swapped_in += len(pages)

    def part_lost(self, work: Work) -> None:
        """A lost page of which a file has only the beginning, and others have more, is not computed for them: it gets a
        page of its own in place of it. Raises LimitExceeded."""
        for file in (work.file, *work.reads):
            table = file.table
            if self.tiers.lost and table.count and table.shares_last and table.last_page in self.tiers.lost:
                self.pool.ensure_quota(1, file.owner)
                page, = self.pool.reserve(1, file.owner)
                self.tiers.lost.add(page)
                file.own_table().replace_last(page)

    def lost_run(self, work: Work) -> LostRun | None:
        """The first tokens to be computed again before `work` can go on, if there are any."""
        if self.tiers.lost:
            size = self.pool.page_tokens
            for file in (work.file, *work.reads):
                gone = self._lost_places(file)
                if len(gone):
                    breaks = np.flatnonzero(np.diff(gone) != 1)
                    last = gone[breaks[0]] if len(breaks) else gone[-1]
                    first = int(gone[0]) * size
                    return LostRun(file, first, min(int(last + 1) * size, len(file)) - first)
        return None

    def lost_tokens(self, work: Work) -> int:
        """How many must be computed again before `work` can go on."""
        if not self.tiers.lost:
            return 0
        size = self.pool.page_tokens
        return sum(len(self._lost_places(file)) * size for file in (work.file, *work.reads))

    def is_recomputable(self, file: File) -> bool:
        """Whether its pages equal those that a plain prefill of its tokens gives, under its adapter."""
        return file.exact and file.contiguous and file.adapter in self.slots

    def ensure_recomputable(self, work: Work) -> None:
        """Raises DeviceLost if `work` reads what is lost and cannot be computed again."""
        lost = self.tiers.lost
        for file in (work.file, *work.reads) if lost else ():
            if not self.is_recomputable(file) and not lost.isdisjoint(file.absent_pages()):
                raise DeviceLost(f"{file!r}: some of its states went with the device that failed, and a plain prefill "
                                 "of its tokens does not give them again: make the file anew, or cut it back")

    def regain(self, pages: Sequence[int]) -> None:
        """Lost pages get frames, and are computed again in the next step. Raises NoPages."""
        self.make_room(len(pages))
        self.pool.enter(pages)
        self.tiers.lost.difference_update(pages)
        self._regained.update(pages)

    def is_copied_too_soon(self, file: File) -> bool:
        """Whether appending to `file` would copy a page that is computed only in the same step: copies come before."""
        return bool(self._regained) and file.table.shares_last and file.table.last_page in self._regained

    def _lost_places(self, file: File) -> Int32:
        """Where lost pages stand in a file. Only pages of files without parts are ever lost."""
        if file.parts.count:
            return np.zeros(0, np.int32)
        pages = file.table.pages()
        absent = np.flatnonzero(self.pool.frames[pages] == ABSENT)
        lost = self.tiers.lost
        return np.array([at for at in absent.tolist() if int(pages[at]) in lost], np.int32)

    # --- leaving ---

    def copy_to_host(self, pages: Sequence[int]) -> int:
        """The first of `pages`, on the device, are copied to the host in the next step, as many as it has room for.
        They stay; once they are written to again, the copies are forgotten. Answers how many."""
        fresh = [page for page in pages if page not in self.tiers.host]
        hosts = self.tiers.take_host_pages(len(fresh))
        fresh = fresh[: len(hosts)]
        if fresh:
            self._close(set(fresh))
            self.copy_out(fresh, hosts)
            for page, host in zip(fresh, hosts, strict=True):
                self.tiers.put_on_host(page, host, self.next_step)
            self.swapped_out += len(fresh)
        return len(fresh)

    def leave(self, pages: Sequence[int]) -> int:
        """Those of `pages`, on the device, that lie elsewhere as well leave it. Answers how many."""
        tiers = self.tiers
        leaving = [page for page in pages if page in tiers.host or page in tiers.stored]
        self.pool.leave(leaving)
        tiers.leave(leaving)
        return len(leaving)

    def discard(self, pages: Sequence[int]) -> int:
        """`pages`, on the device, leave it; those that lie nowhere else are lost: whoever reads them computes them
        again. Answers how many."""
        lost = [page for page in pages if page not in self.tiers.host and page not in self.tiers.stored]
        self.leave(pages)
        self.pool.leave(lost)
        self.tiers.lost.update(lost)
        self.discarded += len(lost)
        return len(pages)

    def _close(self, pages: set[int]) -> None:
        """Whoever could write to one of `pages` without asking asks first from now on: so copies are never stale. Of
        files that share their last page one may have room in it."""
        for file in self.files.living:
            file.forget_room(pages)

    # --- what storage asks ---

    def copy_out(self, pages: Sequence[int], hosts: Sequence[int]) -> None:
        """Pages on the device are copied to those host pages in the next step; they stay where they are."""
        self._outs += zip(self.pool.frames[list(pages)].tolist(), hosts, strict=True)

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
        """The device is gone: nothing that was to move does, and what lay there alone is lost."""
        self._slot_moves, self._outs, self._ins = [], [], []
        self._regained.clear()
        self.sources.clear()
        self.loading.clear()
        self.tiers.lose(self.next_step - 1)
        while self._waiting:
            future = self._waiting.popleft()[1]
            if not future.done():
                future.set_exception(error)

    def recount(self) -> None:
        """Raises AssertionError unless every used page lies where the books say, and each host page is counted once."""
        self.tiers.recount(page for file in self.files.living for page in file.pages)

    def statistics(self) -> dict[str, int]:
        return {"swapped_out": self.swapped_out, "swapped_in": self.swapped_in, "discarded": self.discarded,
                **self.tiers.statistics()}


def _cannot_load(work: Work, pages: list[int]) -> None:
    raise AssertionError(f"pages {pages[:8]} lie nowhere")


def _cannot_recall(file: File) -> Awaitable[None]:
    raise AssertionError(f"{file!r} has lost pages, and nobody computes them")
