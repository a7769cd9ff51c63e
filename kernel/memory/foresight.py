"""Ours: pages leave when somebody needs their frames, not when a program begins to wait; those first that will be used
last (Belady's rule, with what is known of tools in place of the future).

    waits ──▶ copied to the host, as far as steps hide it ──▶ clean: leaves at once when a frame is needed
                                                                │
    goes on ◀── there before it asks ◀── fetched when it is likely to come back soon ◀──┘

Nothing is wasted on what is not needed: while frames are free, keeping costs nobody anything. Copies are made ahead, so
that leaving takes no time; a page that was copied once, in an earlier wait, is clean still, and so each wait moves only
what is new. A page that several programs hold leaves with the last of them to be expected, once. Discarding is for want
of room on the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cadenza.kernel.memory.policy import Idle, Orders, Room, Victim, Way, by_return

LIKELY = 0.5                          # probability of coming back in time, from which pages are fetched for it
AHEAD_STEPS = 4                       # that a program is expected before it is fetched for, beyond what fetching takes
EARLY = 0.1                           # or by this part of the time that it has waited: forecasts are no better
LOOK_SECONDS = 0.05                   # between two looks at who is coming back, at the least,
LOOK_SECONDS_EACH = 0.0005            # and for each program that waits
COPIED_FRACTION = 0.5                 # of the frames: while more of them are free, nothing is copied


@dataclass(frozen=True, slots=True)
class Foresight:
    """`shares` false: what it would be if it did not see that pages are shared."""

    name: str = "ours"
    keeps_place: bool = True
    shares: bool = True

    def unasked(self, now: float, idle: Sequence[Idle], room: Room) -> Orders:
        orders = Orders(again=_look(idle))
        free, budget = room.free - room.promised, room.budget_pages
        for each in sorted(idle, key=lambda each: each.waiting.process.pid):
            if 0 < each.absent <= min(free, budget) and self._is_near(now, each, room):
                away = each.away
                orders.fetch += away
                free, budget = free - len(away), budget - len(away)
        if room.free < room.frames * COPIED_FRACTION:
            orders.copy = [each for each in by_return(now, idle) if len(each.here)]
        return orders

    def victims(self, now: float, idle: Sequence[Idle], room: Room) -> list[Victim]:
        return [Victim(each, len(each.here), Way.SWAP) for each in by_return(now, idle) if len(each.here)]

    def _is_near(self, now: float, idle: Idle, room: Room) -> bool:
        """What is fetched too early costs some of the budget: it is clean, and leaves at once when others need it."""
        step = room.costs.forward(room.step_tokens)
        horizon = AHEAD_STEPS * step + idle.absent * room.costs.page_seconds
        return idle.waiting.within(now, max(horizon, EARLY * (now - idle.waiting.since))) >= LIKELY


def _look(idle: Sequence[Idle]) -> float:
    """Nobody comes back to what is here already."""
    if not any(each.absent for each in idle):
        return math.inf
    return max(LOOK_SECONDS, LOOK_SECONDS_EACH * len(idle))
