"""Speculation with the smallest draft model: see ngrams.py."""

from __future__ import annotations

from .ngrams import Ngrams, Ways
from .pace import Pace
from .run import Speculation


class NgramModel(Speculation):
    """`model` may serve any number of generations."""

    def __init__(self, model: Ngrams, pace: Pace | None = None) -> None:
        super().__init__(pace)
        self._model = model

    def drafter(self) -> Ways:
        return Ways(self._model)
