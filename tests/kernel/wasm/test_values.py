"""Every WIT type, there and back through a guest that only hands on what it is given."""

from __future__ import annotations

import math
import struct
import zlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wasmtime import component as components

from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.fiber_unsafe import Fiber, Host, Step
from cadenza.kernel.wasm.seams import Case

from .component_text import program

TEST = "cadenza:kernel/test@0.1.0"
# More than 16 core values: then a parameter is passed in memory, as a result is, and one guest fits every type.
PADDING = (0,) * 17
MAIN = """(import "test" "give" (func $give (param i32))) (import "test" "take" (func $take (param i32)))
    (func (export "run") (result i32)
      (call $give (i32.const 1024)) (call $take (i32.const 1024)) (i32.const 16))"""


def through(type_: wit.Type, value: Any) -> Any:
    """What a guest's `take` is called with, when its `give` is answered with `value`."""
    box = wit.Record("box", (("padding", wit.TupleOf((wit.Scalar("u32"),) * 17)), ("value", type_)))
    functions = {"give": wit.Function((), box), "take": wit.Function((("box", box),), None)}
    host = Host(wit.Abi({TEST: functions}), {"test": dict.fromkeys(functions, print)})
    component = components.Component(host.engine, program({TEST: functions}, MAIN))
    fiber = Fiber(host, component, component.get_export_index("run"), 1 << 24, 10**10)
    try:
        assert [fiber.poll(), fiber.poll()] == [Step.STARTED, Step.CALLED], fiber.error
        fiber.answer(SimpleNamespace(padding=PADDING, value=value))
        assert fiber.poll() is Step.CALLED, fiber.error
        assert fiber.call is not None
        assert fiber.call.name == "take"
        arrived = fiber.arguments[0]
        assert arrived.padding == PADDING
        fiber.answer(None)
        assert fiber.poll() is Step.DONE
        assert fiber.value == Case("ok", None)
        return arrived.value
    finally:
        fiber.close()


RANGES = {f"{sign}{bits}": (0, 2**bits - 1) if sign == "u" else (-2**(bits - 1), 2**(bits - 1) - 1)
          for sign in "us" for bits in (8, 16, 32, 64)}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def named(make: Any, parts: Any) -> Any:
    """Two types of one name must not differ."""
    return make(f"t{zlib.crc32(repr((make, parts)).encode())}", parts)


@st.composite
def types(draw: st.DrawFn, depth: int = 3) -> Any:
    plain = st.sampled_from([wit.Scalar(name) for name in (*wit.SCALARS, "string")])
    if depth == 0:
        return draw(plain)
    below = types(depth - 1)
    names = st.lists(st.sampled_from(["a", "b-c", "d", "e-f-g"]), min_size=1, max_size=4, unique=True)
    kind = draw(st.sampled_from(["plain", "list", "tuple", "record", "variant", "enum", "flags", "option", "result"]))
    match kind:
        case "list":
            return wit.ListOf(draw(below))
        case "option":
            payload = draw(below.filter(lambda type_: not isinstance(type_, wit.Option)))
            return wit.Option(payload)
        case "tuple":
            return wit.TupleOf(tuple(draw(st.lists(below, min_size=1, max_size=3))))
        case "record":
            return named(wit.Record, tuple((name, draw(below)) for name in draw(names)))
        case "variant":
            return named(wit.Variant, tuple((name, draw(st.none() | below)) for name in draw(names)))
        case "result":
            return wit.Result(draw(st.none() | below), draw(st.none() | below))
        case "enum":
            return named(wit.Enum, tuple(draw(names)))
        case "flags":
            return named(wit.Flags, tuple(draw(names)))
    return draw(plain)


def values(type_: wit.Type) -> st.SearchStrategy[Any]:
    match type_:
        case wit.Scalar(name):
            return scalars(name)
        case wit.ListOf(element):
            return st.lists(values(element), max_size=20)
        case wit.TupleOf(elements):
            return st.tuples(*map(values, elements))
        case wit.Record(_, fields):
            return st.builds(SimpleNamespace, **{name.replace("-", "_"): values(field) for name, field in fields})
        case wit.Variant(_, cases):
            return st.one_of([st.builds(Case, st.just(name), values(payload) if payload else st.none())
                              for name, payload in cases])
        case wit.Result(ok, err):
            return values(wit.Variant("", (("ok", ok), ("err", err))))
        case wit.Enum(_, names):
            return st.sampled_from(names)
        case wit.Flags(_, names):
            return st.frozensets(st.sampled_from(names))
        case wit.Option(payload):
            return st.none() | values(payload)


