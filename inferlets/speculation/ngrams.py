"""A draft model: n-grams of frozen texts, with probabilities (speculative decoding as Leviathan, Kalman & Matias 2023,
arXiv 2211.17192, have it, with the smallest model there is).

    p(token | a b c) = count(a b c token) / count(a b c), if that was seen; else 0.4 · p(token | b c), and so on

That is stupid back-off (Brants et al. 2007, "Large Language Models in Machine Translation"). A draft is the tree of the
likeliest ways, by the product of their probabilities. It learns nothing while it drafts, so it needs texts like those
that are said; and the outcome is exact whatever it believes.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence

from .tree import Tree

Tokens = tuple[int, ...]

CONTEXT = 3                # tokens at most
BACKED_OFF = 0.4
LIKELY = 4                 # tokens that are kept behind a context, and drafted


class Ngrams:
    """What came behind up to CONTEXT tokens, each time; what did so once is left out."""

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        counts: Counter[Tokens] = Counter()
        for text in texts:
            for length in range(1, CONTEXT + 2):
                counts.update(zip(*(text[first:] for first in range(length)), strict=False))
        self._likely: dict[Tokens, list[tuple[int, float]]] = {}
        for ngram, count in counts.most_common():
            if count > 1 and len(ngram) > 1:
                known = self._likely.setdefault(ngram[:-1], [])
                if len(known) < LIKELY:
                    known.append((ngram[-1], count / counts[ngram[:-1]]))

    def likely(self, tail: Tokens) -> list[tuple[int, float]]:
        """Tokens that may follow, and their probabilities, the likeliest first."""
        found: dict[int, float] = {}
        weight = 1.0
        for length in range(min(CONTEXT, len(tail)), 0, -1):
            known = self._likely.get(tail[-length:], ())
            for token, probability in known:
                found.setdefault(token, weight * probability)
            weight *= BACKED_OFF if known else 1.0
        return sorted(found.items(), key=lambda each: -each[1])[:LIKELY]


class Ways:
    """A drafter: the likeliest ways behind what was said."""

    def __init__(self, model: Ngrams) -> None:
        self._model = model
        self._tail: Tokens = ()

    def follow(self, tokens: Sequence[int]) -> None:
        self._tail = (*self._tail, *tokens)[-CONTEXT:]

    def learn(self) -> None:
        """Its texts are frozen."""

    def draft(self, size: int) -> Tree:
        tree = Tree()
        found = [(-probability, 0, token, self._tail) for token, probability in self._model.likely(self._tail)]
        while found and len(tree) < size:
            likelihood, parent, token, before = heapq.heappop(found)
            tree.tokens.append(token)
            tree.parents.append(parent)
            tail = (*before, token)[-CONTEXT:]
            for following, probability in self._model.likely(tail):
                heapq.heappush(found, (likelihood * probability, len(tree), following, tail))
        return tree
