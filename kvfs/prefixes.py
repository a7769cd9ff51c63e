"""Which pages hold which prompts: for each user, and each adapter that he computes under, a tree of full pages, each
found by its parent and its tokens.

    "ada" ── page 7 (tokens 0–15) ─┬─ page 9 (tokens 16–31 of one prompt)
                                   └─ page 4 (tokens 16–31 of another)

Tokens are compared one by one, as the bytes of a key. A page is in the tree once, from when its K and V have been
computed until it is written to or its frame is given to another; what hangs below it goes with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numpy import int32
from numpy.typing import NDArray

from cadenza.kvfs.pool import PagePool

if TYPE_CHECKING:
    from cadenza.kvfs.file import File

Int32 = NDArray[int32]
ROOT = -1
GONE = -2


class Node:
    """One page of a prompt. `page` is GONE once it has left the tree."""

    __slots__ = ("children", "key", "page", "parent")

    def __init__(self, page: int, parent: Node | None, key: bytes) -> None:
        self.page = page
        self.parent = parent
        self.key = key
        self.children: dict[bytes, Node] = {}


class Prefixes:
    """Finds the pages of prompts that begin alike. Only exact, contiguous files are in it, under their owner."""

    def __init__(self, pool: PagePool) -> None:
        self._pool = pool
        self._roots: dict[str, Node] = {}
        self._nodes: dict[int, Node] = {}
        pool.when_forgotten(self.forget)

    def __len__(self) -> int:
        return len(self._nodes)

    def find(self, owner: str, tokens: Int32, adapter: str = "") -> list[int]:
        """The pages that hold the longest known beginning of `tokens`, computed under `adapter`, whole pages of it.
        Changes nothing."""
        node, size, found = self._roots.get(_root(owner, adapter)), self._pool.page_tokens, list[int]()
        if node is None:
            return found
        for first in range(0, len(tokens) - size + 1, size):
            node = node.children.get(tokens[first : first + size].tobytes())
            if node is None:
                break
            found.append(node.page)
        return found

    def add(self, file: File, known: int) -> None:
        """The first `known` tokens of `file`, and their K and V, are there. Takes time with the pages not known yet."""
        full = known // self._pool.page_tokens
        node, done = self._cursor(file)
        if full <= done or not (file.contiguous and file.exact):
            return
        size, pages = self._pool.page_tokens, file.pages
        tokens = file.tokens(done * size, (full - done) * size)
        for at in range(done, full):
            key = tokens[(at - done) * size : (at - done + 1) * size].tobytes()
            child = node.children.get(key)
            if child is None:
                child = self._adopt(pages[at], node, key)
                if child is None:
                    return
            node = child
        file.indexed = (node, full)

    def forget(self, page: int) -> None:
        """That page leaves the tree, with what hangs below it. Idempotent."""
        node = self._nodes.get(page)
        if node is None:
            return
        assert node.parent is not None, "a root has no page"
        del node.parent.children[node.key]
        if node.parent.page == ROOT and not node.parent.children:
            node.parent.page = GONE
            del self._roots[node.parent.key.decode()]
        below = [node]
        while below:
            node = below.pop()
            below += node.children.values()
            del self._nodes[node.page]
            self._pool.disown(node.page)
            node.page = GONE

    def _adopt(self, page: int, parent: Node, key: bytes) -> Node | None:
        """None if the page is in the tree already, elsewhere: another user's prompt, forked."""
        if page in self._nodes:
            return None
        child = parent.children[key] = self._nodes[page] = Node(page, parent, key)
        self._pool.keep(page)
        return child

    def _cursor(self, file: File) -> tuple[Node, int]:
        """How far the file is in the tree."""
        if file.indexed is not None and file.indexed[0].page != GONE:
            return file.indexed
        key = _root(file.owner, file.adapter)
        root = self._roots.get(key)
        if root is None:
            root = self._roots[key] = Node(ROOT, None, key.encode())
        return root, 0


def _root(owner: str, adapter: str) -> str:
    """Neither name holds a NUL."""
    return f"{owner}\0{adapter}" if adapter else owner
