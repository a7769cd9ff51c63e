"""A file of KV: an ordered list of tokens with explicit positions, whose K and V lie in pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cadenza.kvfs.access import PRIVATE
from cadenza.kvfs.errors import Busy, Invalid
from cadenza.kvfs.page_table import PageTable
from cadenza.kvfs.parts import Part, Parts, Segment
from cadenza.kvfs.pool import ABSENT, PagePool

if TYPE_CHECKING:
    from cadenza.kvfs.prefixes import Node

Int32 = NDArray[np.int32]
Copies = list[tuple[int, int]]
Ranges = Sequence[tuple[int, int]]

NONE = Parts()
NO_PAGES = np.zeros(0, np.int32)
EXACT = 1 << 62                              # the offset of the first approximate token of a file that has none


class File:
    """What owns pages; `close` gives them back.

    It begins with `parts`, which it shares and does not write to, and goes on with a page table of its own, its tail.
    `paths` are its names, `open_count` is how many descriptors name it. Nothing here blocks. `living`, when given,
    holds every file from its birth to its close: what a recount goes over.
    """

    __slots__ = ("_approximate", "_base", "_living", "_parts", "_pool", "_table", "access", "adapter", "busy",
                 "changes", "closed", "created_ns", "foreign", "indexed", "modified_ns", "number", "open_count",
                 "owner", "paths", "record_rest", "synced", "used")  # fmt: skip

    def __init__(self, pool: PagePool, owner: str, living: set[File] | None = None) -> None:
        self._pool = pool
        self._parts = NONE
        self._base = 0               # tokens in parts
        self._table = PageTable(pool)
        self._approximate = EXACT
        self._living = living
        self.owner = owner
        self.adapter = ""            # under which what is exact of it was computed: a digest, or none
        self.paths: list[str] = []
        self.access = PRIVATE
        self.open_count = 1
        self.busy = self.closed = False
        self.changes = 0             # appends begun and other changes: equal numbers, equal contents
        self.created_ns = self.modified_ns = time.time_ns()
        self.number = 0              # its identity on disk; 0: it has never been there
        self.foreign = ""            # of which other model or page size it is, if it cannot be read here
        self.synced = -1             # `changes` when it was last written to disk
        self.used = 0                # the step that last read or wrote it
        self.record_rest: Callable[[], None] | None = None     # what was appended and is not told: who looks must call
        self.indexed: tuple[Node, int] | None = None     # how far its pages are known by their tokens
        if living is not None:
            living.add(self)

    def __repr__(self) -> str:
        return f"<File {self.paths[0] if self.paths else 'without a name'} of {self.owner}, {len(self)} tokens>"

    # --- reading ---

    def __len__(self) -> int:
        return self._base + self.table.count

    @property
    def next_position(self) -> int:
        """One past the highest position; 0 when empty."""
        return max(self._parts.next_position, self.table.next_position)

    @property
    def contiguous(self) -> bool:
        """Whether it has no parts, and every token's position equals its offset."""
        return self.table.straight == self.table.count and self._base == 0

    @property
    def exact(self) -> bool:
        """Whether its states equal a plain prefill of its tokens at these positions, under its adapter."""
        return self._approximate >= len(self) and not self._parts.hidden

    @property
    def hidden_tokens(self) -> int:
        return self._parts.hidden

    @property
    def page_count(self) -> int:
        return self._parts.page_count + self._table.page_count

    @property
    def pages(self) -> list[int]:
        """Its pages, copied: those of its parts, then those of its tail in order."""
        tail: list[int] = self._table.pages().tolist()
        return [page for part in self._parts for page in part.extent.pages.tolist()] + tail if self._base else tail

    @property
    def page_tokens(self) -> int:
        return self._pool.page_tokens

    @property
    def parts(self) -> Parts:
        return self._parts

    @property
    def table(self) -> PageTable:
        if self.record_rest is not None:
            self.record_rest()
        return self._table

    def own_table(self) -> PageTable:
        """Its page table, held by no other file from now on."""
        self._table = self.table.own()
        return self.table

    def segments(self) -> list[Segment]:
        """What a pass reads, in order; an empty tail is left out."""
        found = self._parts.segments(self._pool.page_tokens) if self._base else []
        if self.table.count:
            found.append(Segment(self.table.pages(), self._base, 0, self.table.count, 0))
        return found

    def tokens(self, first: int = 0, count: int | None = None) -> Int32:
        """Token ids from offset `first` on, [count], copied; −1 where the token is not known yet."""
        first, count, tail = self._split(first, count)
        own = self.table.tokens(*tail)
        return np.concatenate([*self._parts.tokens(first, count), own]) if self._base else own

    def positions(self, first: int = 0, count: int | None = None) -> Int32:
        """Positions from offset `first` on, [count], copied."""
        first, count, tail = self._split(first, count)
        own = self.table.positions(*tail)
        return np.concatenate([*self._parts.positions(first, count), own]) if self._base else own

    def absent_pages(self) -> list[int]:
        """Those that a pass would read and that are not on the device; each once."""
        pages = np.unique(np.concatenate([NO_PAGES, *(segment.pages for segment in self.segments())]))
        return list(pages[self._pool.frames[pages] == ABSENT].tolist())

    def shared_pages(self) -> int:
        """How many of its pages other files hold too."""
        return self.table.shared_pages() + (self._parts.shared_pages(self._pool) if self._base else 0)

    # --- appending ---

    @property
    def roomy(self) -> bool:
        """Whether one more token takes no page."""
        return self.table.room > 0 and self._table.holders == 1

    def begin_append(self, *, exact: bool = True, adapter: str = "") -> None:
        """Marks the file as being written. Raises Busy if it is already. `exact`: what is appended sees all that is
        before it in this file, and nothing else. `adapter`: under which; that of a file is the first one's."""
        if self.busy:
            raise Busy(f"{self!r} is being appended to by an unfinished pass: wait for it, or fork the file before")
        self.busy = True
        self._note_change()
        self.adapter = self.adapter if len(self) else adapter
        exact = exact and self.exact and adapter == self.adapter
        self._approximate = EXACT if exact else min(self._approximate, len(self))

    def end_append(self) -> None:
        """Idempotent."""
        self.busy = False

    def pages_for(self, count: int) -> int:
        """How many free pages `extend` by `count` tokens takes, a page to copy included."""
        return self.table.pages_for(count)

    def growth_for(self, count: int) -> int:
        """How many pages longer its page table is after `extend` by `count`: a page that is copied is in its place."""
        return -(-(self.table.count + count) // self._pool.page_tokens) - self.table.page_count

    def extend(self, tokens: Sequence[int] | Int32, positions: Sequence[int] | Int32) -> tuple[Int32, Copies]:
        """Appends tokens (−1: not known yet) at `positions`. Answers their slots [n] and the page copies (from, to)
        that the device must make before it writes to them. Raises NoPages, and then changes nothing."""
        assert len(tokens) == len(positions), f"{len(tokens)} tokens at {len(positions)} positions"
        if len(tokens) == 0:
            return np.zeros(0, np.int32), []
        copies = self._make_room(len(tokens))
        slots = self.table.extend(np.ascontiguousarray(tokens, np.int32), np.ascontiguousarray(positions, np.int32))
        return slots, copies

    def extend_one(self, token: int, position: int) -> tuple[int, Copies]:
        """`extend` by one token, the decode's way: a slot and, seldom, a copy. Raises NoPages."""
        copies = [] if self.roomy else self._make_room(1)
        return self.table.append(token, position), copies

    def add_page(self, page: int) -> Int32:
        """For what is appended and not told yet. It takes over the reference; answers the pages of its tail."""
        self._table.add_page(page)
        return self._table.pages()

    def adopt(self, pages: list[int], tokens: Int32, positions: Int32) -> None:
        """The contents of an empty file: tokens whose K and V lie in `pages`, of which it takes over a reference."""
        assert not self.closed, f"{self!r} is closed"
        self.own_table().fill(pages, tokens, positions)

    def revive(self, pages: list[int], tokens: Int32, positions: Int32) -> int:
        """Begins an empty file with full pages that hold the first of `tokens`. Answers how many they hold. Raises
        LimitExceeded."""
        self._pool.ensure_quota(sum(self._pool.references(page) == 0 for page in pages), self.owner)
        for page in pages:
            self._pool.revive(page, self.owner)
        count = len(pages) * self._pool.page_tokens
        self.adopt(pages, tokens[:count], positions[:count])
        return count

    def forget_room(self, pages: set[int]) -> None:
        """`pages` move: before the next append it is asked anew whether it may write to its last, if that is one."""
        if self._table.room and self._table.last_page in pages:
            self.table.room = 0

    def set_token(self, offset: int, token: int) -> None:
        """Names the token at `offset`, once it is known. Its K and V are there already."""
        assert self._base <= offset < self._base + self._table.count, f"offset {offset} of {self!r}"
        self._table.set_token(offset - self._base, token)

    # --- cutting and joining ---

    def truncate(self, count: int) -> None:
        """Keeps the first `count` tokens and gives back the pages past them. Raises Invalid past the end. Whoever is
        appending may undo so; anybody else asks `busy` first."""
        if not 0 <= count <= len(self):
            raise Invalid(f"{self!r} cannot be truncated to {count} tokens: give 0 to {len(self)}", "tokens")
        if count == len(self):
            return
        self._note_change()
        self.indexed = None
        self.own_table().truncate(max(0, count - self._base))
        if count < self._base:
            self._replace_parts(Parts(self._parts.trimmed(0, count)))
        if count <= self._approximate and not self.busy:    # who appends goes on as he began
            self._approximate = EXACT

    def fork(self, owner: str = "") -> File:
        """A nameless file of the same pages, of `owner` or the same; constant time. Raises Busy while one appends."""
        self._ensure_idle("fork")
        child = File(self._pool, owner or self.owner, self._living)
        child._parts, child._base, child._table = self._parts.hold(), self._base, self.table.hold()
        child._approximate, child.adapter, child.used = self._approximate, self.adapter, self.used
        return child

    def extract(self, ranges: Ranges, owner: str = "") -> File:
        """A nameless file of those ranges (first, count), in this order; copies no page, takes time with the pages.
        Raises Invalid for a range past the end, Busy while a pass appends."""
        self._ensure_idle("extract")
        for first, count in ranges:
            self._check_range(first, count)
        if len(ranges) == 1 and ranges[0][0] == 0:
            child = self.fork(owner)
            child.truncate(ranges[0][1])
            return child
        child = File(self._pool, owner or self.owner, self._living)
        child._set_parts(Parts([part for first, count in ranges for part in self._frozen(first, count)]))
        child._approximate = min(self._approximate, ranges[0][1] if ranges and ranges[0][0] == 0 else 0)
        child.adapter = self.adapter
        return child

    @staticmethod
    def concat(files: Sequence[File], owner: str) -> File:
        """A nameless file of all tokens of `files`, at least one; copies no page. Raises Invalid, Busy."""
        if not files:
            raise Invalid("nothing to concatenate: name at least one file", "files")
        for file in files:
            file._ensure_idle("concatenate")
        child = File(files[0]._pool, owner, files[0]._living)
        child._set_parts(Parts([part for file in files for part in file._frozen(0, len(file))]))
        child._approximate = min(files[0]._approximate, len(files[0]) if len(files) > 1 else EXACT)
        child.adapter = files[0].adapter
        return child

    def relocate(self, by: int) -> None:
        """Every position grows by `by`. No page is copied: keys are read as if they stood there. Raises Invalid if a
        position would be negative or past 2³¹ − 1, Busy while a pass appends."""
        self._ensure_idle("relocate")
        if by == 0 or not len(self):
            return
        least = int(self.positions().min())
        if least + by < 0 or self.next_position + by >= 1 << 31:
            raise Invalid(f"{self!r} has positions {least} to {self.next_position - 1}; they cannot move by {by}", "by")
        self._note_change()
        self._freeze()
        self._replace_parts(self._parts.shifted(by))
        self._approximate = 0

    def hide(self, first: int, count: int) -> None:
        """Passes read those tokens no more. Raises Invalid for a range past the end, Busy while a pass appends."""
        self._mark(first, count, hidden=True)

    def show(self, first: int, count: int) -> None:
        """Passes read those tokens again. Raises as `hide` does."""
        self._mark(first, count, hidden=False)

    def compose(self, parts: Parts) -> None:
        """The contents of an empty file: those parts, of which it takes over the holds."""
        assert not len(self), f"{self!r} is not empty"
        self._set_parts(parts)

    # --- the rest of its life ---

    @property
    def durable(self) -> bool:
        """Whether it is on disk as it is now."""
        return self.synced == self.changes

    def mark_restored(self, approximate: int) -> None:
        """It has just come from disk: as it is now, it is there. Tokens from offset `approximate` on are so."""
        self._approximate = approximate
        self.synced = self.changes

    def release(self) -> None:
        """One holder less (`open_count`). A file without a name goes with its last."""
        assert self.open_count > 0, f"{self!r} is released more often than it was opened"
        self.open_count -= 1
        self.close_if_forgotten()

    def close_if_forgotten(self) -> None:
        """Closes it if it has neither a holder nor a name."""
        if self.open_count == 0 and not self.paths:
            self.close()

    def close(self) -> None:
        """Gives back everything. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self._replace_parts(NONE)
        self.table.drop()
        self._table = PageTable(self._pool)
        if self._living is not None:
            self._living.discard(self)

    # --- inside ---

    def _make_room(self, count: int) -> Copies:
        assert not self.closed, f"{self!r} is closed"
        pages = self._pool.allocate(self.table.pages_for(count), self.owner)
        self._table = table = self.table.own()
        return table.make_room(pages)

    def _mark(self, first: int, count: int, *, hidden: bool) -> None:
        self._ensure_idle("hide" if hidden else "show")
        self._check_range(first, count)
        if count == 0:
            return
        self._note_change()
        if first + count > self._base:
            self._freeze()
        self._replace_parts(self._parts.marked(first, count, hidden=hidden))

    def _freeze(self) -> None:
        """Makes its tail one more part."""
        if self.table.count:
            self._replace_parts(Parts(self._frozen(0, len(self))))
            self.table.drop()
            self._table = PageTable(self._pool)
            self.indexed = None

    def _frozen(self, first: int, count: int) -> list[Part]:
        """Those tokens as parts, each of which holds an extent."""
        parts = self._parts.trimmed(first, count) if self._base else []
        low, high = max(first, self._base), first + count
        if low < high:
            parts.append(Part(self.table.cut(low - self._base, high - low), 0, high - low))
        return parts

    def _replace_parts(self, parts: Parts) -> None:
        old = self._parts
        self._set_parts(parts)
        old.drop()

    def _set_parts(self, parts: Parts) -> None:
        self._parts, self._base = parts, parts.count

    def _split(self, first: int, count: int | None) -> tuple[int, int, tuple[int, int]]:
        """The range, and what of it lies in the tail, as (first, count) of the tail."""
        count = len(self) - first if count is None else count
        low = max(first, self._base)
        return first, count, (low - self._base, max(0, first + count - low))

    def _check_range(self, first: int, count: int) -> None:
        if first < 0 or count < 0 or first + count > len(self):
            raise Invalid(f"tokens {first} to {first + count} of {self!r}: its offsets end at {len(self)}", "range")

    def _ensure_idle(self, what: str) -> None:
        assert not self.closed, f"{self!r} is closed"
        if self.busy:
            raise Busy(f"{self!r} is being appended to by an unfinished pass: wait for it, then {what}")

    def _note_change(self) -> None:
        self.changes += 1
        self.modified_ns = time.time_ns()
