"""The page table: the tokens of a file in order, and the pages that hold their K and V.

    file A ──┐                     leaf 0 (64 pages, 1,024 tokens)
             ├─▶ page table ─▶ ─┬─ leaf 1 (64 pages, 1,024 tokens)
    file B ──┘                  └─ leaf 2 (3 pages, 40 tokens)      only the last leaf and page may be partly filled

A table is held by files, a leaf by tables, a page (in the pool) by leaves. A fork holds the table once more, whatever
its length. Who writes makes its own what it writes, from the top: the table (a list of leaves), the last leaf, and the
last page if it is partly filled. A page is thus used exactly as long as some file reaches it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.extent import Extent
from cadenza.kvfs.pool import PagePool

Int32 = NDArray[np.int32]
Copies = list[tuple[int, int]]

LEAF_PAGES = 64


class Leaf:
    """Up to 64 pages and the tokens in them. `holders`: tables that list it."""

    __slots__ = ("holders", "pages", "positions", "tokens")

    def __init__(self, pages: Sequence[int] = ()) -> None:
        self.holders = 1
        self.pages = list(pages)
        self.tokens = array("i")
        self.positions = array("i")

    def split_off(self, pool: PagePool, pages: int, tokens: int) -> Leaf:
        """A leaf of one's own with the first `pages` and `tokens` of this one, which is held once less."""
        assert self.holders > 1, "a leaf held once needs no copy"
        self.holders -= 1
        leaf = Leaf(self.pages[:pages])
        leaf.tokens = self.tokens[:tokens]
        leaf.positions = self.positions[:tokens]
        for page in leaf.pages:
            pool.share(page)
        return leaf

    def keep(self, pool: PagePool, pages: int, tokens: int) -> None:
        """Gives back all but the first `pages` and `tokens`."""
        for page in reversed(self.pages[pages:]):
            pool.release(page)
        del self.pages[pages:], self.tokens[tokens:], self.positions[tokens:]

    def drop(self, pool: PagePool) -> None:
        """Held once less; the last holder gives the pages back."""
        self.holders -= 1
        if self.holders == 0:
            self.keep(pool, 0, 0)


