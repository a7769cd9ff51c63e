"""The page pool: which pages there are, how many hold each of them, whose they are, and which lie on the device.

    page ──▶ frame      where the page lies on the device; −1: not there, but in the host tier or on disk (tiers.py)

A page is free, kept, or used. Free: nobody knows its contents. Used: referenced at least once. Kept: referenced by
nobody, but still on the device and known by its tokens (prefixes.py); it counts as free, and is the last to be taken.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.errors import LimitExceeded, NoPages

Int32 = NDArray[np.int32]
ABSENT = -1                                  # the frame of a page that is not on the device
GROWTH_PAGES = 1024                          # page numbers made at a time, beyond those of the frames


class PagePool:
    """Frames 0 … frames−1 of `page_tokens` tokens each. It counts; the contents lie on the device.

    free + used = total at all times, in frames. There are as many page numbers as are asked for.
    """

    def __init__(self, frames: int, page_tokens: int) -> None:
        assert frames >= 0, f"a pool of {frames} frames"
        assert page_tokens > 0, f"a page of {page_tokens} tokens"
        self.total = frames
        self.page_tokens = page_tokens
        self.frames = np.full(frames, ABSENT, np.int32)             # [pages] of each page
        self.quota_pages = 0                                        # charged to one owner, at most; 0: no limit
        self.absent = 0                                             # used pages that are not on the device
        self._when_forgotten: list[Callable[[int], None]] = []
        self._free = list(range(frames - 1, -1, -1))                # a stack: what is given back last is taken next
        self._free_frames = list(range(frames - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()          # oldest first
        self._keepable: set[int] = set()
        self._references = [0] * frames
        self._owners = [""] * frames
        self._charged: Counter[str] = Counter()
        self._held: list[list[int]] = []                            # by whoever moves them
        self._least_free = frames
        self._refused = 0

    @property
    def free(self) -> int:
        """Frames that can be taken."""
        return len(self._free_frames) + len(self._kept)

    @property
    def used(self) -> int:
        return self.total - self.free

    def charged(self, owner: str) -> int:
        """Pages in use that were first taken for a file of `owner`, wherever they lie."""
        return self._charged[owner]

    def ensure_quota(self, count: int, owner: str) -> None:
        """Raises LimitExceeded if so many pages more are too many for `owner`."""
        if self.quota_pages and self._charged[owner] + count > self.quota_pages:
            raise LimitExceeded(
                f"user {owner} has {self._charged[owner]} KV pages and needs {count} more; the limit of a user is "
                f"{self.quota_pages}: truncate or remove files ('cadenza df' shows them), or ask the operator for more "
                "(--quota-gib)",
                "kv_bytes_per_user",
            )

    def can_allocate(self, count: int) -> bool:
        return count <= self.free

    def allocate(self, count: int, owner: str = "") -> list[int]:
        """`count` pages on the device, each referenced once. Raises NoPages or LimitExceeded, and then takes none."""
        self.ensure_quota(count, owner)
        frames = self._take_frames(count)
        pages = self._number(count, owner)
        if count:
            self.frames[pages] = frames
        return pages

    def reserve(self, count: int, owner: str = "") -> list[int]:
        """`count` pages that are not on the device, each referenced once: their contents lie elsewhere."""
        self.absent += count
        return self._number(count, owner)

    def enter(self, pages: Sequence[int]) -> list[int]:
        """Gives absent pages frames, and answers those. Raises NoPages, and then gives none."""
        frames = self._take_frames(len(pages))
        self.frames[pages] = frames
        self.absent -= len(pages)
        return frames

    def leave(self, pages: Sequence[int]) -> list[int]:
        """Takes the frames of used pages away, and answers them: their contents lie elsewhere from now on."""
        frames: list[int] = self.frames[pages].tolist()
        self.frames[pages] = ABSENT
        self._free_frames.extend(frames)
        self.absent += len(pages)
        return frames

    def lose(self) -> list[int]:
        """Frames hold nothing any more: kept pages are free, used ones absent. Answers the used ones."""
        for page in list(self._kept):
            self.disown(page)
        used = [page for page, references in enumerate(self._references) if references]
        self.leave([page for page in used if self.frames[page] != ABSENT])
        return used

    def share(self, page: int) -> None:
        """One reference more to a used page."""
        assert self._references[page] > 0, f"page {page} is free and cannot be shared"
        self._references[page] += 1

    def release(self, page: int) -> None:
        """One reference less; the last one frees the page."""
        left = self._references[page] - 1
        assert left >= 0, f"page {page} is free already"
        self._references[page] = left
        if left == 0:
            self._charged[self._owners[page]] -= 1
            if page in self._keepable and self.frames[page] != ABSENT:
                self._kept[page] = None
            else:
                self._vacate(page)

    def keep(self, page: int) -> None:
        """A used page is known by its tokens: free, it is kept until its frame is needed."""
        assert self._references[page] > 0, f"page {page} is free"
        self._keepable.add(page)

    def revive(self, page: int, owner: str) -> None:
        """One reference more to a used or kept page."""
        if page in self._kept:
            del self._kept[page]
            self._references[page] = 1
            self._owners[page] = owner
            self._charged[owner] += 1
            self._least_free = min(self._least_free, self.free)
        else:
            self.share(page)

    def rewrite(self, page: int) -> None:
        """A page is about to be written to: what was known of its contents no longer holds."""
        for forget in self._when_forgotten:
            forget(page)

    def when_forgotten(self, forget: Callable[[int], None]) -> None:
        """`forget` is called with each page whose contents change: whoever knows them knows them no more."""
        self._when_forgotten.append(forget)

    def disown(self, page: int) -> None:
        """A page is no longer known by its tokens: there is no reason to keep it."""
        self._keepable.discard(page)
        if self._kept.pop(page, ABSENT) is not ABSENT:
            self._vacate(page)

    @contextmanager
    def holding(self, pages: Sequence[int]) -> Iterator[None]:
        """Used pages stay so meanwhile, whoever releases them."""
        held = list(pages)
        for page in held:
            self.share(page)
        self._held.append(held)
        try:
            yield
        finally:
            self._held.remove(held)
            for page in held:
                self.release(page)

    def references(self, page: int) -> int:
        return self._references[page]

    def recount(self, tables: Iterable[Sequence[int] | Int32]) -> None:
        """Raises AssertionError, with the discrepancy, unless `tables` are exactly the references counted here.

        Each sequence is one holder of the pages in it. Takes time with the pages held; changes nothing.
        """
        counted = np.array(self._references, np.int64)
        free = np.array([*self._free, *self._kept], np.int64)
        used = int(np.count_nonzero(counted))
        assert len(free) + used == len(counted), f"{len(free)} free + {used} used pages ≠ {len(counted)} in all"
        assert len(np.unique(free)) == len(free), "a page is free twice"
        assert not counted[free].any(), f"free pages are referenced: {free[counted[free] != 0][:8].tolist()}"
        held = [np.asarray(table, np.int64) for table in (*tables, *self._held)]
        every = np.concatenate(held) if held else np.zeros(0, np.int64)
        found = np.bincount(every, minlength=len(counted))
        wrong = np.flatnonzero(found != counted)
        assert not len(wrong), "references (page, counted, found): " + ", ".join(
            f"({page}, {counted[page]}, {found[page]})" for page in wrong[:8].tolist()
        )
        self._recount_frames(counted)

    def statistics(self) -> dict[str, int]:
        """In frames: how many there are, are free, were free at the least; allocations refused; pages kept, absent."""
        return {
            "pages": self.total,
            "page_tokens": self.page_tokens,
            "free": self.free,
            "used": self.used,
            "least_free": self._least_free,
            "refused": self._refused,
            "kept": len(self._kept),
            "absent": self.absent,
        }

    def _take_frames(self, count: int) -> list[int]:
        if count > self.free:
            self._refused += 1
            raise NoPages(
                f"the KV pool has {self.free} of {self.total} pages free, {count} are needed: close or truncate files, "
                "or start the daemon with more pages",
                "pages",
                count,
            )
        while len(self._free_frames) < count:
            self._vacate(self._kept.popitem(last=False)[0])
        if count == 0:
            return []
        frames = self._free_frames[-count:]
        frames.reverse()
        del self._free_frames[-count:]
        self._least_free = min(self._least_free, self.free)
        return frames

    def _number(self, count: int, owner: str) -> list[int]:
        """Page numbers, each referenced once."""
        if count == 0:
            return []
        free = self._free
        if count > len(free):
            self._grow(max(count, GROWTH_PAGES))
        pages = free[-count:]
        pages.reverse()
        del free[-count:]
        for page in pages:
            self._references[page] = 1
            self._owners[page] = owner
        self._charged[owner] += count
        return pages

    def _grow(self, count: int) -> None:
        first = len(self._references)
        self.frames = np.concatenate([self.frames, np.full(count, ABSENT, np.int32)])
        self._references += [0] * count
        self._owners += [""] * count
        self._free[:0] = range(first + count - 1, first - 1, -1)

    def _vacate(self, page: int) -> None:
        """A page of no reference becomes free, its frame too."""
        self.rewrite(page)
        frame = int(self.frames[page])
        if frame == ABSENT:
            self.absent -= 1
        else:
            self.frames[page] = ABSENT
            self._free_frames.append(frame)
        self._free.append(page)

    def _recount_frames(self, counted: NDArray[np.int64]) -> None:
        present = self.frames != ABSENT
        taken = [*self._free_frames, *self.frames[present].tolist()]
        assert sorted(taken) == list(range(self.total)), "a frame is taken twice, or lost"
        kept = np.zeros(len(counted), np.bool_)
        kept[list(self._kept)] = True
        used = counted > 0
        assert not (present & ~used & ~kept).any(), "a free page has a frame"
        assert int((used & ~present).sum()) == self.absent, f"{self.absent} pages counted absent"
        charged = Counter(owner for owner, references in zip(self._owners, counted.tolist(), strict=True) if references)
        assert +self._charged == charged, f"pages charged {dict(self._charged)}, found {dict(charged)}"