def scalars(name: str) -> st.SearchStrategy[Any]:
    if name in RANGES:
        return st.integers(*RANGES[name])
    if name in ("f32", "f64"):
        return st.floats(width=32 if name == "f32" else 64, allow_nan=False)
    return {"bool": st.booleans(), "string": TEXT, "char": st.characters(exclude_categories=["Cs"])}[name]


def same(type_: wit.Type, sent: Any, arrived: Any) -> bool:
    match type_:
        case wit.ListOf(element) | wit.Option(element) if sent is None or arrived is None:
            return sent is arrived and element is not None
        case wit.ListOf(wit.Scalar(name)) if name in RANGES or name[0] == "f":
            return isinstance(arrived, np.ndarray) and arrived.tolist() == sent
        case wit.ListOf(element):
            return len(sent) == len(arrived) and all(same(element, a, b) for a, b in zip(sent, arrived, strict=True))
        case wit.Option(payload):
            return same(payload, sent, arrived)
        case wit.TupleOf(elements):
            return all(same(element, a, b) for element, a, b in zip(elements, sent, arrived, strict=True))
        case wit.Record(_, fields):
            return all(same(field, getattr(sent, name.replace("-", "_")), getattr(arrived, name.replace("-", "_")))
                       for name, field in fields)
        case wit.Variant(_, cases):
            of = dict(cases)[sent.name]
            return bool(sent.name == arrived.name and (of is None or same(of, sent.value, arrived.value)))
        case wit.Result(ok, err):
            return same(wit.Variant("", (("ok", ok), ("err", err))), sent, arrived)
    return bool(sent == arrived and type(sent) is type(arrived))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_type_round_trips(data: st.DataObject) -> None:
    type_ = data.draw(types())
    value = data.draw(values(type_))
    assert same(type_, value, through(type_, value))


@pytest.mark.parametrize("name", [name for name in wit.SCALARS if name not in ("bool", "char")])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 8, 9, 1000])
def test_lists_of_numbers(name: str, count: int) -> None:
    numbers = [number % 100 for number in range(count)]
    for given_ in (numbers, np.array(numbers, np.float64 if name[0] == "f" else np.int64)):
        arrived = through(wit.ListOf(wit.Scalar(name)), given_)
        assert arrived.tolist() == numbers
        assert arrived.flags.writeable
        assert arrived.itemsize * 8 == int(name[1:])


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 2.0**-149])
def test_floats_keep_their_bits(number: float) -> None:
    arrived = through(wit.Scalar("f64"), number)
    assert struct.pack("<d", arrived) == struct.pack("<d", number)
    assert repr(through(wit.Scalar("f32"), number)) == repr(struct.unpack("<f", struct.pack("<f", number))[0])


def test_records_arrive_as_named_tuples_in_snake_case() -> None:
    record = wit.Record("visible-range", (("first-row", wit.Scalar("u32")), ("label", wit.Scalar("string"))))
    arrived = through(record, SimpleNamespace(first_row=7, label="naïve"))
    assert arrived == (7, "naïve")
    assert arrived._fields == ("first_row", "label")
    assert type(arrived).__name__ == "VisibleRange"


@pytest.mark.parametrize(("type_", "value"), [
    (wit.Scalar("u32"), -1), (wit.Scalar("u8"), 256), (wit.Scalar("string"), 5), (wit.Scalar("u32"), "5"),
    (wit.Enum("e", ("a",)), "b"), (wit.ListOf(wit.Scalar("u32")), [1, 2**32]),
    (wit.ListOf(wit.Scalar("u8")), [300] * 9),
    (wit.TupleOf((wit.Scalar("u8"), wit.Scalar("u8"))), (1,)), (wit.Flags("f", ("a",)), {"z"}),
    (wit.Record("r", (("x", wit.Scalar("u8")), ("y", wit.Scalar("u8")))), SimpleNamespace(x=1)),
])
def test_an_answer_of_another_shape_is_raised_and_discarded(type_: wit.Type, value: Any) -> None:
    with pytest.raises((TypeError, ValueError, KeyError, AttributeError, OverflowError, struct.error)):
        through(type_, value)
