"""Reclaiming: carries out what the memory policy orders, and makes room when frames are needed.

Who makes room, first to last: files that nobody waits for, least recently used; programs that wait, as the policy says;
passes that have not begun, the last in line first. What passes in hand read is never taken away.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.costs import Costs
from cadenza.kernel.memory.policy import Idle, MemoryPolicy, Room, Victim, Way
from cadenza.kernel.pager import Pager
from cadenza.kernel.waits import Waiting, Waits
from cadenza.kvfs.pool import ABSENT

if TYPE_CHECKING:
    from cadenza.kernel.passes import Work

Bool = NDArray[np.bool_]
Int32 = NDArray[np.int32]
_NONE = np.zeros(0, np.int32)
SECONDS_EACH = 2e-4                   # between two questions, for each program that waits: a bounded part of the time
SPARE = 128                           # of so many frames, one more than is needed is made free at a time


class Reclaimer:
    """Between the engine, the pager and the policy. `works`: all that is under way; `admitted`: what is in hand."""

    def __init__(self, pager: Pager, policy: MemoryPolicy, waits: Waits, costs: Costs) -> None:
        self.policy = policy
        self.waits = waits
        self.costs = costs
        self.step_tokens = 1                                  # of the last step
        self.works: Callable[[], Iterable[Work]] = lambda: ()
        self.admitted: Callable[[], Iterable[Work]] = lambda: ()
        self._changes = -1                                    # of waits, when the policy was asked last
        self._look_at = 0.0                                   # when it wants to be asked again
        self._patient_until = 0.0                             # not asked before for what programs that wait do
        self._to_copy: deque[Idle] = deque()
        self._pager = pager
        self._pool = pager.pool
        pager.make_room = self.make_room

    # --- what the engine asks ---

    def begin_step(self) -> None:
        """Sets what the coming step may move without being longer for it; but something always may, or a device of
        slow moves would never have any."""
        self._pager.budget = max(1, self.costs.pages_within(self.costs.forward(self.step_tokens)))

    @property
    def look_at(self) -> float | None:
        """When the policy is to be asked again though nothing happens."""
        when = self._look_at if self._changes == self.waits.changes else min(self._look_at, self._patient_until)
        return when if self.waits.waiting and when < math.inf else None

    def unasked(self) -> None:
        """Carries out what the policy orders without need."""
        if not self.waits.waiting:
            return
        now = asyncio.get_running_loop().time()
        if now >= self._look_at or (self._changes != self.waits.changes and now >= self._patient_until):
            self._patient_until = now + SECONDS_EACH * len(self.waits.waiting)
            orders = self.policy.unasked(now, self._idle(now, self._pinned()), self._room())
            self._changes, self._look_at = self.waits.changes, now + orders.again
            self._to_copy = deque(orders.copy)
            for victim in orders.leave:
                self._evict(victim)
            if orders.fetch:
                self._pager.fetch(orders.fetch)
        if self._to_copy and self._pager.budget > 0:
            self._copy_some()

    def _copy_some(self) -> None:
        """As much of what is to be copied as the step hides. A page that is written to afterwards is dirty again."""
        frames, pinned = self._pool.frames, self._pinned()
        while self._to_copy and self._pager.budget > 0:
            idle = self._to_copy[0]
            dirty = [page for page in idle.dirty if not pinned[page] and frames[page] != ABSENT]
            some = dirty[: self._pager.budget]
            copied = self._pager.copy_to_host(some)
            self._pager.budget -= copied
            if copied < len(some):
                self._to_copy.clear()                         # the host has no room
            elif len(some) == len(dirty):
                self._to_copy.popleft()

    def make_room(self, frames: int, keeping: Work | None = None) -> bool:
        """Whether so many frames are free now: pages leave for that, but not those that `keeping` reads."""
        if frames > self._pool.free:
            pinned = self._pinned()
            if keeping is not None:
                self._mark(pinned, keeping)
            for leave in (self._from_cold, self._from_waiting, self._from_pending):
                leave(frames, pinned)
                if frames <= self._pool.free:
                    return True
            self._pager.spill(frames - self._pool.free)
        return self._pool.can_allocate(frames)

    def set_aside(self, work: Work) -> None:
        """Work in hand makes room for others: its pages go to the host, or, if that has none left, are given back and
        what it has fed is fed again. It does not notice. Only while no row of it is under way."""
        pages = work.file.pages
        fresh = [page for page in pages if page not in self._pager.tiers.host]
        work.admitted = work.present = False
        if len(fresh) > self._pager.tiers.free_host_pages:
            work.preempt()
            return
        here = self._here(np.array(pages, np.int32), self._pinned())
        self._let_go(here, len(here), Way.SWAP)

    # --- who makes room ---

    def _from_cold(self, frames: int, pinned: Bool) -> None:
        held = {file for waiting in self.waits.waiting.values() for file in waiting.process.files}
        cold = [file for file in self._pager.files.living if not file.busy and file not in held]
        for file in sorted(cold, key=lambda file: (file.used, file.created_ns)):
            wanted = frames - self._pool.free
            if wanted <= 0:
                return
            pages = self._here(np.array(list(dict.fromkeys(file.pages)), np.int32), pinned)
            self._let_go(pages, wanted, Way.SWAP)

    def _from_waiting(self, frames: int, pinned: Bool) -> None:
        now = asyncio.get_running_loop().time()
        frames += self._pool.total // SPARE                   # so that it is not asked for every page
        for victim in self.policy.victims(now, self._idle(now, pinned), self._room()):
            wanted = frames - self._pool.free
            if wanted <= 0:
                return
            self._evict(victim._replace(pages=min(victim.pages, wanted)))
            self._look_at = now                               # there is somebody now to be fetched for

    def _from_pending(self, frames: int, pinned: Bool) -> None:
        pending = [work for work in self.works() if not work.admitted]
        for work in sorted(pending, key=lambda work: (-work.arrival, -work.sequence)):
            wanted = frames - self._pool.free
            if wanted <= 0:
                return
            self._let_go(self._here(work.file.table.pages(), pinned), wanted, Way.SWAP)

    # --- how ---

    def _evict(self, victim: Victim) -> None:
        way = victim.way if victim.idle.recomputable else Way.SWAP
        self._let_go(victim.idle.here.tolist(), victim.pages, way)

    def _let_go(self, pages: list[int], count: int, way: Way) -> None:
        """The last `count` of them leave: swapped out, or discarded, if that is wanted or the host has no more room.
        Those stay for which there is neither room nor a plain prefill that would give them again."""
        count = min(count, len(pages))
        if count and way is Way.SWAP:
            some = pages[-count:]
            self._pager.budget -= self._pager.copy_to_host(some)
            count -= self._pager.leave(some)
        if count:
            needed, frames = self._irreplaceable(), self._pool.frames
            can = [page for page in pages if frames[page] != ABSENT and not needed[page]]
            self._pager.discard(can[-count:])

    # --- what is where ---

    def _room(self) -> Room:
        pool, pager = self._pool, self._pager
        promised = sum(1 + (work.growth() if work.prefilling else 0) for work in self.admitted())
        return Room(pool.total, pool.free, promised, pool.page_tokens, self.step_tokens, pager.budget,
                    pager.tiers.free_host_pages, self.costs)

    def _idle(self, now: float, pinned: Bool) -> list[Idle]:
        """A page that several hold is the one's that is back first, or last if the policy does not see it shared."""
        sign = 1 if self.policy.shares else -1
        waiting = [each for each in self.waits.waiting.values() if len(each.process.files)]
        order = sorted(waiting, key=lambda each: (sign * each.remaining(now), each.process.pid))
        taken, frames = pinned.copy(), self._pool.frames
        found: list[Idle] = []
        for each in order:
            pages = self._pages(each)
            own = pages[~taken[pages]]
            if len(own):
                taken[own] = True
                present = frames[own] != ABSENT
                here, absent = (own, _NONE) if present.all() else (own[present], own[~present])
                found.append(Idle(each, here, absent, self._pager.tiers, recomputable=each.recomputable))
        return found

    def _pages(self, waiting: Waiting) -> Int32:
        """Those of the files that its program holds; remembered while those do not change."""
        files = [file for file in dict.fromkeys(waiting.process.files) if not file.busy]
        changes = sum(file.changes for file in files) + len(files)
        if waiting.pages is None or waiting.changes != changes:
            waiting.pages = np.array(list(dict.fromkeys(p for file in files for p in file.pages)), np.int32)
            waiting.recomputable = all(self._pager.is_recomputable(file) for file in files)
            waiting.changes = changes
        return waiting.pages

    def _here(self, pages: Int32, pinned: Bool) -> list[int]:
        here: list[int] = pages[~pinned[pages] & (self._pool.frames[pages] != ABSENT)].tolist()
        return here

    def _pinned(self) -> Bool:
        """Of every page, whether it stays: what work in hand reads."""
        pinned = np.zeros(len(self._pool.frames), np.bool_)
        for work in self.admitted():
            self._mark(pinned, work)
        for file in self._pager.kept:
            pinned[file.pages] = True
        pinned[list(self._pager.sources)] = True
        return pinned

    def _mark(self, pinned: Bool, work: Work) -> None:
        for file in (work.file, *work.reads):
            pinned[file.pages] = True

    def _irreplaceable(self) -> Bool:
        """Of every page, whether somebody holds it whose tokens a plain prefill would not give again, or not all of
        them: the last page of one file may hold less of what another has in it."""
        needed = np.zeros(len(self._pool.frames), np.bool_)
        for file in self._pager.files.living:
            if not self._pager.is_recomputable(file):
                needed[file.pages] = True
            elif file.table.shares_last:
                needed[file.table.last_page] = True
        return needed
