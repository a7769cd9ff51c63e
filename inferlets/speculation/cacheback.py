"""Cacheback (Ma, Gim & Zhong 2025, arXiv 2511.21699): drafts from tables of what was said before, and nothing else.

Two tables: a dynamic one, which learns whatever the model and the user say, and a frozen one, made once of a corpus. A
leader is looked up in both. One `Cacheback` may serve any number of generations, at the same time too.
"""

from __future__ import annotations

from collections.abc import Sequence

from .pace import Pace
from .run import Speculation
from .stream import Stream
from .table import Table


class Cacheback(Speculation):
    """`frozen`: beside the table that learns, or, with `learns=False`, in place of it."""

    def __init__(self, frozen: Table | None = None, *, learns: bool = True, pace: Pace | None = None) -> None:
        super().__init__(pace)
        self.table, self.frozen, self.learns = Table(), frozen, learns

    def drafter(self) -> Stream:
        return Stream(self.table if self.learns else None, self.frozen, self.heard)

    def heard(self, tokens: Sequence[int]) -> None:
        """These were learnt: `Shared` tells others."""
