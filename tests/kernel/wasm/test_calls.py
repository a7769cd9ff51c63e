"""Calls that are recorded without Python: which, and what arrives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from wasmtime import component as components

from cadenza.kernel.native.build import library
from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.calls_unsafe import MOST_ARGUMENTS, NativeCalls, native_calls, recordable
from cadenza.kernel.wasm.fiber_unsafe import Fiber, Host, Step
from cadenza.kernel.wasm.seams import blocking

from .component_text import program

TEST = "cadenza:kernel/test@0.1.0"


def function(*types: str, result: wit.Type | None = None) -> wit.Function:
    return wit.Function(tuple((f"p{n}", wit.Scalar(name)) for n, name in enumerate(types)), result)


@pytest.fixture
def native(cache: Path) -> NativeCalls:
    made = native_calls(cache.parent)
    return made if made is not None else pytest.skip("there is no C compiler")


def recorded(native: NativeCalls, called: wit.Function, parameters: str, constants: str) -> list[Any]:
    """The arguments as they arrive, by record and then by Python."""
    @blocking
    def handler(*_: Any) -> None:
        raise AssertionError("nobody asks it here")
    main = (f'(import "test" "call" (func $call (param {parameters}))) (func (export "run") (result i32) '
            f"(call $call {constants}) (i32.const 16))")
    arrived = []
    for chosen in (native, None):
        host = Host(wit.Abi({TEST: {"call": called}}), {"test": {"call": handler}}, chosen)
        component = components.Component(host.engine, program({TEST: {"call": called}}, main))
        fiber = Fiber(host, component, component.get_export_index("run"), 1 << 24, 10**10)
        try:
            assert [fiber.poll(), fiber.poll()] == [Step.STARTED, Step.CALLED], fiber.error
            assert fiber.call is not None
            assert (fiber.call.recorded is not None) == (chosen is not None)
            arrived.append(list(fiber.arguments))
            fiber.answer(None)
            assert fiber.poll() is Step.DONE
        finally:
            fiber.close()
    return arrived


def test_numbers_arrive_as_they_do_through_python(native: NativeCalls) -> None:
    arrived = recorded(native, function("u8", "s64", "bool", "f32"), "i32 i64 i32 f32",
                       "(i32.const 255) (i64.const -9000000000) (i32.const 1) (f32.const -0.5)")
    assert arrived[0] == arrived[1] == [255, -9_000_000_000, True, -0.5]
    assert arrived[0][2] is True
    arrived = recorded(native, function("s8", "u32", "u64", "f64"), "i32 i32 i64 f64",
                       "(i32.const -128) (i32.const -1) (i64.const -1) (f64.const 1e300)")
    assert arrived[0] == arrived[1] == [-128, 2**32 - 1, 2**64 - 1, 1e300]


def test_what_is_no_number_or_too_much_is_recorded_by_python() -> None:
    assert recordable(function(*["u32"] * MOST_ARGUMENTS)) is not None
    assert recordable(function(*["u32"] * (MOST_ARGUMENTS + 1))) is None
    assert recordable(function("string")) is None
    assert recordable(function("char")) is None
    assert recordable(wit.Function((("p", wit.ListOf(wit.Scalar("u32"))),), None)) is None


def test_a_worker_thread_finds_the_record_as_well(native: NativeCalls) -> None:
    @blocking
    def handler(*_: Any) -> None:
        raise AssertionError("nobody asks it here")
    called = function("u32", result=wit.Scalar("s32"))
    main = ('(import "test" "call" (func $call (param i32) (result i32))) (func (export "run") (result i32) '
            "(drop (call $call (i32.const 3))) (drop (call $call (i32.const 4))) (i32.const 16))")
    host = Host(wit.Abi({TEST: {"call": called}}), {"test": {"call": handler}}, native)
    component = components.Component(host.engine, program({TEST: {"call": called}}, main))
    fiber = Fiber(host, component, component.get_export_index("run"), 1 << 24, 10**10)
    try:
        assert [fiber.poll(), fiber.poll_released()] == [Step.STARTED, Step.CALLED], fiber.error
        assert list(fiber.arguments) == [3]
        fiber.answer(-1)
        assert fiber.poll_released() is Step.CALLED
        assert list(fiber.arguments) == [4]
    finally:
        fiber.close()                    # in the middle of a recorded call
    with pytest.raises(RuntimeError, match="polled"):
        fiber.poll()


def test_without_a_compiler_python_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                           caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert native_calls(tmp_path) is None
    assert "recorded in Python" in caplog.text
    assert "no-such-compiler" in caplog.text


def test_two_sources_are_kept_apart(cache: Path, native: NativeCalls, tmp_path: Path) -> None:
    (tmp_path / "other.c").write_text("int other(void) { return 7; }\n")
    assert library(cache.parent, source=tmp_path / "other.c").name.startswith("other-")
