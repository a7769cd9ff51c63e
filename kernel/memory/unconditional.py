"""Policies that ask nothing: what serving systems do with a request that waits for a tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cadenza.kernel.memory.policy import Idle, Orders, Room, Victim, Way


@dataclass(frozen=True, slots=True)
class Preserve:
    """Everything stays where it is; new programs wait, or those that run make room."""

    name: str = "preserve"
    keeps_place: bool = True
    shares: bool = True

    def unasked(self, now: float, idle: Sequence[Idle], room: Room) -> Orders:
        return Orders()

    def victims(self, now: float, idle: Sequence[Idle], room: Room) -> list[Victim]:
        return []


@dataclass(frozen=True, slots=True)
class Discard:
    """Everything goes at once, and is computed again when the program comes back: to the end of the line, as in an
    engine that knows requests only, or to its head (InferCept's ImprovedDiscard)."""

    keeps_place: bool
    shares: bool = True

    @property
    def name(self) -> str:
        return "discard-head" if self.keeps_place else "discard-tail"

    def unasked(self, now: float, idle: Sequence[Idle], room: Room) -> Orders:
        return Orders(leave=self.victims(now, idle, room))

    def victims(self, now: float, idle: Sequence[Idle], room: Room) -> list[Victim]:
        return [Victim(each, len(each.here), Way.DISCARD) for each in idle if len(each.here)]


@dataclass(frozen=True, slots=True)
class Swap:
    """Everything goes to the host at once, however much longer the step gets for it."""

    name: str = "swap"
    keeps_place: bool = True
    shares: bool = True

    def unasked(self, now: float, idle: Sequence[Idle], room: Room) -> Orders:
        return Orders(leave=self.victims(now, idle, room))

    def victims(self, now: float, idle: Sequence[Idle], room: Room) -> list[Victim]:
        return [Victim(each, len(each.here), Way.SWAP) for each in idle if len(each.here)]
