"""Values of system calls as kernel/wasm/seams.py describes them, by their WIT types."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.seams import Case

NUMPY = {"u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64, "f32": np.float32, "f64": np.float64}
BITS = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}


@cache
def _named(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name.title().replace("-", ""), [field.replace("-", "_") for field in fields])


def arrive(type_: wit.Type, value: Any) -> Any:
    """What a handler is given for `value`: a record is written as a dict, a variant as (name, payload)."""
    match type_:
        case wit.ListOf(wit.Scalar(name)) if name in NUMPY:
            return np.array(value, NUMPY[name])
        case wit.ListOf(element):
            return [arrive(element, v) for v in value]
        case wit.Record(name, fields):
            values = {key: arrive(t, value[key.replace("-", "_")]) for key, t in fields}
            return _named(name, tuple(values))(*values.values())
        case wit.Variant(_, cases):
            payload = dict(cases)[value[0]]
            return Case(value[0], arrive(payload, value[1]) if payload else None)
        case wit.Option(payload):
            return None if value is None else arrive(payload, value)
        case wit.Flags(_, names):
            assert set(value) <= set(names), f"{value} are not flags"
            return frozenset(value)
        case wit.Enum(_, names):
            assert value in names, f"{value!r} is not one of {names}"
    return value


def check_answer(type_: wit.Type | None, value: Any) -> None:
    """Raises AssertionError unless `value` can be answered for `type_`."""
    match type_:
        case None:
            assert value is None, f"{value!r} where nothing is answered"
        case wit.Scalar(name):
            _check_scalar(name, value)
        case wit.Enum(_, names):
            assert value in names, f"{value!r} is not one of {names}"
        case wit.Flags(_, names):
            assert value <= set(names), f"{value!r} are not some of {names}"
        case wit.Variant(_, cases):
            check_answer(dict(cases)[value.name], value.value)
        case wit.Option(payload):
            if value is not None:
                check_answer(payload, value)
        case _:
            for part, one in _parts(type_, value):
                check_answer(part, one)


def _parts(type_: wit.Type, value: Any) -> Iterable[tuple[wit.Type, Any]]:
    """What a compound answer consists of; of a long list, the beginning."""
    match type_:
        case wit.ListOf(element):
            assert isinstance(value, Sequence | np.ndarray), f"{value!r} is no list"
            return [(element, one) for one in value[:64]]
        case wit.TupleOf(elements):
            return zip(elements, value, strict=True)
        case wit.Record(_, fields):
            return [(part, getattr(value, field.replace("-", "_"))) for field, part in fields]
    raise AssertionError(f"{type_} is never answered")


def _check_scalar(name: str, value: Any) -> None:
    if name == "string":
        assert isinstance(value, str), f"{value!r} is no string"
    elif name == "bool":
        assert isinstance(value, bool), f"{value!r} is no bool"
    elif name in BITS:
        assert isinstance(value, int | np.integer), f"{value!r} is no integer"
        assert 0 <= int(value) < 2 ** BITS[name], f"{value!r} is no {name}"
    elif name == "s32":
        assert isinstance(value, int | np.integer), f"{value!r} is no integer"
        assert -(2**31) <= int(value) < 2**31, f"{value!r} is no {name}"
    else:
        assert isinstance(value, float | np.floating), f"{value!r} is no number"
