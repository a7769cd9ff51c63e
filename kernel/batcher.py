"""Which passes share the step: a policy that decides, and does nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cadenza.kernel.passes import Work

_BY_PRIORITY = attrgetter("priority")
_BY_TURN = attrgetter("turn")
_BY_ARRIVAL = attrgetter("arrival")

Share = tuple["Work", int]


class BatchPolicy(Protocol):
    """Pure: the same work in the same state gives the same choice."""

    def choose(self, work: Iterable[Work]) -> list[Share]:
        """Who gets a row in the next step, and of how many tokens; empty when nobody wants one."""


@dataclass(frozen=True, slots=True)
class WorkConserving:
    """Everything that fits, at once. Higher priority first; within one, decodes before inputs: decodes in turn, so
    that nobody waits for a place twice while another has two, inputs first come first served and cut into chunks."""

    step_tokens: int
    step_rows: int

    def choose(self, work: Iterable[Work]) -> list[Share]:
        decodes: list[Work] = []
        inputs: list[Work] = []
        for each in work:
            if each.prefilling:
                inputs.append(each)
            elif each.wanted():
                decodes.append(each)
        if len(decodes) > self.step_rows:
            decodes.sort(key=_BY_TURN)
        if inputs:
            inputs.sort(key=_BY_ARRIVAL)
        candidates = decodes + inputs
        candidates.sort(key=_BY_PRIORITY, reverse=True)      # stable: keeps the order above within a priority
        return self._fill(candidates)

    def _fill(self, candidates: list[Work]) -> list[Share]:
        room = self.step_tokens
        shares: list[Share] = []
        for work in candidates[: self.step_rows]:
            count = min(work.wanted(), room) if work.prefilling else min(1, room)
            if count == 0:
                break
            room -= count
            shares.append((work, count))
        return shares
