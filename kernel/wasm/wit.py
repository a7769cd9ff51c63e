"""The types of the ABI, read from its WIT text: what a program's imports must look like, and how values cross.

Only what the ABI uses is understood: interfaces with `use`, aliases, records, variants, enums, flags and functions.
Resources, futures and streams are refused. Worlds are skipped: every program exports `run` (see `ENTRY`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from cadenza.kvfs.errors import Invalid

SCALARS: Final = ("bool", "s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64", "f32", "f64", "char")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A boolean, a number, a character, or `string`."""

    name: str


@dataclass(frozen=True, slots=True)
class ListOf:
    element: Type


@dataclass(frozen=True, slots=True)
class TupleOf:
    elements: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Record:
    name: str = field(compare=False)
    fields: tuple[tuple[str, Type], ...]


@dataclass(frozen=True, slots=True)
class Variant:
    name: str = field(compare=False)
    cases: tuple[tuple[str, Type | None], ...]


@dataclass(frozen=True, slots=True)
class Enum:
    name: str = field(compare=False)
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flags:
    name: str = field(compare=False)
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    payload: Type


@dataclass(frozen=True, slots=True)
class Result:
    ok: Type | None
    err: Type | None


Type: TypeAlias = Scalar | ListOf | TupleOf | Record | Variant | Enum | Flags | Option | Result


@dataclass(frozen=True, slots=True)
class Function:
    parameters: tuple[tuple[str, Type], ...]
    result: Type | None

    @property
    def fallible(self) -> bool:
        """Whether the result is `result<_, error>`, with the ABI's `error` record."""
        error = self.result.err if isinstance(self.result, Result) else None
        return isinstance(error, Record) and [name for name, _ in error.fields] == ["errno", "message"]


ENTRY: Final = Function((), Result(None, Scalar("string")))

_TOKEN = re.compile(r"\s+|//[^\n]*|/\*.*?\*/|(->|%?[A-Za-z][\w-]*|\d[\w.]*|[{}()<>,:;=@/_.*])", re.DOTALL)


@dataclass(slots=True)
class Abi:
    """`functions`: interface ("cadenza:kernel/process@0.1.0") -> function name -> its type. Interfaces that hold
    only types are there too, empty."""

    functions: dict[str, dict[str, Function]]

    @classmethod
    def parse(cls, text: str) -> Abi:
        """Raises Invalid, with the line, for what is not WIT or is not understood here."""
        return cls(_Parser(text).package())


