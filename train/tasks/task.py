"""The seam: a kind of task is an object with a name and one method."""

from __future__ import annotations

from typing import Protocol

from train.dialogue import Dialogue
from train.world import World


class Task(Protocol):
    """One kind of task."""

    @property
    def kind(self) -> str:
        """The name under which its score is reported."""

    def dialogue(self, world: World) -> Dialogue:
        """A new dialogue of this kind; every name and value in it comes from `world`, which decides the split."""
