"""Pairs to be found again: the barest form of what all other kinds need, with many look-ups for few tokens."""

from __future__ import annotations

from dataclasses import dataclass

from train import words
from train.dialogue import Dialogue, assistant, user
from train.world import World


@dataclass(frozen=True)
class Pairs:
    """Keys with values; then some keys are asked for, among them now and then one that was not there."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        pairs = {self._key(world): self._value(world) for _ in range(world.random.randint(2, max(2, world.reach)))}
        asked = world.random.sample(list(pairs), world.random.randint(1, min(8, len(pairs))))
        if world.chance(0.4):
            asked.insert(world.random.randint(0, len(asked)), self._key(world))
        told = ". ".join(f"{key} {value}" for key, value in pairs.items())
        found = ". ".join(f"{key} {pairs.get(key, 'unknown')}" for key in asked)
        return Dialogue(self.kind, (user(f"{told}. Tell: {', '.join(asked)}."), assistant(f"{found}.")))

    def _key(self, world: World) -> str:
        return world.name()

    def _value(self, world: World) -> str:
        form = world.random.random()
        if form < 0.3:
            return str(world.random.randint(0, 999))
        return world.thing() if form < 0.5 else world.city() if form < 0.8 else world.choice(words.WORDS)
