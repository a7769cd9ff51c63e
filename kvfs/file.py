"""A file of KV: an ordered list of tokens with explicit positions, whose K and V lie in pages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.errors import Busy, Invalid
from cadenza.kvfs.page_table import PageTable
from cadenza.kvfs.pool import PagePool

Int32 = NDArray[np.int32]
Copies = list[tuple[int, int]]


class File:
    """What owns pages; `close` gives them back.

    `path` is "" when it has no name, `open_count` is how many descriptors name it. Nothing here blocks.
    `living`, when given, holds every file from its birth to its close: what a recount goes over.
    """

    __slots__ = ("_living", "_pool", "_table", "busy", "changes", "closed", "open_count", "owner", "path")

    def __init__(self, pool: PagePool, owner: str, living: set[File] | None = None) -> None:
        self._pool = pool
        self._table = PageTable(pool)
        self._living = living
        self.owner = owner
        self.path = ""
        self.open_count = 1
        self.busy = False
        self.closed = False
        self.changes = 0             # appends begun and truncations: equal numbers, equal tokens
        if living is not None:
            living.add(self)

    def __repr__(self) -> str:
        return f"<File {self.path or 'without a name'} of {self.owner}, {len(self)} tokens>"

    # --- reading ---

    def __len__(self) -> int:
        return self._table.count

    @property
    def next_position(self) -> int:
        """One past the highest position; 0 when empty."""
        return self._table.next_position

    @property
    def contiguous(self) -> bool:
        """Whether every token's position equals its offset."""
        return self._table.straight == self._table.count

    @property
    def page_count(self) -> int:
        return self._table.page_count

    @property
    def pages(self) -> list[int]:
        """The pages in order, copied."""
        pages: list[int] = self._table.pages().tolist()
        return pages

    @property
    def table(self) -> PageTable:
        return self._table

    def page_table(self) -> Int32:
        """The pages in order, [page_count]. A view: valid until this file changes, and not to be written."""
        return self._table.pages()

    def tokens(self, first: int = 0, count: int | None = None) -> Int32:
        """Token ids from offset `first` on, [count], copied; −1 where the token is not known yet."""
        return self._table.tokens(first, len(self) - first if count is None else count)

    def positions(self, first: int = 0, count: int | None = None) -> Int32:
        """Positions from offset `first` on, [count], copied."""
        return self._table.positions(first, len(self) - first if count is None else count)

    def slots(self, first: int = 0, count: int | None = None) -> Int32:
        """Slots from offset `first` on, [count]: page × page_tokens + offset in the page."""
        return self._table.slots(first, len(self) - first if count is None else count)

    def shared_pages(self) -> int:
        """How many of its pages other files hold too."""
        return self._table.shared_pages()

    # --- appending ---

    @property
    def roomy(self) -> bool:
        """Whether one more token takes no page."""
        return self._table.room > 0 and self._table.holders == 1

    def begin_append(self) -> None:
        """Marks the file as being written. Raises Busy if it is already."""
        if self.busy:
            raise Busy(f"{self!r} is being appended to by an unfinished pass: wait for it, or fork the file before")
        self.busy = True
        self.changes += 1

    def end_append(self) -> None:
        """Idempotent."""
        self.busy = False

    def pages_for(self, count: int) -> int:
        """How many free pages `extend` by `count` tokens takes, a page to copy included."""
        return self._table.pages_for(count)

    def growth_for(self, count: int) -> int:
        """How many pages longer its page table is after `extend` by `count`: a page that is copied is in its place."""
        return -(-(len(self) + count) // self._pool.page_tokens) - self._table.page_count

    def can_extend(self, count: int) -> bool:
        return self._pool.can_allocate(self._table.pages_for(count))

    def extend(self, tokens: Sequence[int] | Int32, positions: Sequence[int] | Int32) -> tuple[Int32, Copies]:
        """Appends tokens (−1: not known yet) at `positions`.

        Answers their slots [n] and the page copies (from, to) that the device must make before it writes to them.
        Raises NoPages, and then changes nothing.
        """
        assert len(tokens) == len(positions), f"{len(tokens)} tokens at {len(positions)} positions"
        if len(tokens) == 0:
            return np.zeros(0, np.int32), []
        copies = self._make_room(len(tokens))
        slots = self._table.extend(np.ascontiguousarray(tokens, np.int32), np.ascontiguousarray(positions, np.int32))
        return slots, copies

    def extend_one(self, token: int, position: int) -> tuple[int, Copies]:
        """`extend` by one token, the decode's way: a slot and, seldom, a copy. Raises NoPages."""
        table = self._table
        if table.room and table.holders == 1:
            return table.append(token, position), []
        copies = self._make_room(1)
        return self._table.append(token, position), copies

    def set_token(self, offset: int, token: int) -> None:
        """Names the token at `offset`, once it is known. Its K and V are there already."""
        assert offset < len(self), f"offset {offset} of {self!r}"
        self._table.set_token(offset, token)

    # --- the rest of its life ---

    def truncate(self, count: int) -> None:
        """Keeps the first `count` tokens and gives back the pages past them. Raises Invalid past the end.

        Whoever is appending may undo so; anybody else asks `busy` first.
        """
        if not 0 <= count <= len(self):
            raise Invalid(f"{self!r} cannot be truncated to {count} tokens: give 0 to {len(self)}", "tokens")
        if count < len(self):
            self.changes += 1
            self._table = self._table.own()
            self._table.truncate(count)

    def fork(self, owner: str = "") -> File:
        """A nameless file with the same tokens, of `owner` (default: the same). Constant time, takes no page.

        Raises Busy while a pass appends.
        """
        assert not self.closed, f"{self!r} is closed"
        if self.busy:
            raise Busy(f"{self!r} is being appended to by an unfinished pass: wait for it, then fork")
        child = File(self._pool, owner or self.owner, self._living)
        child._table = self._table.hold()
        return child

    def release(self) -> None:
        """One holder less (`open_count`). A file without a name goes with its last."""
        assert self.open_count > 0, f"{self!r} is released more often than it was opened"
        self.open_count -= 1
        self.close_if_forgotten()

    def close_if_forgotten(self) -> None:
        """Closes it if it has neither a holder nor a name."""
        if self.open_count == 0 and not self.path:
            self.close()

    def close(self) -> None:
        """Gives back everything. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._table.drop()
        self._table = PageTable(self._pool)
        if self._living is not None:
            self._living.discard(self)

    def _make_room(self, count: int) -> Copies:
        assert not self.closed, f"{self!r} is closed"
        pages = self._pool.allocate(self._table.pages_for(count))
        self._table = table = self._table.own()
        return table.make_room(pages)
