"""The seam of memory policies: what they are told, and what they may order.

A policy decides and does nothing else: the same programs, waiting for the same things, in the same room, get the same
orders. It is asked for two things: what should move without need (`unasked`), and, when a pass needs frames that are
not free, who makes room (`victims`). Waste is memory that nobody computes on, as pages × seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.costs import Costs
from cadenza.kernel.waits import Waiting
from cadenza.kvfs.tiers import Tiers

Int32 = NDArray[np.int32]


class Idle:
    """A program that waits, and those pages of its that may leave: the ones `here`, on the device, in the order of its
    files' tokens, and the absent ones. A page that several such programs hold is in one of them only."""

    __slots__ = ("_absent", "_tiers", "here", "pages", "recomputable", "waiting")

    def __init__(self, waiting: Waiting, here: Int32, absent: Int32, tiers: Tiers, *, recomputable: bool) -> None:
        """`recomputable`: whether a plain prefill gives the same again."""
        self.waiting = waiting
        self.here = here
        self.pages = len(here) + len(absent)
        self.recomputable = recomputable
        self._absent, self._tiers = absent, tiers

    @property
    def absent(self) -> int:
        """How many pages are not on the device."""
        return len(self._absent)

    @property
    def away(self) -> list[int]:
        """Of the absent pages, those on the host; the others are on disk or lost."""
        return [page for page in self._absent.tolist() if page in self._tiers.host]

    @property
    def dirty(self) -> list[int]:
        """Of those here, the ones that lie nowhere else."""
        tiers = self._tiers
        return [page for page in self.here.tolist() if page not in tiers.host and page not in tiers.stored]


class Room(NamedTuple):
    """The state of the device: frames in all and free, tokens of the last step, and what may be moved in the next
    without making it longer. Frames that passes in hand will ask for soon are `promised`."""

    frames: int
    free: int
    promised: int
    page_tokens: int
    step_tokens: int
    budget_pages: int
    host_free: int
    costs: Costs

    def recomputing(self, pages: int) -> float:
        """Seconds that it takes to compute so many pages again, in chunks beside the decodes of other programs."""
        tokens = pages * self.page_tokens
        chunk = max(1, self.costs.saturation - self.step_tokens)
        steps = -(-tokens // chunk)
        return steps * self.costs.forward(self.step_tokens + min(chunk, tokens))

    def delaying(self, pages: int) -> float:
        """Seconds by which that makes the steps of others longer."""
        chunk = max(1, self.costs.saturation - self.step_tokens)
        beyond = max(0, self.step_tokens + chunk - self.costs.saturation)
        return -(-pages * self.page_tokens // chunk) * beyond * self.costs.per_token


class Way(Enum):
    """How pages leave. What cannot be swapped out, for want of room on the host, is discarded if it can be."""

    SWAP = "swap"
    DISCARD = "discard"


class Victim(NamedTuple):
    """The last `pages` of those that an idle program has here."""

    idle: Idle
    pages: int
    way: Way


@dataclass(slots=True)
class Orders:
    """Moves that nobody waits for: whose pages to copy to the host as budgets allow, what to take from the device, and
    pages to fetch from the host. They hold until a wait begins or ends; `again`: seconds until the policy wants to be
    asked before, more than 0."""

    copy: list[Idle] = field(default_factory=list)
    leave: list[Victim] = field(default_factory=list)
    fetch: list[int] = field(default_factory=list)
    again: float = math.inf


class MemoryPolicy(Protocol):
    """`keeps_place`: a program comes back from a tool to the place in line that it had; else to the end. `shares`: a
    page that several programs hold goes with the one that returns first, not with the one that returns last."""

    @property
    def name(self) -> str: ...

    @property
    def keeps_place(self) -> bool: ...

    @property
    def shares(self) -> bool: ...

    def unasked(self, now: float, idle: Sequence[Idle], room: Room) -> Orders:
        """When a wait has begun or ended, or when it is asked `again`."""

    def victims(self, now: float, idle: Sequence[Idle], room: Room) -> list[Victim]:
        """Who makes room, first to last; whoever is not named stays."""


def by_return(now: float, idle: Sequence[Idle]) -> list[Idle]:
    """Those that come back last, first."""
    return sorted(idle, key=lambda each: (-each.waiting.remaining(now), -each.waiting.process.pid))
