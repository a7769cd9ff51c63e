"""Values lifted from wasmtime's layout into Python.

The vals of an argument row, or of a record, are unpacked by one `Struct`; each type then takes its items out of the
row. Compiled once for each type and kept.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.memory_unsafe import CODE, MEMORY, NAME, NUMPY, VAL, pair_at, python_name, text_at
from cadenza.kernel.wasm.seams import Case

Lift: TypeAlias = Callable[[int], Any]                  # address of a val -> the value
Row: TypeAlias = Callable[[int], Sequence[Any]]         # address of vals one after the other -> their values
Take: TypeAlias = Callable[[Any], Any]                  # an unpacked row -> one value out of it

SMALL: Final = 4                                        # up to so many numbers, a tuple is cheaper than a view


class _Shape(NamedTuple):
    """How a type's val is unpacked: `codes` of struct for its 32 bytes, giving `items`; `at(i)` takes the value out of
    a row whose items for it begin at i."""

    codes: str
    items: int
    at: Callable[[int], Take]


@cache
def lift_row(types: tuple[wit.Type, ...], gap: int = 0) -> Row:
    """`gap`: bytes before each val."""
    shapes = [_shape(type_) for type_ in types]
    unpack = struct.Struct("<" + "".join(f"{gap}x{shape.codes}" for shape in shapes)).unpack_from
    if all(isinstance(type_, wit.Scalar) and type_.name in NUMPY for type_ in types):
        return lambda address: unpack(MEMORY, address)
    firsts = [sum(shape.items for shape in shapes[:i]) for i in range(len(shapes))]
    takes = [shape.at(first) for shape, first in zip(shapes, firsts, strict=True)]

    def row(address: int) -> list[Any]:
        items = unpack(MEMORY, address)
        return [take(items) for take in takes]
    return row


@cache
def lift_value(type_: wit.Type) -> Lift:
    codes, _, at = _shape(type_)
    unpack, take = struct.Struct("<" + codes).unpack_from, at(0)
    return lambda address: take(unpack(MEMORY, address))


@cache
def _shape(type_: wit.Type) -> _Shape:
    match type_:
        case wit.Scalar("string") | wit.Enum():
            return _Shape(_PAIR, 2, lambda i: lambda row: text_at(row[i], row[i + 1]))
        case wit.Scalar("char"):
            return _Shape("8xI20x", 1, lambda i: lambda row: chr(row[i]))
        case wit.Scalar(name):
            return _Shape(f"8x{CODE[name]}{24 - struct.calcsize(CODE[name])}x", 1, itemgetter)
        case wit.Option(payload):
            return _Shape("8xQ16x", 1, _optional(lift_value(payload)))
        case wit.Variant(_, cases):
            return _Shape("8xQQQ", 3, _case({name: _maybe(payload) for name, payload in cases}))
        case wit.Result(ok, err):
            return _Shape("8xB7xQ8x", 2, _outcome(_maybe(err), _maybe(ok)))
        case _:
            return _Shape(_PAIR, 2, _sequence(type_))


_PAIR = "8xQQ8x"


def _sequence(type_: wit.Type) -> Callable[[int], Take]:
    match type_:
        case wit.ListOf(wit.Scalar(name)) if name in NUMPY:
            return _numbers(name)
        case wit.ListOf(element):
            return _elements(_shape(element))
        case wit.TupleOf(elements):
            return _fields(lift_row(elements), tuple)
        case wit.Record(name, fields):
            return _fields(lift_row(tuple(t for _, t in fields), NAME), _named(name, fields)._make)
        case wit.Flags():
            return _names
    raise AssertionError(type_)


def _maybe(type_: wit.Type | None) -> Lift | None:
    return None if type_ is None else lift_value(type_)


def _named(name: str, fields: tuple[tuple[str, wit.Type], ...]) -> Any:
    return namedtuple(python_name(name).title().replace("_", ""), [python_name(field) for field, _ in fields])


def _numbers(name: str) -> Callable[[int], Take]:
    dtype = NUMPY[name]
    cells, first = VAL // dtype.itemsize, 8 // dtype.itemsize
    few = [struct.Struct("<" + f"8x{CODE[name]}{24 - dtype.itemsize}x" * n).unpack_from for n in range(SMALL + 1)]
    array, frombuffer = np.array, np.frombuffer

    def lift(count: int, pointer: int) -> Any:
        if count <= SMALL:
            return array(few[count](MEMORY, pointer), dtype)
        # A copy: the vals are freed when the callback returns.
        return frombuffer(MEMORY, dtype, count * cells, pointer)[first::cells].copy()
    return lambda i: lambda row: lift(row[i], row[i + 1])


def _elements(shape: _Shape) -> Callable[[int], Take]:
    unpack, take = struct.Struct("<" + shape.codes).iter_unpack, shape.at(0)

    def at(i: int) -> Take:
        return lambda row: [take(items) for items in unpack(MEMORY[row[i + 1]:row[i + 1] + VAL * row[i]])] \
            if row[i] else []
    return at


def _fields(fields: Row, make: Callable[[Sequence[Any]], Any]) -> Callable[[int], Take]:
    return lambda i: lambda row: make(fields(row[i + 1]))


def _names(i: int) -> Take:
    return lambda row: frozenset(text_at(*pair_at(MEMORY, row[i + 1] + NAME * n)) for n in range(row[i]))


def _optional(lift: Lift) -> Callable[[int], Take]:
    return lambda i: lambda row: lift(row[i]) if row[i] else None


def _case(cases: dict[str, Lift | None]) -> Callable[[int], Take]:
    def take(name: str, pointer: int) -> Case:
        lift = cases[name]
        return Case(name, lift(pointer) if lift else None)
    return lambda i: lambda row: take(text_at(row[i], row[i + 1]), row[i + 2])


def _outcome(err: Lift | None, ok: Lift | None) -> Callable[[int], Take]:
    lifts = (("err", err), ("ok", ok))

    def take(is_ok: int, pointer: int) -> Case:
        name, lift = lifts[is_ok]
        return Case(name, lift(pointer) if lift and pointer else None)
    return lambda i: lambda row: take(row[i], row[i + 1])
