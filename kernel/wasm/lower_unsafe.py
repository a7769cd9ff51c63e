"""Values lowered from Python into wasmtime's layout.

What has a fixed shape (records, tuples, boxes) is cloned whole from a template by one native call and then filled in
place. What is common stands in the template already, so that nothing is left to build: the name of an enum, a list of
one number. Which of its few templates a value is cloned from, its *key* says.
Invariant: a val that can be reached is always well-formed, so that a half-built answer can be discarded.
Compiled once for each type and kept, templates too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from ctypes import addressof, c_char_p, c_size_t, c_uint8, c_void_p
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.memory_unsafe import (
    CODE,
    ENTRY,
    KIND,
    MEMORY,
    NAME,
    NUMPY,
    VAL,
    native,
    pointer_at,
    python_name,
)
from cadenza.kernel.wasm.seams import Case

Fill: TypeAlias = Callable[[int, Any], None]            # address of a val, the value
Blank: TypeAlias = Callable[[int, Any], None]           # address of a val, the key
Key: TypeAlias = Callable[[Any], Any]                   # of a value; hashable, and one of a few, whatever the value

SMALL: Final = 8                                        # so many numbers are packed one by one: cheaper than numpy

_bytes_new = native("wasm_byte_vec_new", None, c_void_p, c_size_t, c_char_p)
_list_new = native("wasmtime_component_vallist_new_uninit", None, c_void_p, c_size_t)
_tuple_new = native("wasmtime_component_valtuple_new_uninit", None, c_void_p, c_size_t)
_record_new = native("wasmtime_component_valrecord_new_uninit", None, c_void_p, c_size_t)
_flags_new = native("wasmtime_component_valflags_new_uninit", None, c_void_p, c_size_t)
_clone = native("wasmtime_component_val_clone", None, c_void_p, c_void_p)
_box = native("wasmtime_component_val_new", c_void_p, c_void_p)
_boxed = struct.Struct("<BxxxxxxxQ").pack_into          # kind, pointer
_unit = struct.Struct("<BxxxxxxxBxxxxxxxQ").pack_into   # kind, is_ok, pointer


class _Lowering(NamedTuple):
    """`blank` writes what all values of one key have in common (used once, for templates); `fill` completes a val that
    is blank. A type without a fixed shape is blank as zero bytes."""

    blank: Blank
    fill: Fill
    fixed: bool = True
    key: Key | None = None


@cache
def lower_value(type_: wit.Type) -> Fill:
    """Writes a whole val. Raises what struct, numpy or a missing attribute raise; then `discard` what was built."""
    blank, fill, fixed, key = _lowering(type_)
    if not fixed:
        return fill
    templates, key = _Templates(blank), key or _only

    def lower(address: int, value: Any) -> None:
        _clone(templates[key(value)], address)
        fill(address, value)
    return lower


class _Templates(dict[Any, int]):
    """Addresses of vals that are never freed, by their keys; made when first asked for."""

    def __init__(self, blank: Blank) -> None:
        super().__init__()
        self._blank = blank
        self._rooms: list[Any] = []

    def __missing__(self, key: Any) -> int:
        room = (c_uint8 * VAL)()
        self._blank(addressof(room), key)
        self._rooms.append(room)
        self[key] = addressof(room)
        return self[key]


def _only(value: Any) -> None:
    """The key of what has one template."""


def _nothing(address: int, value: Any) -> None:
    """Completes what its template is all of."""


def _zero(address: int, key: Any) -> None:
    MEMORY[address:address + VAL] = bytes(VAL)


@cache
def _lowering(type_: wit.Type) -> _Lowering:
    match type_:
        case wit.TupleOf(elements):
            return _tuple(elements)
        case wit.Record():
            return _record(type_)
        case wit.Enum(_, names):
            return _enum(names)
        case wit.ListOf(wit.Scalar(name)) if name in NUMPY:
            return _numbers(name)
        case _:
            return _Lowering(_zero, _fill(type_), False)


def _fill(type_: wit.Type) -> Fill:
    match type_:
        case wit.Scalar("string"):
            return _fill_string
        case wit.Scalar(name):
            return _fill_scalar(name)
        case wit.Flags(_, names):
            return _fill_flags(names)
        case wit.ListOf(element):
            return _fill_list(element)
        case wit.Option(payload):
            some = _fill_box(payload, lambda address, box: _boxed(MEMORY, address, KIND["option"], box), 8)
            return lambda address, value: _boxed(MEMORY, address, KIND["option"], 0) if value is None \
                else some(address, value)
        case wit.Result(ok, err):
            return _fill_case({"ok": _fill_result(ok, True), "err": _fill_result(err, False)})
        case wit.Variant(_, cases):
            return _fill_case({name: _fill_variant(name, payload) for name, payload in cases})
    raise AssertionError(type_)


def _fill_string(address: int, value: str) -> None:
    data = value.encode("utf-8", "replace")
    _bytes_new(address + 8, len(data), data)
    MEMORY[address] = _STRING


_STRING: Final = KIND["string"]
_LIST: Final = KIND["list"]


def _fill_scalar(name: str) -> Fill:
    kind, pack = KIND[name], struct.Struct(f"<B7x{CODE[name]}").pack_into
    if name == "char":
        return lambda address, value: pack(MEMORY, address, kind, ord(value))
    return lambda address, value: pack(MEMORY, address, kind, value)


def _write_name(address: int, name: str) -> None:
    _bytes_new(address, len(name), name.encode())


def _enum(names: tuple[str, ...]) -> _Lowering:
    kept = {name: name for name in names}

    def blank(address: int, name: str) -> None:
        _write_name(address + 8, name)
        MEMORY[address] = KIND["enum"]
    return _Lowering(blank, _nothing, key=kept.__getitem__)


def _fill_flags(names: tuple[str, ...]) -> Fill:
    def fill(address: int, value: Any) -> None:
        present = [name for name in names if name in value]
        if len(present) != len(value):
            raise ValueError(f"flags {sorted(value)} are not among {names}")
        _flags_new(address + 8, len(present))
        for n, name in enumerate(present):
            _write_name(pointer_at(MEMORY, address + 16)[0] + NAME * n, name)
        MEMORY[address] = KIND["flags"]
    return fill


def _numbers(name: str) -> _Lowering:
    kind, dtype = KIND[name], NUMPY[name]
    cell = np.dtype(f"u{dtype.itemsize}")
    cells, first = VAL // cell.itemsize, 8 // cell.itemsize
    layout = struct.Struct(f"<B7x{CODE[name]}{24 - dtype.itemsize}x")
    pack, pack_into = layout.pack, layout.pack_into

    def blank(address: int, one: bool) -> None:
        _zero(address, one)
        if one:                              # the token of a step
            _list_new(address + 8, 1)
            pack_into(MEMORY, pointer_at(MEMORY, address + 16)[0], kind, 0)
            MEMORY[address] = _LIST

    def fill(address: int, value: Any) -> None:
        count = len(value)
        if count == 1:
            pack_into(MEMORY, pointer_at(MEMORY, address + 16)[0], kind, value[0])
            return
        if count <= SMALL:
            packed = b"".join([pack(kind, number) for number in value])
            _list_new(address + 8, count)
            data = pointer_at(MEMORY, address + 16)[0]
            MEMORY[data:data + len(packed)] = packed
        else:
            numbers = np.frombuffer(value, dtype) if isinstance(value, bytes) else np.asarray(value, dtype)
            _list_new(address + 8, count)
            table = np.frombuffer(MEMORY, cell, count * cells, pointer_at(MEMORY, address + 16)[0])
            table[0::cells] = kind
            table[first::cells] = numbers.view(cell)
        MEMORY[address] = _LIST
    return _Lowering(blank, fill, key=lambda value: len(value) == 1)


def _fill_list(element: wit.Type) -> Fill:
    lower = lower_value(element)

    def fill(address: int, value: Sequence[Any]) -> None:
        count = len(value)
        _list_new(address + 8, count)
        data = pointer_at(MEMORY, address + 16)[0] if count else 0
        MEMORY[data:data + VAL * count] = bytes(VAL * count)
        MEMORY[address] = _LIST
        for n, item in enumerate(value):
            lower(data + VAL * n, item)
    return fill


def _tuple(elements: tuple[wit.Type, ...]) -> _Lowering:
    places = [(_lowering(element), VAL * n) for n, element in enumerate(elements)]

    def begin(address: int) -> None:
        _tuple_new(address + 8, len(places))
    return _compound("tuple", places, begin, tuple)


def _record(record: wit.Record) -> _Lowering:
    places = [(_lowering(type_), ENTRY * n + NAME) for n, (_, type_) in enumerate(record.fields)]
    get = attrgetter(*[python_name(name) for name, _ in record.fields])
    single = len(places) == 1

    def begin(address: int) -> None:
        _record_new(address + 8, len(places))
        for n, (name, _) in enumerate(record.fields):
            _write_name(pointer_at(MEMORY, address + 16)[0] + ENTRY * n, name)
    return _compound("record", places, begin, (lambda value: (get(value),)) if single else get)


def _compound(kind: str, parts: Sequence[tuple[_Lowering, int]], begin: Callable[[int], None],
              get: Callable[[Any], Sequence[Any]]) -> _Lowering:
    """`parts`: with their places in what `begin` allocates; `get` takes the parts of a value. Its key: those of its
    parts that have one."""
    places = [(part.fill, place) for part, place in parts]
    keyed = [(n, part.key) for n, (part, _) in enumerate(parts) if part.key is not None]

    def blank(address: int, keys: Any) -> None:
        begin(address)
        rest = iter(keys or ())
        for part, place in parts:
            part.blank(pointer_at(MEMORY, address + 16)[0] + place, next(rest) if part.key is not None else None)
        MEMORY[address] = KIND[kind]

    def fill(address: int, value: Any) -> None:
        data = pointer_at(MEMORY, address + 16)[0]
        for (write, place), item in zip(places, get(value), strict=True):
            write(data + place, item)

    def key(value: Any) -> Any:
        items = get(value)
        return tuple([of(items[n]) for n, of in keyed])
    return _Lowering(blank, fill, key=key if keyed else None)


def _fill_box(payload: wit.Type | None, write: Callable[[int, int], None], pointer: int) -> Fill:
    """A val that points to another: `write(address, box)` makes it; `pointer` is where in it the pointer is."""
    if payload is None:
        return lambda address, value: write(address, 0)
    lowering = _lowering(payload)

    def blank(address: int, key: Any) -> None:
        lowering.blank(address, key)
        write(address, _box(address))
    templates, fill, key = _Templates(blank), lowering.fill, lowering.key or _only

    def lower(address: int, value: Any) -> None:
        _clone(templates[key(value)], address)
        fill(pointer_at(MEMORY, address + pointer)[0], value)
    return lower


@cache
def _fill_result(payload: wit.Type | None, is_ok: bool) -> Fill:
    return _fill_box(payload, lambda address, box: _unit(MEMORY, address, KIND["result"], is_ok, box), 16)


def _fill_variant(name: str, payload: wit.Type | None) -> Fill:
    def write(address: int, box: int) -> None:
        _write_name(address + 8, name)
        struct.pack_into("<Q", MEMORY, address + 24, box)
        MEMORY[address] = KIND["variant"]
    return _fill_box(payload, write, 24)


def _fill_case(cases: dict[str, Fill]) -> Fill:
    def fill(address: int, value: Case) -> None:
        cases[value.name](address, value.value)
    return fill


class Failure(NamedTuple):
    """The ABI's `error`."""

    errno: str
    message: str


def lower_answer(function: wit.Function) -> tuple[Fill | None, Fill | None]:
    """How to write what a handler returned, and a `Failure`: None where the function answers no such thing."""
    result = function.result
    if result is None:
        return None, None
    if function.fallible and isinstance(result, wit.Result):
        return _fill_result(result.ok, True), _fill_result(result.err, False)
    return lower_value(result), None
