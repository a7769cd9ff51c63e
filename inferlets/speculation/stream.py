"""Drafters: one generation's way through the tables, or through itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .table import Table
from .tree import Tree, grow

LENGTHS = (3, 2)           # of what is looked up in the prompt, the longest first


class Stream:
    """Drafts from `table`, which learns what comes, and `frozen`. `heard` is told what was learnt."""

    def __init__(self, table: Table | None, frozen: Table | None,
                 heard: Callable[[Sequence[int]], object] = len) -> None:  # fmt: skip
        self._table, self._heard = table, heard
        self._tables = [each for each in (table, frozen) if each is not None]
        self._longest = max((max(each.leading) for each in self._tables), default=0)
        self._said: list[int] = []
        self._learnt = 0

    def follow(self, tokens: Sequence[int]) -> None:
        self._said += tokens

    def learn(self) -> None:
        if self._table is not None and self._learnt < len(self._said):
            self._table.learn(self._said, self._learnt)
            self._heard(self._said[self._learnt :])
        self._learnt = len(self._said)

    def draft(self, size: int) -> Tree:
        return grow(tuple(self._said[-self._longest :]), self._tables, size) if self._tables else Tree()


class Lookup:
    """Drafts what came behind the last tokens when they were last there, in this context: a chain."""

    def __init__(self) -> None:
        self._said: list[int] = []
        self._learnt = 0
        self._places: dict[tuple[int, ...], int] = {}             # where what follows begins

    def follow(self, tokens: Sequence[int]) -> None:
        self._said += tokens

    def learn(self) -> None:
        """All but the very end: nothing follows it yet."""
        for end in range(max(1, self._learnt), len(self._said)):
            for length in LENGTHS:
                if length <= end:
                    self._places[tuple(self._said[end - length : end])] = end
        self._learnt = len(self._said)

    def draft(self, size: int) -> Tree:
        for length in LENGTHS:
            place = self._places.get(tuple(self._said[-length:]))
            if place is not None:
                tokens = self._said[place : place + size]
                return Tree(tokens, list(range(len(tokens))))
        return Tree()
