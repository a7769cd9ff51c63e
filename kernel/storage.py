"""Files on disk: what `sync` writes there, and what comes back from there when a pass needs it.

    sync    pages ──step──▶ staging ──thread──▶ slots ──▶ journal ──▶ the caller's handle is ready
    load    slots ──thread──▶ staging ──step──▶ pages ──▶ the work that needs them goes on
    spill   host tier ──thread──▶ slots: room in the host tier, for pages of files that are not durable

Staging is a part of the host tier that only this file uses: one buffer to write from, two in turn to read into. The
disk is touched in one thread that writes and two that read, a buffer each; the books are kept on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from cadenza.kernel.device.batch import UInt8
from cadenza.kernel.handles import Outcome
from cadenza.kernel.limits import PATIENCE_SECONDS, RETRY_SECONDS, STAGING_PAGES
from cadenza.kernel.pager import Pager
from cadenza.kvfs.access import Access
from cadenza.kvfs.durability import Restorer, naming_of, record_of, whole_pages
from cadenza.kvfs.errors import CadenzaError, DeviceLost, Internal, Invalid
from cadenza.kvfs.pool import ABSENT
from cadenza.kvfs.records import StoredPage
from cadenza.kvfs.store import Store

if TYPE_CHECKING:
    from cadenza.kernel.passes import Work
    from cadenza.kvfs.file import File

log = logging.getLogger(__name__)
T = TypeVar("T")


class Sync(Outcome[bool]):
    """One file on its way to disk. Closing it does not stop that."""

    what = "disk"


class Staging:
    """A run of host pages. Free again when its last move has been made."""

    def __init__(self, host: UInt8, first: int, pages: int) -> None:
        self.images = host[first : first + pages]
        self.first = first
        self.moved: Awaitable[None] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def hosts(self, count: int) -> range:
        return range(self.first, self.first + count)

    async def settle(self) -> None:
        moved, self.moved = self.moved, None
        if moved is not None:
            await moved


class Storage:
    """Moves pages between the disk and the other tiers. Nothing here blocks the event loop."""

    def __init__(self, store: Store, pager: Pager, host: UInt8) -> None:
        """The last STAGING_PAGES of `host`, [pages, page_bytes], are not the tiers'."""
        assert len(host) >= pager.tiers.host_pages + STAGING_PAGES, "no room for staging"
        self.store = store
        self._pager = pager
        self._tiers = pager.tiers
        self._host = host
        size = STAGING_PAGES // 3
        self._outgoing, *self._incoming = (
            Staging(host, len(host) - (at + 1) * size, size) for at in range(3)
        )
        self._writer = ThreadPoolExecutor(1, "cadenza-write")
        self._readers = ThreadPoolExecutor(2, "cadenza-read")
        self._writing = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loads: set[Work] = set()
        self._spilling = self._flushing = False
        pager.load, pager.spill = self.load, self.spill

    # --- sync ---

    def sync(self, file: File) -> Sync:
        """Ready when `file`, as it is now, is durable. Raises Invalid for a file without a name, Busy."""
        if not file.paths:
            raise Invalid(f"{file!r} cannot outlive its last descriptor: link it to a path, then sync", "file")
        sync = Sync()
        self._begin(self._sync(file, file.fork(), file.changes, sync))
        return sync

    async def _sync(self, file: File, snapshot: File, changes: int, sync: Sync) -> None:
        self._pager.kept.add(snapshot)
        try:
            if self._tiers.lost:
                await self._pager.recall(snapshot)
            async with self._writing:
                edges = await self._write(snapshot)
                try:
                    await self._commit(file, snapshot, edges)
                finally:
                    self.store.release([page.slot for page in edges.values()])
            file.synced = changes
            sync.succeed(True)
        except CadenzaError as error:
            sync.fail(error)
        except OSError as error:
            sync.fail(Internal(f"{file!r} could not be written: {error}; see to the disk, then sync again"))
        finally:
            self._pager.kept.discard(snapshot)
            snapshot.release()

    async def _commit(self, file: File, snapshot: File, edges: dict[int, StoredPage]) -> None:
        if not file.paths:
            raise Invalid(f"{file!r} lost its last name before it was durable", "file")
        file.number = file.number or self.store.new_number()
        self.store.stage(record_of(file, snapshot, self.store.layout, {**self._tiers.stored, **edges}))
        if not await self._in(self._writer, self.store.commit, file.number):
            raise Invalid(f"{file!r} lost its last name before it was durable", "file")

    def names_changed(self, files: Sequence[File]) -> None:
        """Of durable files, and of those that are becoming so: written down at once, together. Raises Internal when
        the disk does not take it."""
        try:
            self.store.change({file.number: naming_of(file) for file in files if file.number})
        except OSError as error:
            raise Internal(f"the journal could not be written: {error}; see to the disk") from error
        for file in files:
            if not file.paths:
                file.synced = -1
        self._flush_soon()

    def _flush_soon(self) -> None:
        """So that little is lost with the power, and that slots of what is no more are free again."""
        if self.store.unflushed and not self._flushing:
            self._flushing = True
            self._begin(self._flush())

    async def _flush(self) -> None:
        try:
            async with self._writing:
                self._flushing = False
                await self._in(self._writer, self.store.flush)
        except OSError as error:
            log.warning("names of files could not be flushed to disk: %s", error)

    async def _write(self, snapshot: File) -> dict[int, StoredPage]:
        """Every page of it is on disk then. Answers where those are that may still be written to, held once each."""
        whole = whole_pages(snapshot)
        left = [page for page in dict.fromkeys(snapshot.pages) if page not in self._tiers.stored]
        edges: dict[int, StoredPage] = {}
        while left:
            staged, left = await self._stage(left)
            for page, stored in zip(staged, await self._store(len(staged)), strict=True):
                if page not in whole:
                    edges[page] = stored
                elif page in self._tiers.stored:     # a spill was faster
                    self.store.release([stored.slot])
                else:
                    self._tiers.put_on_disk(page, stored)
        return edges

    async def _stage(self, pages: list[int]) -> tuple[list[int], list[int]]:
        """Brings the images of some of `pages` into the outgoing buffer, in order. Answers those, and the others."""
        frames, buffer = self._pager.pool.frames, self._outgoing
        present = [page for page in pages if frames[page] != ABSENT][: len(buffer)]
        if present:
            self._pager.copy_out(present, buffer.hosts(len(present)))
            await self._pager.moved()
            return present, [page for page in pages if page not in set(present)]
        await self._pager.moved()                    # what is going to the host tier is there
        there = [page for page in pages if page in self._tiers.host][: len(buffer)]
        if not there:
            raise DeviceLost("the device failed while its pages were written; sync again")
        for at, page in enumerate(there):
            buffer.images[at] = self._host[self._tiers.host[page]]
        return there, [page for page in pages if page not in set(there)]

    async def _store(self, count: int) -> list[StoredPage]:
        """Writes the first `count` images of the outgoing buffer to slots, held once each."""
        if not self.store.can_allocate(count):
            await self._in(self._writer, self.store.flush)
        slots = self.store.allocate(count)
        try:
            sums = await self._in(self._writer, self.store.write, slots, self._outgoing.images[:count])
        except BaseException:
            self.store.release(slots)
            raise
        return [StoredPage(slot, checksum) for slot, checksum in zip(slots, sums, strict=True)]

    # --- load ---

    def load(self, work: Work, pages: list[int]) -> None:
        """Brings `pages` to the device. Then `work` goes on, or fails with what went wrong."""
        if work not in self._loads:
            self._loads.add(work)
            self._begin(self._load(work, pages))

    async def _load(self, work: Work, pages: list[int]) -> None:
        try:
            async with self._reading:
                await self._bring(work, pages)
        except DeviceLost:
            pass                                     # it is read again, if the device comes back
        except CadenzaError as error:
            work.fail(error)
        except OSError as error:
            work.fail(Internal(f"{work.file!r} could not be read from disk: {error}"))
        finally:
            self._loads.discard(work)
            self._pager.pump()

    async def _bring(self, work: Work, pages: list[int]) -> None:
        with self._pager.pool.holding(pages):
            stored = [self._tiers.stored[page] for page in pages if page in self._tiers.stored]
            await self._in(self._readers, self.store.expect, stored)
            try:
                for at, chunk in enumerate(_chunks(pages, len(self._incoming[0]))):
                    buffer = self._incoming[at % 2]
                    await buffer.settle()
                    if work.over:
                        break
                    buffer.moved = asyncio.ensure_future(self._fetch(chunk, buffer))
            finally:                                 # nobody else may read into a buffer before that
                ended = await asyncio.gather(*(b.settle() for b in self._incoming), return_exceptions=True)
            for fault in ended:
                if isinstance(fault, BaseException):
                    raise fault

    async def _fetch(self, pages: list[int], buffer: Staging) -> None:
        """Reads those of `pages` that are on disk alone, and has them moved to the device."""
        frames, tiers = self._pager.pool.frames, self._tiers
        absent = [p for p in pages if frames[p] == ABSENT and p not in tiers.host]
        stored = [tiers.stored[page] for page in absent]
        await self._in(self._readers, self.store.read, stored, buffer.images[: len(absent)])
        there = {page: host for page, host in zip(absent, buffer.hosts(len(absent)), strict=True)
                 if frames[page] == ABSENT}
        await self._enter(list(there), list(there.values()))
        await self._pager.moved()

    async def _enter(self, pages: Sequence[int], hosts: Sequence[int]) -> None:
        """Raises NoPages when nothing made room for PATIENCE_SECONDS."""
        until = time.monotonic() + PATIENCE_SECONDS
        while not self._pager.make_room(len(pages)):
            if time.monotonic() > until:
                break
            await asyncio.sleep(RETRY_SECONDS)
        self._pager.enter(pages, hosts)

    # --- spill ---

    def spill(self, pages: int) -> None:
        """Some time from now the host tier has room for so many pages more."""
        if not self._spilling and self._tiers.host:
            self._spilling = True
            self._begin(self._spill(min(pages, len(self._outgoing))))

    async def _spill(self, count: int) -> None:
        try:
            await self._pager.moved()
            async with self._writing:
                await self._write_from_host(list(self._tiers.host)[:count])
        except (CadenzaError, OSError) as error:
            log.warning("the host tier could not be spilled to disk: %s", error)
        finally:
            self._spilling = False
            self._pager.pump()

    async def _write_from_host(self, pages: list[int]) -> None:
        hosts = [self._tiers.host[page] for page in pages]
        with self._pager.pool.holding(pages):
            for at, host in enumerate(hosts):
                self._outgoing.images[at] = self._host[host]
            for page, host, stored in zip(pages, hosts, await self._store(len(pages)), strict=True):
                if self._tiers.host.get(page) == host and page not in self._tiers.stored:
                    self._tiers.put_on_disk(page, stored)
                    self._tiers.take_from_host(page)
                else:                                # it was needed meanwhile
                    self.store.release([stored.slot])

    # --- the whole ---

    def restore(self) -> None:
        """Every durable file is there again under its names, its pages on disk alone. Once, before anything else."""
        files = self._pager.files
        restorer = Restorer(self._tiers, files.living)
        for record in list(self.store.files.values()):
            naming = record.naming
            file = restorer.restore(record, self.store.layout)
            files.place(file, naming.paths, Access(naming.mine, naming.others, naming.grants))
        files.names_changed = self.names_changed

    def recount(self) -> None:
        """Raises AssertionError unless slots on disk are held as it is counted; asks nothing while pages move."""
        if not self._tasks:
            self.store.recount(page.slot for page in self._tiers.stored.values())

    async def close(self) -> None:
        """What is under way is given up; what was synced is there. Idempotent."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._writer.shutdown()
        self._readers.shutdown()
        self.store.close()

    def _begin(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _in(self, thread: ThreadPoolExecutor, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, call, *arguments)


def _chunks(pages: list[int], size: int) -> Iterator[list[int]]:
    return (pages[first : first + size] for first in range(0, len(pages), size))
