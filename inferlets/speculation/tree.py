"""The draft: a tree of tokens that may come, the likely ones first, grown from tables until it is large enough."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from .table import Table, Tokens

RANKS = (0.7, 0.2, 0.1, 0.05)      # how likely the first follower of a leader is thought to be, the second, …
SHORTER = 0.5                      # and that of the next shorter leader, or of the next table
DECAY = 0.9                        # a token further on


@dataclass
class Tree:
    """`parents`: one a token, 0 for the root, else the number, from 1 on, of one before it."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tokens)

    def way(self, said: Sequence[int]) -> list[int]:
        """The numbers of the tokens that come to pass if `said` is said, in order."""
        way: list[int] = []
        at = 0
        for number, (token, parent) in enumerate(zip(self.tokens, self.parents, strict=True), 1):
            if parent == at and len(way) < len(said) and token == said[len(way)]:
                way.append(number)
                at = number
        return way


def grow(tail: Tokens, tables: Sequence[Table], size: int) -> Tree:
    """At most `size` tokens that may follow `tail`: behind each leader its followers, and behind these, as leaders in
    their turn, theirs. What is thought likeliest comes first, and grows further first."""
    tree, numbers = Tree(), dict[tuple[int, int], int]()         # of each (parent, token)
    order = 0                                                    # of equals the first comes first
    found: list[tuple[float, int, int, Tokens, Tokens]] = []     # −likelihood, order, parent, before it, what may come
    for chance, follower in behind(tail, tables):
        order += 1
        found.append((-chance, order, 0, tail, follower))
    heapq.heapify(found)
    while found and len(tree) < size:
        likelihood, _, parent, before, follower = heapq.heappop(found)
        token, rest = follower[0], follower[1:]
        number = numbers.get((parent, token))
        if number is None:
            tree.tokens.append(token)
            tree.parents.append(parent)
            number = numbers[parent, token] = len(tree)
        tail = (*before[1:], token)
        for chance, follower in [(1.0, rest)] if rest else behind(tail, tables):
            order += 1
            heapq.heappush(found, (likelihood * chance * DECAY, order, number, tail, follower))
    return tree


def behind(tail: Tokens, tables: Sequence[Table]) -> list[tuple[float, Tokens]]:
    """What may follow, with its chance: that of the longest leader comes first, of the first table that knows it."""
    found: list[tuple[float, Tokens]] = []
    sure = 1.0
    for place in range(len(tables[0].leading)):
        for table in tables:
            length = table.leading[place]
            if length <= len(tail):
                known = table.followers(tail[-length:])
                if known:
                    found += [(sure * rank, follower) for rank, follower in zip(RANKS, known, strict=False)]
                    sure *= SHORTER
    return found
