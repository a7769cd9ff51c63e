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
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
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

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.tokens, self.positions))

    def packed(self) -> Piece:
        """The same tokens without gaps, from position 0 on."""
        parent = self.parent.packed() if self.parent else None
        return Piece(self.tokens, tuple(range(len(self.tokens))), parent)

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
    before: Piece             # the text that is always before it, of the schema and of the modules that it is in

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
        self.root = self._module(root, "", 0, (), template.begin(self.has_turns))
        self.scaffolds = [self._scaffold(scaffold) for scaffold in schema.scaffolds]
        self.pieces = cache(self._pieces)

    @cached_property
    def modules(self) -> dict[str, Placed]:
        """Every module by its path."""
        return {placed.path: placed for placed in nested(self.root)}

    def __len__(self) -> int:
        """How many positions the schema takes."""
        return self.root.end

    def _pieces(self, packed: bool, rooted: bool) -> dict[Piece, Piece]:
        """How each piece is computed to be read: in its place or packed, right at the beginning; alone or rooted, after
        what is always before it."""
        pairs = [(placed.piece, placed.before) for placed in self.modules.values()]
        firsts = [min((self.modules[path] for path in paths), key=lambda placed: placed.start)
                  for paths, _ in self.scaffolds]
        pairs += [(piece, first.before) for (_, piece), first in zip(self.scaffolds, firsts, strict=True)]
        return {piece: after(before if rooted else NOTHING, piece, packed) for piece, before in pairs if piece}

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

    def _module(self, module: Module, path: str, start: int, fixed: Fixed, begin: Tokens = ()) -> Placed:
        draft = Draft(path, fixed)
        places, end = self._places([Begin(begin), *module.children] if begin else module.children, start, draft)
        piece = Piece(tuple(draft.tokens), tuple(draft.positions)) if draft.tokens and module.cache else None
        before = Piece(tuple(token for token, _ in fixed), tuple(position for _, position in fixed))
        return Placed(module, path, start, end, tuple(places), piece, before)

    def _places(self, children: Iterable[Child | Begin], start: int, draft: Draft) -> tuple[list[Place], int]:
        """Lays children out from `start`; what is the module's own goes to `draft`. Answers the end, too."""
        places: list[Place] = []
        for child in children:
            place = self._place(child, start, draft)
            places.append(place)
            start = place.end
        return places, start

    def _place(self, child: Child | Begin, start: int, draft: Draft) -> Place:
        match child:
            case Turn():
                return self._turn(child, start, draft)
            case Union():
                members = tuple(self._nested(member, start, draft) for member in child.members)
                return Choice(start, max(member.end for member in members), members)
            case Module():
                return self._nested(child, start, draft)
            case Parameter():
                default = None if child.default is None else fitting(self.template.text(child.default), child)
                return Room(child, start, draft.take(default or (), start), default)
            case Begin():
                return Words(child.tokens, start, draft.take_fixed(child.tokens, start), glue=True)
        tokens = self.template.text(child)
        return Words(tokens, start, draft.take_fixed(tokens, start), line=getattr(child, "line", 0))

    def _nested(self, module: Module, start: int, draft: Draft) -> Placed:
        return self._module(module, below(draft.path, module), start, tuple(draft.fixed))

    def _turn(self, turn: Turn, start: int, draft: Draft) -> Said:
        speak = self.template.later if self._turns_laid else self.template.first
        self._turns_laid += 1
        tokens = speak(turn.speaker)
        opening = Words(tokens, start, draft.take_fixed(tokens, start), glue=True)
        places, end = self._places(turn.children, opening.end, draft)  # type: ignore[arg-type]
        tokens = self.template.closing(turn.speaker)
        closing = Words(tokens, end, draft.take_fixed(tokens, end), glue=True)
        return Said(start, closing.end, (opening, *places, closing))


Fixed: TypeAlias = "tuple[tuple[int, int], ...]"
"""Tokens with their positions, in order."""


class Draft:
    """A module being laid out. `fixed`: the text that is always there so far, that of the modules it is in included."""

    def __init__(self, path: str, fixed: Fixed) -> None:
        self.path = path
        self.fixed = [*fixed]
        self.tokens: list[int] = []
        self.positions: list[int] = []

    def take(self, tokens: Tokens, start: int) -> int:
        """Tokens of its own. Answers the offset of the first."""
        offset = len(self.tokens)
        self.tokens += tokens
        self.positions += range(start, start + len(tokens))
        return offset

    def take_fixed(self, tokens: Tokens, start: int) -> int:
        """Those that no prompt changes."""
        self.fixed += zip(tokens, range(start, start + len(tokens)), strict=True)
        return self.take(tokens, start)


@dataclass(frozen=True)
class Begin:
    """Stands before the children of the root."""

    tokens: Tokens


NOTHING = Piece((), ())


def after(before: Piece, piece: Piece, packed: bool) -> Piece:
    """The one computed after the other; packed, both right at the beginning, without gaps."""
    whole = Piece(before.tokens + piece.tokens, before.positions + piece.positions, before if before.tokens else None)
    return whole.packed() if packed else whole


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
