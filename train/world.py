"""Where a dialogue's names and values come from: drawn at random, and kept apart for training and for judging.

Whether a value is held out is a property of the value and of its role, not of chance: one in `HELD_OUT_ONE_IN`
hashes to the held-out side, for ever. So no held-out name, colour-and-thing, expression or list of words can
ever be met in training in that role, whatever the seed.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from cadenza.inferlets.async_calls.cml import RESERVED
from train import words

HELD_OUT_ONE_IN = 8
MOST_TRIES = 10_000
PIECES = re.compile(
    "|".join(map(re.escape, RESERVED)) + r"|\d|[A-Z]?[^aeiou\W\d_]{0,2}[aeiou]+|[A-Za-z]|[^\w\s\[]+|\s|."
)
"""About what a token is, where no tokenizer is at hand."""

Choice = TypeVar("Choice")
Pieces = Callable[[str], list[str]]


class Split(Enum):
    """The side of the division from which a world draws."""

    TRAIN = "train"
    HELD_OUT = "held_out"


def split_of(role: str, value: str) -> Split:
    """The side on which this value falls in this role; the same on every machine and in every run."""
    digest = hashlib.blake2b(f"{role}:{value}".encode(), digest_size=4).digest()
    return Split.HELD_OUT if int.from_bytes(digest) % HELD_OUT_ONE_IN == 0 else Split.TRAIN


def with_article(noun: str) -> str:
    """`a kite`, `an apple`."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def invented_word(source: random.Random, fewest: int, most: int) -> str:
    """A word of `fewest` to `most` syllables that no dictionary holds, in lower case."""
    syllables = source.randint(fewest, most)
    parts: list[str] = []
    for position in range(syllables):
        onset = "" if position == 0 and source.random() < 0.2 else source.choice(words.ONSETS)
        vowel = source.choice(words.ACCENTED if source.random() < 0.01 else words.VOWELS)
        coda = source.choice(words.CODAS) if source.random() < 0.3 else ""
        parts += [onset, vowel, coda]
    return "".join(parts)


def spelled_word(source: random.Random) -> str:
    """Letters in no order at all: whoever copies these copies anything."""
    return "".join(source.choice(words.LETTERS) for _ in range(source.randint(3, 9)))


@dataclass
class World:
    """The source of one dialogue's names and values, all from one side of the division, none given twice.

    `reach` is the most facts that a context holds; training raises it as it goes. `pieces` cuts what is said into what
    each takes a token's time: a tokenizer's tokens, or about that.
    """

    random: random.Random
    split: Split
    reach: int = 8
    pieces: Pieces = PIECES.findall
    used: set[tuple[str, str]] = field(default_factory=set)

    def choice(self, options: Sequence[Choice]) -> Choice:
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def draw(self, role: str, make: Callable[[], str]) -> str:
        """The first value from `make` that lies on this world's side and is new to this dialogue."""
        for _ in range(MOST_TRIES):
            value = make()
            if (role, value) not in self.used and split_of(role, value) is self.split:
                self.used.add((role, value))
                return value
        raise ValueError(f"no {role} left to draw after {MOST_TRIES} tries: give that role more values")

    def name(self) -> str:
        """A person's name, capitalised."""
        return self.draw("name", lambda: self._proper_noun(words.REAL_NAMES))

    def city(self) -> str:
        """A city's name, capitalised, now and then of two words."""
        return self.draw("city", self._city)

    def language(self) -> str:
        return self.draw("language", self._language)

    def thing(self) -> str:
        """A colour and a noun: `blue kite`."""
        return self.draw("thing", lambda: f"{self.choice(words.COLORS)} {self._noun()}")

    def job(self) -> str:
        """With its article: `a baker`."""
        return with_article(self.draw("job", self._job))

    def food(self) -> str:
        return self.draw("food", lambda: f"{self.choice(words.FLAVOURS)} {self.choice(words.DISHES)}")

    def room(self) -> str:
        return self.draw("room", lambda: f"{self.choice(words.COLORS)} {self.choice(words.ROOMS)}")

    def age(self) -> str:
        """In years."""
        return self.draw("age", lambda: str(self.random.randint(1, 120)))

    def whole_number(self, role: str, digits: int) -> str:
        """A whole number of at most `digits` decimal digits, never 0."""
        return self.draw(role, lambda: str(self.random.randint(1, 10 ** self.random.randint(1, digits) - 1)))

    def word_list(self, fewest: int, most: int, invented: float = 0.1) -> list[str]:
        """Different words with different first letters, a part of them invented; the combination as a whole is new."""

        def make() -> str:
            length = self.random.randint(fewest, most)
            first_letters: dict[str, str] = {}
            while len(first_letters) < length:
                word = invented_word(self.random, 1, 2) if self.chance(invented) else self.choice(words.WORDS)
                first_letters.setdefault(word[0], word)
            return ", ".join(first_letters.values())

        return self.draw("words", make).split(", ")

    def question(self, text: str) -> str:
        """The question as a person may type it: now and then loosely."""
        if self.chance(0.05):
            text = text.rstrip("?.")
        if self.chance(0.05):
            text = self.choice(["Please tell me: ", "One question: ", "Now: ", "And: ", "Hello. "]) + text
        return text

    def _proper_noun(self, real: Sequence[str]) -> str:
        form = self.random.random()
        if form < 0.2:
            return self.choice(real)
        if form < 0.27:
            return spelled_word(self.random).capitalize()
        return invented_word(self.random, 2, 3 if form > 0.8 else 2).capitalize()

    def _city(self) -> str:
        city = self._proper_noun(words.REAL_CITIES)
        return f"{self.choice(['New', 'Port', 'San', 'Old', 'North'])} {city}" if self.chance(0.08) else city

    def _language(self) -> str:
        return invented_word(self.random, 1, 2).capitalize() + self.choice(["ish", "ese"])

    def _noun(self) -> str:
        return self.choice(words.NOUNS) if self.chance(0.9) else invented_word(self.random, 2, 2)

    def _job(self) -> str:
        return self.choice(words.JOBS) if self.chance(0.9) else invented_word(self.random, 2, 2) + "er"
