from __future__ import annotations

import pytest

from cadenza.kernel.wasm import wit
from cadenza.kvfs.errors import Invalid

from .component_text import WIT


def test_the_abi_is_understood_whole() -> None:
    abi = wit.Abi.parse(WIT.read_text())
    assert abi.functions["cadenza:kernel/types@0.1.0"] == {}
    take = abi.functions["cadenza:kernel/inference@0.1.0"]["take-tokens"]
    assert take.parameters == (("run", wit.Scalar("u32")),)
    assert take.fallible
    assert isinstance(take.result, wit.Result)
    assert isinstance(take.result.ok, wit.Record)
    assert [name for name, _ in take.result.ok.fields][:2] == ["tokens", "finish"]
    assert not abi.functions["cadenza:kernel/process@0.1.0"]["pid"].fallible


def test_every_form_of_type() -> None:
    abi = wit.Abi.parse("""
        package a:b; /* no version */
        interface types { type id = u16; enum colour { red, blue } }
        interface all {
          use types.{id, colour};
          flags mode { fast, %list, }
          variant shape { dot, line(list<id>), }
          record thing { at: tuple<f32, f64>, what: option<shape>, how: mode }
          f: func(a: thing, b: result<_, colour>) -> result;
          g: func();
        }
        world w { import all; export run: func(); }
    """)
    function = abi.functions["a:b/all"]["f"]
    line = wit.Variant("shape", (("dot", None), ("line", wit.ListOf(wit.Scalar("u16")))))
    thing = wit.Record("thing", (
        ("at", wit.TupleOf((wit.Scalar("f32"), wit.Scalar("f64")))), ("what", wit.Option(line)),
        ("how", wit.Flags("mode", ("fast", "list")))))
    assert function == wit.Function(
        (("a", thing), ("b", wit.Result(None, wit.Enum("colour", ("red", "blue"))))), wit.Result(None, None))
    assert abi.functions["a:b/all"]["g"] == wit.Function((), None)


@pytest.mark.parametrize(("text", "line", "word"), [
    ("package a:b;\ninterface x {\n f: func(a: nothing);\n}", 3, "nothing"),
    ("package a:b;\ninterface x {\n use y.{z};\n}", 3, "y.z"),
    ("package a:b;\ninterface x {\n f: func(a: list);\n}", 3, "list"),
    ("package a:b;\nresource x {", 2, "resource"),
    ("package a:b;\ninterface x {", 2, "end"),
    ("package a:b;\n\ninterface x { ? }", 3, "?"),
])
def test_what_is_not_wit_is_refused_with_its_line(text: str, line: int, word: str) -> None:
    with pytest.raises(Invalid) as refused:
        wit.Abi.parse(text)
    assert f"line {line}" in refused.value.message
    assert word in refused.value.message
