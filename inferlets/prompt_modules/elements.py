"""Schemas and prompts as Python objects. What XML says of them, they say; equal XML makes equal objects.

A schema is a tree of modules: texts that prompts can import, each with its place. A prompt names the modules that it
imports, gives their parameters arguments, and adds new text. Source: Gim et al., "Prompt Cache", MLSys 2024, section 3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from .errors import DuplicateName, InvalidName, Malformed, UnknownName

Speaker = Literal["system", "user", "assistant"]
SPEAKERS: tuple[Speaker, ...] = get_args(Speaker)
RESERVED = frozenset({"schema", "prompt", "module", "union", "parameter", "param", "scaffold", *SPEAKERS})
"""Names of elements: no module can be called so, an import would look like one."""

NAME = re.compile(r"(?!xml)[A-Za-z_][A-Za-z0-9_.-]*", re.IGNORECASE)


class Text(str):
    """A text that knows its line. Equal to the plain string; wherever one is taken, the other is."""

    line: int = 0

    @classmethod
    def at(cls, text: str, line: int) -> Text:
        made = cls(text)
        made.line = line
        return made


@dataclass(frozen=True)
class Parameter:
    """Room for an argument of at most `length` tokens. Without an argument the `default` stands there; None: it must
    be given."""

    name: str
    length: int
    default: str | None = None
    line: int = field(default=0, compare=False)


@dataclass(frozen=True)
class Module:
    """A piece of text that prompts import by name. `cache` false: it has its place, but is computed each time.

    `children`: texts, parameters, modules nested in it (imported within its import), unions. A text is one child.
    """

    name: str
    children: str | Sequence[Child] = ()
    cache: bool = True
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", joined(self.children))


@dataclass(frozen=True)
class Union:
    """Modules of which a prompt imports one at most. They begin at the same position; the longest says the length."""

    members: Sequence[Module]
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))


@dataclass(frozen=True)
class Turn:
    """What `speaker` says, written by the model's chat template. In a prompt `children` may be texts and imports."""

    speaker: Speaker
    children: str | Sequence[Child | Item] = ()
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", joined(self.children))


@dataclass(frozen=True)
class Scaffold:
    """Modules that are also encoded together, seeing each other; used in place of the single encodings by a prompt
    that imports them all. `members`: their paths, "trip/mexico" for a module nested in another."""

    name: str
    members: Sequence[str]
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))


@dataclass(frozen=True)
class Schema:
    """A root module, always part of the prompt, with the scaffolds over it. Raises what is wrong with it."""

    name: str
    children: str | Sequence[Child] = ()
    scaffolds: Sequence[Scaffold] = ()
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", joined(self.children))
        object.__setattr__(self, "scaffolds", tuple(self.scaffolds))
        check_scope(self.children)
        check_scaffolds(self)


@dataclass(frozen=True)
class Import:
    """A module in a prompt, with arguments for its parameters. `children`: imports of modules nested in it, and text
    between them."""

    name: str
    children: str | Sequence[Item] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", joined(self.children))


@dataclass(frozen=True)
class Prompt:
    """What is asked: `children` are imports, turns and new text. `arguments` are for parameters of the schema's own."""

    schema: str
    children: str | Sequence[Item] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "children", joined(self.children))
        check_items(self.children)


Child: TypeAlias = "str | Parameter | Module | Union | Turn"
Item: TypeAlias = "str | Import | Turn"


def joined(children: str | Iterable[object]) -> tuple[object, ...]:
    """Neighbouring texts are one, empty ones none."""
    made: list[object] = []
    for child in (children,) if isinstance(children, str) else children:
        if isinstance(child, str) and made and isinstance(made[-1], str):
            made[-1] = Text.at(made[-1] + child, getattr(made[-1], "line", 0))
        elif child != "":
            made.append(child)
    return tuple(made)


# --- what a schema must be ---


