"""Where every token of a schema stands: the same for every prompt, whatever it imports.

    <schema>A<module x>B<param p 3/>C<module n>D</module></module><union><module y>E</module>…</union>F</schema>

    0 ──▶ begin A │ B p p p C │ D │ E … │ F         a module starts where what is before it ends; a module's own text
                  └──── x ────────┘└─ y ─┘          (B C) is one piece, computed in one pass, seeing nothing else;
                              └ n ┘                 the members of a union start together

What a module's states were computed from is a `Piece`: its own tokens at their positions, defaults of parameters
included, what is nested in it not. The schema itself is a module too, the root. Source: Gim et al., "Prompt Cache",
MLSys 2024, sections 3.3 and 3.4; where the paper fills parameters with <unk>, here the room stays empty.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from .elements import Child, Module, Parameter, Scaffold, Schema, Turn, Union
from .errors import ArgumentTooLong, Malformed, UnionConflict
from .template import Template, Tokens


@dataclass(frozen=True)
class Piece:
    """Tokens at positions, to be computed in one pass over nothing or, after `parent`, over what that holds.

    Two pieces of the same content are the same, from whatever schema they come. Positions grow.
    """

    tokens: Tokens
    positions: Tokens
    parent: Piece | None = field(default=None, compare=False)

    def digest(self, fingerprint: str) -> str:
        """Of the content and of the model that computes it, 64 hexadecimal letters."""
        numbers = array("I", [len(self.tokens), *self.tokens, *self.positions])
        return hashlib.sha256(fingerprint.encode() + b"\0" + numbers.tobytes()).hexdigest()


@dataclass(frozen=True)
class Words:
    """Text in its place. `offset`: of its first token in the piece of its module. `glue`: of the chat template."""

    tokens: Tokens
    start: int
    offset: int
    glue: bool = False
    line: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)


@dataclass(frozen=True)
class Room:
    """A parameter in its place, with its default's tokens; None: there is no default."""

    parameter: Parameter
    start: int
    offset: int
    default: Tokens | None

    @property
    def end(self) -> int:
        return self.start + self.parameter.length


@dataclass(frozen=True)
class Placed:
    """A module in its place; `path` is "" for the root. Its places include those of modules nested in it."""

    module: Module
    path: str
    start: int
    end: int
    places: tuple[Place, ...]
    piece: Piece | None       # None: it is not to be cached, or has no text of its own

    @property
    def text(self) -> str:
        """Its own text, without its parameters and what is nested in it."""
        return "".join(child for child in self.module.children if isinstance(child, str))


@dataclass(frozen=True)
class Choice:
    """A union in its place."""

    start: int
    end: int
    members: tuple[Placed, ...]


@dataclass(frozen=True)
class Said:
    """A turn in its place: its opening, what is said, its closing."""

    start: int
    end: int
    places: tuple[Place, ...]


Place: TypeAlias = "Words | Room | Placed | Choice | Said"


