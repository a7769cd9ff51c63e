"""Functions, and requests to call them: names, arguments and values are put together anew for every task.

    declared    find_hotel(guest, nights)
    asked       find the hotel with guest Mara and nights 3      of one argument, by place:   rate the boat of 5
    called      find_hotel(guest="Mara", nights=3)

Which verb goes with which noun, and which arguments go together, decides the division (train/world.py): a held-out
function is one whose name training never uses.
"""

from __future__ import annotations

from dataclasses import dataclass

from train import words
from train.world import World

THAT = "that"
"""Stands in a request for what the call before it returned."""


@dataclass(frozen=True)
class Function:
    """What may be called. Its noun also names the call, and what came of it."""

    verb: str
    noun: str
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.verb}_{self.noun}"

    @property
    def declared(self) -> str:
        return f"{self.name}({', '.join(self.arguments)})"


@dataclass(frozen=True)
class Request:
    """A function with a value for each argument, in the order in which they are asked for."""

    function: Function
    values: tuple[tuple[str, str], ...]
    by_place: bool

    def asked(self, world: World) -> str:
        """In words: `find the hotel with guest Mara and nights 3`."""
        parts = [value if self.by_place else f"{name} {value}" for name, value in self.values]
        return f"{self.function.verb} the {self.function.noun} {world.choice(WITH)} {' and '.join(parts)}"

    def code(self, before: str = "") -> str:
        """As it is called; `before` is what the call before it returned."""
        filled = [(name, before if value == THAT else value) for name, value in self.values]
        return f"{self.function.name}({', '.join(f'{name}={literal(value)}' for name, value in filled)})"


@dataclass(frozen=True)
class Chain:
    """Requests of which each may use what the one before it returned; only the last one's result is told."""

    requests: tuple[Request, ...]

    def asked(self, world: World) -> str:
        """`find the hotel with nights 3, then book the table with hotel that`."""
        return ", then ".join(request.asked(world) for request in self.requests)


WITH = ("with", "with", "for", "of")


def literal(value: str) -> str:
    """A whole number as it is, anything else between quotes."""
    return value if value.isdecimal() else f'"{value}"'


def value_of(world: World) -> str:
    """A number, a name or a word: what an argument may be, and what a function may return."""
    form = world.random.random()
    if form < 0.4:
        return str(world.random.randint(0, 10 ** world.random.randint(1, 3) - 1))
    return world.name() if form < 0.85 else world.choice(words.WORDS)


def new_function(world: World, nouns: set[str], fewest: int = 1) -> Function:
    """A function whose noun is not among `nouns`, with `fewest` to three arguments; adds its noun to them."""
    while True:
        verb, noun = world.draw(
            "function", lambda: f"{world.choice(words.VERBS)} {world.choice(words.OBJECTS)}"
        ).split()
        if noun not in nouns:
            break
    nouns.add(noun)
    count = max(fewest, world.random.choices([1, 2, 3], weights=[5, 4, 2])[0])
    return Function(verb, noun, tuple(world.random.sample(words.ARGUMENTS, count)))


def new_request(world: World, function: Function, after: bool = False) -> Request:
    """Values for the function's arguments; `after` a call, one of them is what that call returned."""
    names = list(function.arguments)
    by_place = len(names) == 1 and world.chance(0.2)
    if not by_place and world.chance(0.5):
        world.random.shuffle(names)
    values = [value_of(world) for _ in names]
    if after:
        values[world.random.randrange(len(values))] = THAT
    return Request(function, tuple(zip(names, values, strict=True)), by_place)
