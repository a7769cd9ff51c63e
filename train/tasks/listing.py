"""Lists of words: said again, turned round, sorted, counted, or one of them picked. No tool is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from train.dialogue import Dialogue, assistant, user
from train.world import World

ORDINALS = ("first", "second", "third")


@dataclass(frozen=True)
class Listing:
    """What to do with a list of words, in several wordings; `{w}` is the list, comma-separated."""

    kind: str
    wordings: tuple[str, ...]
    answer: Callable[[list[str]], str]
    fewest: int = 2
    most: int = 6
    invented: float = 0.1

    def dialogue(self, world: World) -> Dialogue:
        words = world.word_list(self.fewest, self.most, self.invented)
        question = world.question(world.choice(self.wordings).format(w=", ".join(words)))
        return Dialogue(self.kind, (user(question), assistant(self.answer(words))))


@dataclass(frozen=True)
class Picking:
    """Which word stands at a given place of the list."""

    kind: str

    def dialogue(self, world: World) -> Dialogue:
        words = world.word_list(3, 6)
        place = world.choice([*ORDINALS, "last"])
        word = words[-1] if place == "last" else words[ORDINALS.index(place)]
        question = f"What is the {place} word of these: {', '.join(words)}?"
        return Dialogue(self.kind, (user(question), assistant(f"The {place} word is {word}.")))


def counted(words: list[str]) -> str:
    return f"There are {len(words)} words." if len(words) > 1 else "There is 1 word."


REPEATING = Listing(
    "repeat",
    ("Repeat: {w}.", "Repeat these words: {w}.", "Say again: {w}.", "Say after me: {w}."),
    lambda words: f"You said: {', '.join(words)}.",
    fewest=1,
    most=8,
)
REVERSING = Listing(
    "reverse",
    ("Reverse: {w}.", "Reverse these words: {w}.", "Say backwards: {w}.", "Turn this list round: {w}."),
    lambda words: f"Reversed: {', '.join(reversed(words))}.",
)
COUNTING = Listing(
    "count",
    ("Count: {w}.", "Count these words: {w}.", "How many words are these: {w}?"),
    counted,
    fewest=1,
    most=8,
)
SORTING = Listing(
    "sort",
    ("Sort: {w}.", "Sort these words: {w}.", "Put these words in order: {w}."),
    lambda words: f"Sorted: {', '.join(sorted(words))}.",
    most=4,
    invented=0.0,
)