def scope(children: Iterable[object]) -> Iterator[Module | Parameter]:
    """The modules and parameters that go by their bare names here: those in turns and unions too."""
    for child in children:
        match child:
            case Turn():
                yield from scope(child.children)
            case Union():
                yield from child.members
            case Module() | Parameter():
                yield child


def check_scope(children: Iterable[object]) -> None:
    """Raises for names taken twice, names that cannot be, elements that are no child of a schema."""
    children = tuple(children)
    check_kinds(children, in_turn=False)
    taken: set[tuple[type, str]] = set()
    for named in scope(children):
        check_name(named.name, named.line)
        if (type(named), named.name) in taken:
            kind = type(named).__name__.lower()
            raise DuplicateName(f"there are two {kind}s called {named.name!r} in one scope: rename one", named.line)
        taken.add((type(named), named.name))
        if isinstance(named, Module):
            check_module(named)
        elif named.length < 1:
            raise Malformed(f"parameter {named.name!r} reserves {named.length} tokens, not one at least", named.line)


def check_module(module: Module) -> None:
    turn = next((child for child in module.children if isinstance(child, Turn)), None)
    if turn is not None:
        raise Malformed(f"a turn ({turn.speaker}) in module {module.name!r}: turns hold modules, not the other way",
                        turn.line)
    check_scope(module.children)


def check_kinds(children: Iterable[object], in_turn: bool) -> None:
    for child in children:
        line = getattr(child, "line", 0)
        if isinstance(child, Turn) and not in_turn:
            check_speaker(child)
            check_kinds(child.children, in_turn=True)
        elif isinstance(child, Union):
            if not child.members or not all(isinstance(member, Module) for member in child.members):
                raise Malformed("a union holds modules, one at least, and nothing else", line)
        elif not isinstance(child, str | Parameter | Module):
            raise Malformed(f"a schema cannot hold {type(child).__name__.lower()} here", line)


def check_items(items: Iterable[object], turns: bool = True) -> None:
    """What a prompt may hold; `turns`: whether a turn may stand here."""
    for item in items:
        if isinstance(item, Turn) and turns:
            check_speaker(item)
            check_items(item.children, turns=False)
        elif isinstance(item, Import):
            check_items(item.children, turns=False)
        elif not isinstance(item, str):
            raise Malformed(f"a prompt cannot hold {type(item).__name__.lower()} here", getattr(item, "line", 0))


def check_speaker(turn: Turn) -> None:
    if turn.speaker not in SPEAKERS:
        raise Malformed(f"nobody is called {turn.speaker!r}: a turn is of {', '.join(SPEAKERS)}", turn.line)


def check_name(name: str, line: int) -> None:
    if not NAME.fullmatch(name):
        raise InvalidName(f"{name!r} is no name: a letter or _, then letters, digits, _ . -, and no xml in front", line)
    if name in RESERVED:
        raise InvalidName(f"{name!r} is the name of an element: call it otherwise", line)


def check_scaffolds(schema: Schema) -> None:
    names: set[str] = set()
    for scaffold in schema.scaffolds:
        if scaffold.name in names:
            raise DuplicateName(f"there are two scaffolds called {scaffold.name!r}: rename one", scaffold.line)
        names.add(scaffold.name)
        if len(set(scaffold.members)) < 2:
            raise Malformed(f"scaffold {scaffold.name!r} names {scaffold.members}: two modules at least", scaffold.line)
        for path in scaffold.members:
            check_member(schema, scaffold, path)


def check_member(schema: Schema, scaffold: Scaffold, path: str) -> None:
    children: Iterable[object] = schema.children
    for name in path.split("/"):
        found = next((each for each in scope(children) if isinstance(each, Module) and each.name == name), None)
        if found is None:
            raise UnknownName(f"scaffold {scaffold.name!r} names {path!r}: there is no such module", scaffold.line)
        if not found.cache:
            raise Malformed(f"scaffold {scaffold.name!r} names {path!r}, which is not to be cached", scaffold.line)
        children = found.children