class _Parser:
    """Recursive descent over the tokens. `types` maps an interface's plain name to its named types."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(_tokens(text))
        self.position = 0
        self.types: dict[str, dict[str, Type]] = {}

    def package(self) -> dict[str, dict[str, Function]]:
        self.expect("package")
        name = self.until(";")
        path, _, version = name.partition("@")
        interfaces: dict[str, dict[str, Function]] = {}
        while self.position < len(self.tokens):
            keyword, plain = self.next(), self.next()
            self.expect("{")
            if keyword == "world":
                self.skip_block()
            elif keyword == "interface":
                interfaces[f"{path}/{plain}" + (f"@{version}" if version else "")] = self.interface(plain)
            else:
                raise self.error(f"{keyword!r} where an interface or a world should begin")
        return interfaces

    def interface(self, name: str) -> dict[str, Function]:
        functions: dict[str, Function] = {}
        self.named: dict[str, Type] = self.types.setdefault(name, {})
        while not self.accept("}"):
            word = self.next()
            if word == "use":
                self.use()
            elif word in _DEFINITIONS:
                self.define(word)
            else:
                self.expect(":")
                self.expect("func")
                functions[word] = self.function()
        return functions

    def use(self) -> None:
        source = self.next()
        self.expect(".")
        self.expect("{")
        for name in self.listed("}"):
            if name not in self.types.get(source, {}):
                raise self.error(f"`use` of the unknown type {source}.{name}")
            self.named[name] = self.types[source][name]
        self.expect(";")

    def define(self, word: str) -> None:
        name = self.next()
        if word == "type":
            self.expect("=")
            self.named[name] = self.type()
            self.expect(";")
            return
        self.expect("{")
        if word == "record":
            self.named[name] = Record(name, tuple(self.typed("}")))
        elif word == "variant":
            self.named[name] = Variant(name, tuple(self.cases()))
        else:
            self.named[name] = (Enum if word == "enum" else Flags)(name, tuple(self.listed("}")))

    def function(self) -> Function:
        self.expect("(")
        parameters = tuple(self.typed(")"))
        result = self.type() if self.accept("->") else None
        self.expect(";")
        return Function(parameters, result)

    def typed(self, end: str) -> Iterator[tuple[str, Type]]:
        while not self.accept(end):
            name = self.next()
            self.expect(":")
            yield name, self.type()
            self.comma_or(end)

    def cases(self) -> Iterator[tuple[str, Type | None]]:
        while not self.accept("}"):
            name, payload = self.next(), None
            if self.accept("("):
                payload = self.type()
                self.expect(")")
            yield name, payload
            self.comma_or("}")

    def listed(self, end: str) -> Iterator[str]:
        while not self.accept(end):
            yield self.next()
            self.comma_or(end)

    def type(self) -> Type:
        word = self.next()
        if word in SCALARS or word == "string":
            return Scalar(word)
        if word in _GENERIC:
            return self.generic(word)
        if word in self.named:
            return self.named[word]
        raise self.error(f"the unknown type {word!r}")

    def generic(self, word: str) -> Type:
        arguments: list[Type | None] = []
        if self.accept("<"):
            while not self.accept(">"):
                arguments.append(None if self.accept("_") else self.type())
                self.comma_or(">")
        if word == "result":
            ok, err = [*arguments, None, None][:2]
            return Result(ok, err)
        if not arguments or any(argument is None for argument in arguments):
            raise self.error(f"{word} without a type")
        present = tuple(argument for argument in arguments if argument is not None)
        return TupleOf(present) if word == "tuple" else (ListOf if word == "list" else Option)(present[0])

    def skip_block(self) -> None:
        depth = 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self.next(), 0)

    # --- tokens ---
    def next(self) -> str:
        if self.position >= len(self.tokens):
            raise self.error("the end")
        self.position += 1
        return self.tokens[self.position - 1][0].removeprefix("%")

    def accept(self, token: str) -> bool:
        if self.position < len(self.tokens) and self.tokens[self.position][0] == token:
            self.position += 1
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            found = self.tokens[self.position][0] if self.position < len(self.tokens) else "the end"
            raise self.error(f"{found!r} where {token!r} is expected")

    def comma_or(self, end: str) -> None:
        """Between two items there is a comma; before `end` it may be left out."""
        if not self.accept(",") and not (self.position < len(self.tokens) and self.tokens[self.position][0] == end):
            self.expect(",")

    def until(self, end: str) -> str:
        parts: list[str] = []
        while not self.accept(end):
            parts.append(self.next())
        return "".join(parts)

    def error(self, found: str) -> Invalid:
        at = self.tokens[min(self.position, len(self.tokens)) - 1][1] if self.tokens else 0
        return Invalid(f"WIT, line {self.text.count(chr(10), 0, at) + 1}: {found}", "abi")


_DEFINITIONS: Final = ("type", "record", "variant", "enum", "flags")
_GENERIC: Final = ("list", "tuple", "option", "result")


def plain_name(interface: str) -> str:
    """ "cadenza:kernel/process@0.1.0" -> "process"."""
    return interface.partition("/")[2].partition("@")[0]


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    """(token, offset), white space and comments left out."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise Invalid(f"WIT, line {text.count(chr(10), 0, position) + 1}: {text[position]!r} is not WIT", "abi")
        if match[1]:
            yield match[1], position
        position = match.end()
