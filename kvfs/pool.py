"""The page pool: which pages are free, and how many hold each of the others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from cadenza.kvfs.errors import NoPages


class PagePool:
    """Pages 0 … pages−1 of `page_tokens` tokens each. It counts; the contents lie on the device.

    A page is free, or used and referenced at least once: free + used = total at all times.
    """

    def __init__(self, pages: int, page_tokens: int) -> None:
        assert pages >= 0, f"a pool of {pages} pages"
        assert page_tokens > 0, f"a page of {page_tokens} tokens"
        self.total = pages
        self.page_tokens = page_tokens
        self._free = list(range(pages - 1, -1, -1))  # a stack: the page given back last is the next one taken
        self._references = [0] * pages
        self._least_free = pages
        self._refused = 0

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def used(self) -> int:
        return self.total - len(self._free)

    def can_allocate(self, count: int) -> bool:
        return count <= len(self._free)

    def allocate(self, count: int) -> list[int]:
        """`count` pages, each referenced once. Raises NoPages, and then takes none."""
        free = self._free
        if count > len(free):
            self._refused += 1
            raise NoPages(
                f"the KV pool has {len(free)} of {self.total} pages free, {count} are needed: close or truncate files, "
                "or start the daemon with more pages",
                "pages",
            )
        if count == 0:
            return []
        pages = free[-count:]
        pages.reverse()
        del free[-count:]
        for page in pages:
            self._references[page] = 1
        self._least_free = min(self._least_free, len(free))
        return pages

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
            self._free.append(page)

    def references(self, page: int) -> int:
        return self._references[page]

    def recount(self, tables: Iterable[Sequence[int]]) -> None:
        """Raises AssertionError, with the discrepancy, unless `tables` are exactly the references counted here.

        Each sequence is one holder of the pages in it. Takes time with the pages held; changes nothing.
        """
        counted = np.array(self._references, np.int64)
        free = np.array(self._free, np.int64)
        used = int(np.count_nonzero(counted))
        assert len(free) + used == self.total, f"{len(free)} free + {used} used pages ≠ {self.total} in all"
        assert np.bincount(free, minlength=1).max() <= 1, "a page is in the free list twice"
        assert not counted[free].any(), f"free pages are referenced: {free[counted[free] != 0][:8].tolist()}"
        held = [np.asarray(table, np.int64) for table in tables]
        every = np.concatenate(held) if held else np.zeros(0, np.int64)
        found = np.bincount(every, minlength=self.total)
        wrong = np.flatnonzero(found != counted)
        assert not len(wrong), "references (page, counted, found): " + ", ".join(
            f"({page}, {counted[page]}, {found[page]})" for page in wrong[:8].tolist()
        )

    def statistics(self) -> dict[str, int]:
        """Pages now, the fewest ever free, and how many allocations were refused."""
        return {
            "pages": self.total,
            "page_tokens": self.page_tokens,
            "free": self.free,
            "used": self.used,
            "least_free": self._least_free,
            "refused": self._refused,
        }
