"""What a prompt takes from a layout: its names looked up, its arguments and new text as tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from .elements import Import, Item, Prompt, Turn
from .errors import Malformed, MissingArgument, RepeatedImport, UnionConflict, UnknownName
from .layout import Choice, Layout, Place, Placed, Room, Said, fitting, within
from .template import Tokens


@dataclass(frozen=True)
class New:
    """New text. `opens`: it is the opening of a turn, so it cannot stand in another."""

    tokens: Tokens
    opens: bool = False
    line: int = 0


@dataclass(frozen=True)
class Chosen:
    """An imported module, and what the prompt puts into it, in the order of the prompt. `turn`: the turn of the schema
    that it is in. `arguments`: tokens by parameter, for those that are not left at their default."""

    placed: Placed
    content: tuple[Chosen | New, ...]
    arguments: Mapping[str, Tokens]
    turn: Said | None = None
    line: int = 0

    @property
    def imports(self) -> list[Chosen]:
        return [each for each in self.content if isinstance(each, Chosen)]

    def news(self, after: Chosen | None) -> tuple[New, ...]:
        """The new text right after an import, or before the first."""
        found: list[New] = []
        last: Chosen | None = None
        for each in self.content:
            if isinstance(each, Chosen):
                last = each
            elif last is after:
                found.append(each)
        return tuple(found)


Resolved: TypeAlias = "Chosen | New"


def select(layout: Layout, prompt: Prompt) -> Chosen:
    """The root, chosen, with all that the prompt chooses in it. Raises MarkupError of some kind, with the line."""
    if prompt.schema != layout.schema.name:
        wanted, here = prompt.schema, layout.schema.name
        raise UnknownName(f"the prompt is for schema {wanted!r}, this one is {here!r}", prompt.line)
    return Selection(layout).scope(layout.root, prompt.children, prompt.arguments, None, prompt.line)


class Selection:
    """Walks a prompt. `_turns`: how many turns there are before the next one, the schema's included."""

    def __init__(self, layout: Layout) -> None:
        self._template = layout.template
        self._turns = 1 if layout.has_turns else 0

    def scope(
        self, placed: Placed, items: Iterable[Item], arguments: Mapping[str, str], turn: Said | None, line: int
    ) -> Chosen:
        known = {module.module.name: (module, said) for module, said in reachable(placed.places)}
        content = tuple(self._items(items, placed, known, in_turn=False))
        chosen = Chosen(placed, content, self._arguments(placed, arguments, line), turn, line)
        check_unions(chosen)
        check_turns(chosen)
        return chosen

    def _items(
        self, items: Iterable[Item], placed: Placed, known: Mapping[str, tuple[Placed, Said | None]], in_turn: bool
    ) -> Iterator[Resolved]:
        for item in items:
            match item:
                case Import():
                    yield self._import(item, placed, known, in_turn)
                case Turn():
                    yield New(self._opening(item), True, item.line)
                    yield from self._items(item.children, placed, known, in_turn=True)  # type: ignore[arg-type]
                    yield New(self._template.closing(item.speaker), False, item.line)
                case str():
                    yield New(self._template.text(item), False, getattr(item, "line", 0))

    def _opening(self, turn: Turn) -> Tokens:
        self._turns += 1
        return (self._template.later if self._turns > 1 else self._template.first)(turn.speaker)

    def _import(
        self, item: Import, placed: Placed, known: Mapping[str, tuple[Placed, Said | None]], in_turn: bool
    ) -> Chosen:
        if item.name not in known:
            where = f"module {placed.path!r}" if placed.path else f"schema {placed.module.name!r}"
            raise UnknownName(f"{where} has no module {item.name!r}; it has {listed(known)}", item.line)
        module, turn = known[item.name]
        if in_turn and turn is not None:
            raise Malformed(f"module {item.name!r} is in a turn of the schema: import it outside of turns", item.line)
        return self.scope(module, item.children, item.arguments, turn, item.line)

    def _arguments(self, placed: Placed, given: Mapping[str, str], line: int) -> dict[str, Tokens]:
        """Tokens by parameter. Raises UnknownName, MissingArgument, ArgumentTooLong."""
        rooms = {room.parameter.name: room for room in rooms_of(placed.places)}
        unknown = next((name for name in given if name not in rooms), None)
        if unknown is not None:
            raise UnknownName(f"{placed.module.name!r} has no parameter {unknown!r}; it has {listed(rooms)}", line)
        missing = next((name for name, room in rooms.items() if room.default is None and name not in given), None)
        if missing is not None:
            raise MissingArgument(f"{placed.module.name!r} needs an argument for its parameter {missing!r}", line)
        made = {name: fitting(self._template.text(value), rooms[name].parameter, line) for name, value in given.items()}
        return {name: tokens for name, tokens in made.items() if tokens != rooms[name].default}


def listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def check_unions(chosen: Chosen) -> None:
    """Raises RepeatedImport and UnionConflict."""
    taken: dict[str, int] = {}
    for each in chosen.imports:
        if each.placed.path in taken:
            raise RepeatedImport(f"module {each.placed.path!r} is imported twice", each.line)
        taken[each.placed.path] = each.line
    for choice in choices(chosen.placed.places):
        both = [member.path for member in choice.members if member.path in taken]
        if len(both) > 1:
            raise UnionConflict(f"{' and '.join(map(repr, both))} are of one union: import one of them", taken[both[1]])


def check_turns(chosen: Chosen) -> None:
    """Raises Malformed for a turn of the prompt within one of the schema."""
    for before, after in pairwise(chosen.imports):
        opening = next((new for new in chosen.news(before) if new.opens), None)
        if opening is not None and before.turn is not None and before.turn is after.turn:
            raise Malformed("this turn stands between two modules of one turn of the schema", opening.line)


def choices(places: Iterable[Place]) -> Iterator[Choice]:
    for place in places:
        if isinstance(place, Choice):
            yield place
        elif isinstance(place, Said):
            yield from choices(place.places)


def rooms_of(places: Iterable[Place]) -> Iterator[Room]:
    """The parameters of a module itself."""
    for place in places:
        if isinstance(place, Room):
            yield place
        elif isinstance(place, Said):
            yield from rooms_of(place.places)


def reachable(places: Iterable[Place]) -> Iterator[tuple[Placed, Said | None]]:
    """The modules that can be imported here, each with the turn that it is in."""
    for place in places:
        if isinstance(place, Said):
            for module in within(place.places):
                yield module, place
        elif isinstance(place, Placed | Choice):
            for module in within([place]):
                yield module, None
