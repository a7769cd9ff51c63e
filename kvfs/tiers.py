"""Where the images of pages lie, beside the frames of the device: in pages of the host tier, and in slots on disk.

    frame ◀── a step ──▶ host page ◀── the kernel ──▶ slot on disk
    pool.frames          host                         stored

A used page lies in one of the three at least. A host page that a step names is the device's until that step has been
answered; then it is free again, if its page needs it no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cadenza.kvfs.pool import ABSENT, PagePool

if TYPE_CHECKING:
    from cadenza.kvfs.records import StoredPage
    from cadenza.kvfs.store import Store


class Tiers:
    """The books only: nothing is moved here. `store` keeps those of the slots that pages hold."""

    def __init__(self, pool: PagePool, host_pages: int, store: Store | None = None) -> None:
        self.pool = pool
        self.host: dict[int, int] = {}               # host page of each page that lies there
        self.stored: dict[int, StoredPage] = {}      # where on disk each page lies
        self.host_pages = host_pages
        self._store = store
        self._free = list(range(host_pages - 1, -1, -1))
        self._written: dict[int, int] = {}           # by which step each host page is written
        self.last_answered = 0                       # step
        self._cooling: deque[tuple[int, int]] = deque()   # (step that names it, host page), in the order of steps
        pool.when_forgotten(self.forget)

    @property
    def free_host_pages(self) -> int:
        return len(self._free)

    def take_host_pages(self, count: int) -> list[int]:
        """At most `count`, as many as are free."""
        count = min(count, len(self._free))
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        return taken

    def free_host_page(self, host: int, step: int = 0) -> None:
        """It may be written to again once `step`, the last that names it, has been answered."""
        if step > self.last_answered:
            self._cooling.append((step, host))
        else:
            self._free.append(host)

    def answered(self, step: int) -> None:
        """Every step up to `step` is over."""
        self.last_answered = step
        while self._cooling and self._cooling[0][0] <= step:
            self._free.append(self._cooling.popleft()[1])

    def put_on_host(self, page: int, host: int, step: int) -> None:
        """It is written to in `step`."""
        self.host[page] = host
        self._written[page] = step

    def take_from_host(self, page: int, step: int = 0) -> int:
        """Answers the host page that `page` lay in, free once `step` has read it."""
        host = self.host.pop(page)
        self.free_host_page(host, max(step, self._written.pop(page)))
        return host

    def put_on_disk(self, page: int, stored: StoredPage) -> None:
        """Takes over a hold on the slot."""
        assert page not in self.stored, f"page {page} is on disk twice"
        self.stored[page] = stored

    def hold_on_disk(self, page: int, stored: StoredPage) -> None:
        """As `put_on_disk`, with a hold of its own."""
        self._slots.hold(stored.slot)
        self.put_on_disk(page, stored)

    def forget(self, page: int) -> None:
        """What lies elsewhere is no longer this page's contents."""
        if page in self.host:
            self.take_from_host(page)
        stored = self.stored.pop(page, None)
        if stored is not None:
            self._slots.release([stored.slot])

    def recount(self, used: Iterable[int]) -> None:
        """Raises AssertionError unless each used page lies somewhere, and each host page is counted once."""
        lost = [p for p in used if self.pool.frames[p] == ABSENT and p not in self.host and p not in self.stored]
        assert not lost, f"pages {lost[:8]} lie nowhere"
        books = [*self._free, *(host for _, host in self._cooling), *self.host.values()]
        assert len(books) == len(set(books)), "a host page is counted twice"

    @property
    def _slots(self) -> Store:
        assert self._store is not None, "a page is on disk, and there is no store"
        return self._store

    def statistics(self) -> dict[str, int]:
        return {"host_pages": self.host_pages, "on_host": len(self.host), "on_disk": len(self.stored)}