class PageTable:
    """Read by any file that holds it; changed only by the one file that holds it alone.

    `room` slots from `next_slot` on lie in the last page and nobody else reaches them; 0 when that is not known.
    `straight` is the number of leading tokens whose position equals their offset.
    """

    __slots__ = ("_flat", "_leaf_tokens", "_pool", "_view", "count", "holders", "leaves", "next_position", "next_slot",
                 "page_count", "room", "straight")  # fmt: skip

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._leaf_tokens = LEAF_PAGES * pool.page_tokens
        self._flat = np.zeros(8, np.int32)  # the pages in order, with space to grow
        self._view: Int32 | None = None
        self.holders = 1
        self.leaves: list[Leaf] = []
        self.count = 0
        self.page_count = 0
        self.next_position = 0
        self.straight = 0
        self.room = 0
        self.next_slot = 0

    # --- holding ---

    def hold(self) -> PageTable:
        """Held once more. Constant time."""
        self.holders += 1
        return self

    def drop(self) -> None:
        """Held once less; the last holder gives the leaves back."""
        self.holders -= 1
        if self.holders == 0:
            for leaf in self.leaves:
                leaf.drop(self._pool)
            self.leaves.clear()

    def own(self) -> PageTable:
        """This table if it is held once; else a copy, held once. Takes time with the leaves, not with the tokens."""
        if self.holders == 1:
            return self
        self.holders -= 1
        self.room = 0
        table = PageTable(self._pool)
        table._flat = self._flat.copy()
        table.leaves = self.leaves.copy()
        for leaf in table.leaves:
            leaf.holders += 1
        table.count, table.page_count = self.count, self.page_count
        table.next_position, table.straight = self.next_position, self.straight
        return table

    # --- reading ---

    def pages(self) -> Int32:
        """The pages in order, [page_count]. A view: valid until the table changes, and not to be written."""
        if self._view is None:
            self._view = self._flat[: self.page_count]
            self._view.flags.writeable = False
        return self._view

    def tokens(self, first: int, count: int) -> Int32:
        return self._gather([leaf.tokens for leaf in self.leaves], first, count)

    def positions(self, first: int, count: int) -> Int32:
        return self._gather([leaf.positions for leaf in self.leaves], first, count)

    def slots(self, first: int, count: int) -> Int32:
        """Where the tokens from offset `first` on lie, [count]."""
        offsets = np.arange(first, first + count, dtype=np.int32)
        size = self._pool.page_tokens
        return self._flat[offsets // size] * np.int32(size) + offsets % size

    def cut(self, first: int, count: int) -> Extent:
        """Those tokens as an extent, whose pages are referenced once more."""
        return Extent.sharing(self._pool, self.pages(), first, self.tokens(first, count), self.positions(first, count))

    @property
    def last_page(self) -> int:
        """Of at least one."""
        return self.leaves[-1].pages[-1]

    @property
    def shares_last(self) -> bool:
        """Whether its last page is partly filled, and another file's too."""
        return self.count % self._pool.page_tokens > 0 and self._last_page_is_shared()

    def shared_pages(self) -> int:
        """Pages that another file holds too. Takes time with the pages of the leaves that are this table's own."""
        if self.holders > 1:
            return self.page_count
        references = self._pool.references
        return sum(
            len(leaf.pages) if leaf.holders > 1 else sum(references(page) > 1 for page in leaf.pages)
            for leaf in self.leaves
        )

    # --- growing ---

    def pages_for(self, count: int) -> int:
        """How many free pages it takes to append `count` tokens."""
        partial = self.count % self._pool.page_tokens
        pages = -(-(self.count + count) // self._pool.page_tokens) - self.page_count
        return pages + (count > 0 and partial > 0 and self._last_page_is_shared())

    def make_room(self, pages: list[int]) -> Copies:
        """Adds `pages`, those that `pages_for` asked for. Answers the copies to make before anything is written."""
        assert self.holders == 1, "a shared page table is not written to"
        copies = self._own_last(pages) if self.count % (LEAF_PAGES * self._pool.page_tokens) else []
        if pages:
            self._add_pages(pages)
        self._locate()
        return copies

    def replace_last(self, page: int) -> None:
        """`page`, whose reference it takes over, in place of a last page that others hold too. Nothing is copied."""
        assert self.holders == 1, "a shared page table is not written to"
        self._own_last([page])

    def append(self, token: int, position: int) -> int:
        """Appends one token where there is `room`. Answers its slot."""
        leaf = self.leaves[-1]
        leaf.tokens.append(token)
        leaf.positions.append(position)
        count = self.count
        self.count = count + 1
        if position == self.straight == count:
            self.straight = position + 1
        if position >= self.next_position:
            self.next_position = position + 1
        slot = self.next_slot
        self.next_slot = slot + 1
        self.room -= 1
        return slot

    def add_page(self, page: int) -> None:
        """Behind a full one, for tokens that `append_all` will tell of."""
        self._add_pages([page])
        self.room = self._pool.page_tokens

    def append_all(self, tokens: Sequence[int], position: int) -> None:
        """Appends tokens at positions that rise from `position` on, for which there are pages; one that has none of
        them is given back."""
        first, end, size = self.count, position + len(tokens), self._pool.page_tokens
        self._record(np.array(tokens, np.int32), np.arange(position, end, dtype=np.int32))
        if position == self.straight == first:
            self.straight = self.count
        self.next_position = max(self.next_position, end)
        self._locate()
        if self.page_count * size - self.count >= size:
            self.truncate(self.count)

    def fill(self, pages: list[int], tokens: Int32, positions: Int32) -> None:
        """The contents of an empty table: tokens in `pages`, of which it takes over one reference each."""
        assert self.count == 0, "only an empty table is filled"
        assert self.holders == 1, "a shared page table is not written to"
        self._add_pages(pages)
        self.extend(tokens, positions)
        self.room = 0

    def extend(self, tokens: Int32, positions: Int32) -> Int32:
        """Appends any number of tokens, for which `make_room` has made room. Answers their slots."""
        if len(tokens) == 0:
            return tokens
        first = self.count
        self._record(tokens, positions)
        if self.straight == first:
            straight = positions == np.arange(first, self.count, dtype=np.int32)
            self.straight += len(tokens) if straight.all() else int(straight.argmin())
        self.next_position = max(self.next_position, int(positions.max()) + 1)
        self._locate()
        return self.slots(first, len(tokens))

    def set_token(self, offset: int, token: int) -> None:
        leaf, place = divmod(offset, self._leaf_tokens)
        self.leaves[leaf].tokens[place] = token

    def bring_forward(self, first: int, kept: Sequence[int]) -> Int32:
        """The tokens from `first` on become those at `kept`, rising; what is past them means nothing. Answers the
        slots (from, to) of those that stand elsewhere then, [·, 2]."""
        assert self.holders == 1, "a shared page table is not written to"
        for to, source in enumerate(kept, first):
            (new, place), (old, held) = divmod(to, self._leaf_tokens), divmod(source, self._leaf_tokens)
            self.leaves[new].tokens[place] = self.leaves[old].tokens[held]
            self.leaves[new].positions[place] = position = self.leaves[old].positions[held]
            if self.straight >= to:
                self.straight = to + (position == to)
        slots = self.slots(first, self.count - first)
        moved = [source for to, source in enumerate(kept, first) if to != source]
        targets = slots[len(kept) - len(moved) : len(kept)]
        return np.stack((slots[np.array(moved, np.int64) - first], targets), 1)

    def truncate(self, count: int) -> None:
        """Keeps the first `count` tokens, and the pages that they need."""
        assert self.holders == 1, "a shared page table is not written to"
        pool, size = self._pool, self._pool.page_tokens
        self.page_count = -(-count // size)
        kept = -(-self.page_count // LEAF_PAGES)
        for leaf in reversed(self.leaves[kept:]):
            leaf.drop(pool)
        del self.leaves[kept:]
        if kept:
            before = (kept - 1) * LEAF_PAGES
            pages, tokens = self.page_count - before, count - before * size
            if len(self.leaves[-1].tokens) > tokens or len(self.leaves[-1].pages) > pages:
                self._trim_last(pages, tokens)
        self.count, self.room, self._view = count, 0, None
        self._recall_positions()

    def _last_page_is_shared(self) -> bool:
        leaf = self.leaves[-1]
        return self.holders > 1 or leaf.holders > 1 or self._pool.references(leaf.pages[-1]) > 1

    def _own_last(self, pages: list[int]) -> Copies:
        leaf = self.leaves[-1]
        if leaf.holders > 1:
            leaf = self.leaves[-1] = leaf.split_off(self._pool, len(leaf.pages), len(leaf.tokens))
        page = leaf.pages[-1]
        if self.count % self._pool.page_tokens == 0:
            return []
        if self._pool.references(page) == 1:
            self._pool.rewrite(page)
            return []
        own = pages.pop(0)
        self._pool.release(page)
        leaf.pages[-1] = self._flat[self.page_count - 1] = own
        return [(page, own)]

    def _add_pages(self, pages: list[int]) -> None:
        total = self.page_count + len(pages)
        if total > len(self._flat):
            grown = np.zeros(total + total // 2, np.int32)
            grown[: self.page_count] = self._flat[: self.page_count]
            self._flat = grown
        self._flat[self.page_count : total] = pages
        done = 0
        while done < len(pages):
            filled = (self.page_count + done) % LEAF_PAGES
            if filled == 0:
                self.leaves.append(Leaf())
            part = pages[done : done + LEAF_PAGES - filled]
            self.leaves[-1].pages.extend(part)
            done += len(part)
        self.page_count, self._view = total, None

    def _record(self, tokens: Int32, positions: Int32) -> None:
        size = LEAF_PAGES * self._pool.page_tokens
        done = 0
        while done < len(tokens):
            leaf = self.leaves[(self.count + done) // size]
            end = done + size - len(leaf.tokens)
            leaf.tokens.frombytes(tokens[done:end].tobytes())
            leaf.positions.frombytes(positions[done:end].tobytes())
            done = end
        self.count += len(tokens)

    def _locate(self) -> None:
        page, filled = divmod(self.count, self._pool.page_tokens)
        self.room = self._pool.page_tokens - filled if page < self.page_count else 0
        self.next_slot = int(self._flat[page]) * self._pool.page_tokens + filled if self.room else 0

    def _trim_last(self, pages: int, tokens: int) -> None:
        leaf = self.leaves[-1]
        if leaf.holders > 1:
            self.leaves[-1] = leaf.split_off(self._pool, pages, tokens)
        else:
            leaf.keep(self._pool, pages, tokens)

    def _recall_positions(self) -> None:
        if self.straight >= self.count:
            self.straight = self.next_position = self.count
        else:
            self.next_position = 1 + max(max(leaf.positions) for leaf in self.leaves)

    def _gather(self, parts: list[array[int]], first: int, count: int) -> Int32:
        assert 0 <= first <= first + count <= self.count, f"tokens {first} + {count} of {self.count}"
        size = LEAF_PAGES * self._pool.page_tokens
        low = first // size
        wanted = [np.array(part, np.int32) for part in parts[low : -(-(first + count) // size)]]
        joined = np.concatenate(wanted) if wanted else np.zeros(0, np.int32)
        return joined[first - low * size : first - low * size + count]
