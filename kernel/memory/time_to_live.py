"""A time to live for what waits (Continuum, arXiv 2511.02230): kept for as long as that is worth it, then discarded.

Keeping C pages for τ seconds costs C · E[min(T, τ)] and saves what computing them again would cost if the tool is back
by then; τ is the duration, among those that the tool's calls have had, for which the difference is greatest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cadenza.kernel.memory.policy import Idle, Orders, Room, Victim, Way

LONGEST_SECONDS = 60.0
LOOK_SECONDS = 0.1
STEPS = 24                            # durations tried, each half as long again as the one before


@dataclass(frozen=True, slots=True)
class TimeToLive:
    """Decides anew whenever it is asked: a call that has outlived its τ is worth keeping no more."""

    name: str = "time-to-live"
    keeps_place: bool = True
    shares: bool = True

    def unasked(self, now: float, idle: Sequence[Idle], room: Room) -> Orders:
        over = [each for each in idle if len(each.here) and each.recomputable and not _worth_keeping(now, each, room)]
        return Orders(leave=[Victim(each, len(each.here), Way.DISCARD) for each in over], again=LOOK_SECONDS)

    def victims(self, now: float, idle: Sequence[Idle], room: Room) -> list[Victim]:
        """What lives longest goes last."""
        order = sorted(idle, key=lambda each: (each.waiting.since, each.waiting.process.pid))
        return [Victim(each, len(each.here), Way.DISCARD) for each in order if each.recomputable]


def _worth_keeping(now: float, idle: Idle, room: Room) -> bool:
    """Whether there is a τ from now on for which keeping costs less than it saves. What is in nobody's way is kept."""
    if room.free > room.frames // 4:
        return True
    others = max(0, room.frames - room.free - len(idle.here))
    saved = room.recomputing(idle.pages) * idle.pages / 2 + room.delaying(idle.pages) * others
    held, before, last = 0.0, 0.0, 0.0
    seconds = LONGEST_SECONDS / 1.5**STEPS
    while seconds <= LONGEST_SECONDS:
        back = idle.waiting.within(now, seconds)
        held += (1 - (before + back) / 2) * (seconds - last)      # E[min(T, τ)], by trapezia
        if back * saved > held * len(idle.here):
            return True
        before, last, seconds = back, seconds, seconds * 1.5
    return False
