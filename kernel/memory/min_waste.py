"""InferCept's policy (arXiv 2402.01869, section 4): of keeping, swapping and discarding, what wastes the least.

    keep      T · C                                     C pages are in the way for T seconds
    discard   recompute(C) · C / 2 + delay · others     computed again in chunks beside the decodes of others
    swap      nothing, within the budget that a step hides

The swap budget goes to those whose smaller waste is the largest, if that is more than moving wastes; the others are
kept or discarded, whichever is less.
T is the time that the call takes: known to the oracle; estimated, as in the paper, by the time since it began.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cadenza.kernel.memory.policy import Idle, Orders, Room, Victim, Way


@dataclass(frozen=True, slots=True)
class MinWaste:
    """`oracle`: what programs say that they expect is taken for the truth."""

    oracle: bool = False
    keeps_place: bool = True
    shares: bool = True

    @property
    def name(self) -> str:
        return "infercept-oracle" if self.oracle else "infercept"

    def unasked(self, now: float, idle: Sequence[Idle], room: Room) -> Orders:
        wastes = [(self._keeping(now, each), _discarding(each, room), each) for each in idle if len(each.here)]
        wastes.sort(key=lambda waste: (-min(waste[:2]), waste[2].waiting.process.pid))
        leave: list[Victim] = []
        again = room.costs.forward(room.step_tokens) if wastes else math.inf
        budget = room.budget_pages
        for keeping, discarding, each in wastes:
            swapped = min(len(each.here), max(0, budget), room.host_free)
            if swapped and keeping > _moving(each, room):
                budget -= swapped
                leave.append(Victim(each, swapped, Way.SWAP))
            elif discarding < keeping and each.recomputable:
                leave.append(Victim(each, len(each.here), Way.DISCARD))
        return Orders(leave=leave, again=again)

    def victims(self, now: float, idle: Sequence[Idle], room: Room) -> list[Victim]:
        """All was decided before the step."""
        return []

    def _keeping(self, now: float, idle: Idle) -> float:
        elapsed = now - idle.waiting.since
        return (elapsed + idle.waiting.remaining(now) if self.oracle else elapsed) * len(idle.here)


def _moving(idle: Idle, room: Room) -> float:
    """Out and in again, half of it there meanwhile: who is back sooner is better kept."""
    return len(idle.here) ** 2 * room.costs.page_seconds


def _discarding(idle: Idle, room: Room) -> float:
    others = room.frames - room.free - len(idle.here)
    return room.recomputing(idle.pages) * idle.pages / 2 + room.delaying(idle.pages) * max(0, others)