class Layout:
    """A schema laid out for one model."""

    def __init__(self, schema: Schema, template: Template) -> None:
        self.schema = schema
        self.template = template
        self.has_turns = any(isinstance(child, Turn) for child in schema.children)
        self._turns_laid = 0
        root = Module(schema.name, schema.children)
        self.root = self._module(root, "", 0, template.begin(self.has_turns))
        self.scaffolds = [self._scaffold(scaffold) for scaffold in schema.scaffolds]

    @cached_property
    def modules(self) -> dict[str, Placed]:
        """Every module by its path."""
        return {placed.path: placed for placed in nested(self.root)}

    def __len__(self) -> int:
        """How many positions the schema takes."""
        return self.root.end

    def _scaffold(self, scaffold: Scaffold) -> tuple[frozenset[str], Piece]:
        """The paths of its members, and what they are together. Raises Malformed, UnionConflict."""
        pieces = [self.modules[path].piece for path in scaffold.members]
        if None in pieces:
            raise Malformed(f"a module of scaffold {scaffold.name!r} has no text of its own", scaffold.line)
        placed = sorted(pair for piece in pieces if piece for pair in zip(piece.positions, piece.tokens, strict=True))
        positions = tuple(position for position, _ in placed)
        if len(set(positions)) < len(positions):
            raise UnionConflict(f"two modules of scaffold {scaffold.name!r} are of one union", scaffold.line)
        return frozenset(scaffold.members), Piece(tuple(token for _, token in placed), positions)

    def _module(self, module: Module, path: str, start: int, begin: Tokens = ()) -> Placed:
        own: list[int] = []
        at: list[int] = []
        places, end = self._places([Begin(begin), *module.children] if begin else module.children, path, start, own, at)
        piece = Piece(tuple(own), tuple(at)) if own and module.cache else None
        return Placed(module, path, start, end, tuple(places), piece)

    def _places(
        self, children: Iterable[Child | Begin], path: str, start: int, own: list[int], at: list[int]
    ) -> tuple[list[Place], int]:
        """Lays children out from `start`; what is the module's own goes to `own` and `at`. Answers the end, too."""
        places: list[Place] = []
        for child in children:
            place = self._place(child, path, start, own, at)
            places.append(place)
            start = place.end
        return places, start

    def _place(self, child: Child | Begin, path: str, start: int, own: list[int], at: list[int]) -> Place:
        match child:
            case Turn():
                return self._turn(child, path, start, own, at)
            case Union():
                members = tuple(self._module(member, below(path, member), start) for member in child.members)
                return Choice(start, max(member.end for member in members), members)
            case Module():
                return self._module(child, below(path, child), start)
            case Parameter():
                default = None if child.default is None else fitting(self.template.text(child.default), child)
                room = Room(child, start, len(own), default)
                take(default or (), start, own, at)
                return room
            case Begin():
                return self._words(child.tokens, start, own, at, glue=True)
        return self._words(self.template.text(child), start, own, at, line=getattr(child, "line", 0))

    def _turn(self, turn: Turn, path: str, start: int, own: list[int], at: list[int]) -> Said:
        speak = self.template.later if self._turns_laid else self.template.first
        self._turns_laid += 1
        opening = self._words(speak(turn.speaker), start, own, at, glue=True)
        places, end = self._places(turn.children, path, opening.end, own, at)  # type: ignore[arg-type]
        closing = self._words(self.template.closing(turn.speaker), end, own, at, glue=True)
        return Said(start, closing.end, (opening, *places, closing))

    def _words(
        self, tokens: Tokens, start: int, own: list[int], at: list[int], glue: bool = False, line: int = 0
    ) -> Words:
        words = Words(tokens, start, len(own), glue, line)
        take(tokens, start, own, at)
        return words


@dataclass(frozen=True)
class Begin:
    """Stands before the children of the root."""

    tokens: Tokens


def take(tokens: Sequence[int], start: int, own: list[int], at: list[int]) -> None:
    own += tokens
    at += range(start, start + len(tokens))


def below(path: str, module: Module) -> str:
    return f"{path}/{module.name}" if path else module.name


def fitting(tokens: Tokens, parameter: Parameter, line: int = 0) -> Tokens:
    """The tokens of an argument or default. Raises ArgumentTooLong when they are more than is reserved."""
    if len(tokens) > parameter.length:
        raise ArgumentTooLong(f"parameter {parameter.name!r} reserves {parameter.length} tokens; what is to stand "
                              f"there has {len(tokens)}", line or parameter.line)
    return tokens


def nested(placed: Placed) -> Iterator[Placed]:
    """A module and all that are in it, in order."""
    yield placed
    for inner in within(placed.places):
        yield from nested(inner)


def within(places: Iterable[Place]) -> Iterator[Placed]:
    """The modules that go by their bare names here."""
    for place in places:
        match place:
            case Placed():
                yield place
            case Choice():
                yield from place.members
            case Said():
                yield from within(place.places)
