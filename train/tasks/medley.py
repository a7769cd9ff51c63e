"""A longer chat: several dialogues of other kinds, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from train.dialogue import Dialogue, Role, Turn
from train.tasks.task import Task
from train.world import World


@dataclass(frozen=True)
class Medley:
    """Two to `most` dialogues joined; only the first may bring a system turn, as only the first may in a chat."""

    kind: str
    parts: Sequence[Task]
    most: int = 4

    def dialogue(self, world: World) -> Dialogue:
        turns: list[Turn] = []
        for _ in range(world.random.randint(2, self.most)):
            turns += self._part(world, may_open=not turns).turns
        return Dialogue(self.kind, tuple(turns))

    def _part(self, world: World, may_open: bool) -> Dialogue:
        while True:
            part = world.choice(self.parts).dialogue(world)
            if may_open or part.turns[0].role is not Role.SYSTEM:
                return part
