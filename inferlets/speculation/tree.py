"""The draft: a tree of tokens that may come, the likely ones first, grown from tables until it is large enough."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

from .table import Table, Tokens

RANKS = (0.7, 0.2, 0.1, 0.05)      # how likely the first follower of a leader is thought to be, the second, …
SHORTER = 0.5                      # and those that the next table knows
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
    found: list[tuple[float, int, int, Tokens, Tokens]] = []     # −likelihood, order, parent, before it, what may come
    order = branch(found, 0, -1.0, 0, tail, tables)
    while found and len(tree.tokens) < size:
        likelihood, _, parent, before, follower = heapq.heappop(found)
        token, rest = follower[0], follower[1:]
        number = numbers.get((parent, token))
        if number is None:
            tree.tokens.append(token)
            tree.parents.append(parent)
            number = numbers[parent, token] = len(tree.tokens)
        likelihood, before = likelihood * DECAY, (*before[1:], token)
        if rest:
            order += 1
            heapq.heappush(found, (likelihood, order, number, before, rest))
        else:
            order = branch(found, order, likelihood, number, before, tables)
    return tree


def branch(found: list[tuple[float, int, int, Tokens, Tokens]], order: int, likelihood: float, parent: int,
           tail: Tokens, tables: Sequence[Table]) -> int:  # fmt: skip
    """What follows the longest leader that is known: those of the first table, then those of the next. Answers the
    order of the last: of equals the first comes first."""
    last = order
    for length in tables[0].leading:
        leader = tail[-length:]
        for table in tables:
            for rank, follower in zip(RANKS, table.followers(leader), strict=False):
                order += 1
                heapq.heappush(found, (likelihood * rank, order, parent, tail, follower))
            if order > last:
                likelihood *= SHORTER
        if order > last:
            break
    return order
