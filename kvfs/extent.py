"""Extents: runs of tokens in pages that nobody writes to any more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.pool import PagePool

Int32 = NDArray[np.int32]


class Extent:
    """Tokens one after the other in `pages`, from the slot `skip` of the first page on. Never changes.

    It references each of its pages once, and is held by parts of files (`holders`).
    """

    __slots__ = ("_pool", "holders", "pages", "positions", "skip", "tokens")

    def __init__(self, pool: PagePool, pages: Int32, skip: int, tokens: Int32, positions: Int32) -> None:
        """Takes over one reference to each of `pages`."""
        assert len(tokens) == len(positions), f"{len(tokens)} tokens at {len(positions)} positions"
        assert -(-(skip + len(tokens)) // pool.page_tokens) == len(pages), f"{len(pages)} pages of {len(tokens)} tokens"
        self._pool = pool
        self.holders = 1
        self.pages = pages
        self.skip = skip
        self.tokens = tokens
        self.positions = positions

    @classmethod
    def sharing(cls, pool: PagePool, pages: Int32, skip: int, tokens: Int32, positions: Int32) -> Extent:
        """Of the pages that those tokens need, from slot `skip` of `pages` on; each gets one reference more."""
        first, skip = divmod(skip, pool.page_tokens)
        shared = pages[first : first - (-(skip + len(tokens)) // pool.page_tokens)].copy()
        for page in shared.tolist():
            pool.share(page)
        return cls(pool, shared, skip, tokens, positions)

    def cut(self, first: int, count: int) -> Extent:
        """A new one of `count` of its tokens, which holds no page that they do not need."""
        window = slice(first, first + count)
        return Extent.sharing(self._pool, self.pages, self.skip + first, self.tokens[window], self.positions[window])

    def hold(self) -> Extent:
        self.holders += 1
        return self

    def drop(self) -> None:
        """Held once less; the last holder gives the pages back."""
        self.holders -= 1
        if self.holders == 0:
            for page in reversed(self.pages.tolist()):
                self._pool.release(page)
