"""Where the images of pages lie, beside the frames of the device: in pages of the host tier, and in slots on disk.

    frame ◀── a step ──▶ host page ◀── the kernel ──▶ slot on disk
    pool.frames          host                         stored

A used page lies in one of the three at least, or it is *lost*: then whoever needs it computes its tokens again. A page
on the device that lies on the host too is *clean*: it can leave at once, and its host page is there for others. A host
page that a step names is the device's until that step has been answered; then it is free again, if its page needs it
no more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
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
        self.clean: dict[int, None] = {}             # of those on the host, the ones on the device too; oldest first
        self.lost: set[int] = set()                  # used pages that lie nowhere
        self.host_pages = host_pages
        self._store = store
        self._free = list(range(host_pages - 1, -1, -1))
        self._named: dict[int, int] = {}             # the last step that names the host page of each page
        self._written: dict[int, int] = {}           # the step that wrote each page to the host
        self.last_answered = 0                       # step
        self._cooling: deque[tuple[int, int]] = deque()   # (step that names it, host page), in the order of steps
        pool.when_forgotten(self.forget)

    @property
    def free_host_pages(self) -> int:
        """Those that can be taken."""
        return len(self._free) + len(self.clean)

    def take_host_pages(self, count: int) -> list[int]:
        """At most `count`, as many as are free: clean pages give up theirs if they must, the oldest first."""
        for page in list(islice(self.clean, max(0, count - len(self._free)))):
            self.take_from_host(page)
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
        """A page on the device is written there in `step`."""
        self.host[page] = host
        self._named[page] = self._written[page] = step
        self.clean[page] = None

    def take_from_host(self, page: int) -> int:
        """Answers the host page that `page` lay in, free once the last step that names it is over."""
        host = self.host.pop(page)
        self.clean.pop(page, None)
        del self._written[page]
        self.free_host_page(host, self._named.pop(page))
        return host

    def leave(self, pages: Iterable[int]) -> None:
        """They lie on the device no more."""
        for page in pages:
            self.clean.pop(page, None)

    def enter(self, page: int, step: int) -> int:
        """A page comes to the device in `step`. Answers the host page that it comes from, where it lies still."""
        self._named[page] = step
        self.clean[page] = None
        return self.host[page]

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
        self.lost.discard(page)
        if page in self.host:
            self.take_from_host(page)
        stored = self.stored.pop(page, None)
        if stored is not None:
            self._slots.release([stored.slot])

    def lose(self, last_step: int) -> None:
        """The device is gone, after so many steps: what was on its way to the host is not there, and what lay nowhere
        else is lost."""
        for page in [page for page, step in self._written.items() if step > self.last_answered]:
            self.take_from_host(page)
        used = self.pool.lose()
        self.clean.clear()
        self.lost.update(page for page in used if page not in self.host and page not in self.stored)
        self.answered(last_step)

    def recount(self, used: Iterable[int]) -> None:
        """Raises AssertionError unless each used page lies somewhere or is lost, and each host page is counted once."""
        frames, lost = self.pool.frames, self.lost
        absent = {page for page in used if frames[page] == ABSENT}
        nowhere = [page for page in absent if page not in self.host and page not in self.stored]
        assert lost == set(nowhere), f"lost pages {sorted(lost ^ set(nowhere))[:8]} are counted wrongly"
        books = [*self._free, *(host for _, host in self._cooling), *self.host.values()]
        assert len(books) == len(set(books)), "a host page is counted twice"
        present = {page for page in self.host if frames[page] != ABSENT}
        assert present == set(self.clean), f"clean pages {sorted(present ^ set(self.clean))[:8]} are counted wrongly"

    @property
    def _slots(self) -> Store:
        assert self._store is not None, "a page is on disk, and there is no store"
        return self._store

    def statistics(self) -> dict[str, int]:
        return {"host_pages": self.host_pages, "on_host": len(self.host), "on_disk": len(self.stored),
                "clean": len(self.clean), "lost": len(self.lost)}
