"""Components as text, for guests made in tests and for sdk/c: `python -m tests.kernel.wasm.component_text` prints the
imports of kernel.wit as sdk/c/kernel.wat keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import wasmtime

from cadenza.kernel.wasm import wit

WIT = Path(__file__).parents[3] / "syscalls" / "wit" / "kernel.wit"
Functions = Mapping[str, wit.Function]


class _Types:
    """Types as text. What has a name in WIT must be exported under it, once, before it is used."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._named: dict[tuple[str, wit.Type], str] = {}

    def text(self, type_: wit.Type) -> str:
        match type_:
            case wit.Scalar(name):
                return name
            case wit.ListOf(element):
                return f"(list {self.text(element)})"
            case wit.TupleOf(elements):
                return f"(tuple {' '.join(map(self.text, elements))})"
            case wit.Option(payload):
                return f"(option {self.text(payload)})"
            case wit.Result(ok, err):
                return _form("result", [self.text(ok) if ok else "", f"(error {self.text(err)})" if err else ""])
            case _:
                return self._name(type_)

    def _name(self, type_: wit.Record | wit.Variant | wit.Enum | wit.Flags) -> str:
        key = (type_.name, type_)
        if key not in self._named:
            body = self._body(type_)
            index = f"$t{len(self._named)}"
            self._named[key] = index
            self.lines.append(f"(type {index}' {body}) (export \"{type_.name}\" (type {index} (eq {index}')))")
        return self._named[key]

    def _body(self, type_: wit.Record | wit.Variant | wit.Enum | wit.Flags) -> str:
        match type_:
            case wit.Record(_, fields):
                return _form("record", [_form("field", [quoted(name), self.text(field)]) for name, field in fields])
            case wit.Variant(_, cases):
                return _form("variant", [_form("case", [quoted(name), self.text(payload) if payload else ""])
                                         for name, payload in cases])
            case wit.Enum(_, names):
                return _form("enum", map(quoted, names))
            case wit.Flags(_, names):
                return _form("flags", map(quoted, names))


def quoted(name: str) -> str:
    return f'"{name}"'


def _form(keyword: str, parts: Iterable[str]) -> str:
    return f"({keyword} {' '.join(parts)})"


def import_text(interface: str, functions: Functions) -> str:
    """One imported interface, as `$<its plain name>`."""
    types = _Types()
    lines = []
    for name, function in functions.items():
        parameters = " ".join(f'(param "{param}" {types.text(type_)})' for param, type_ in function.parameters)
        result = f" (result {types.text(function.result)})" if function.result else ""
        lines.append(f'(export "{name}" (func {parameters}{result}))')
    body = "\n    ".join(types.lines + lines)
    return f'  (import "{interface}" (instance ${wit.plain_name(interface)}\n    {body}\n  ))'


_MEMORY = """
  (core module $memory
    (memory (export "memory") 2)
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param $old i32) (param $size i32) (param $align i32) (param $new i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
      (global.set $next (i32.add (local.get $at) (local.get $new)))
      (block $fits (loop $grow
        (br_if $fits (i32.le_u (global.get $next) (i32.mul (memory.size) (i32.const 65536))))
        (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
        (br $grow)))
      (local.get $at))
    (func (export "reset") (global.set $next (i32.const 65536))))
  (core instance $memory (instantiate $memory))"""

_OPTIONS = '(memory (core memory $memory "memory")) (realloc (core func $memory "realloc"))'


def program_text(imports: Mapping[str, Functions], main: str, check: bool = False) -> str:
    """A component around the core module text `main`, which imports "m" "memory" (at least 2 pages; from 65536 on it is
    the allocator's), maybe "m" "reset", and functions by plain interface name; and exports `run` (and `check`), which
    answer where their result lies: 0 at that byte is ok, else 1 and, 4 bytes on, pointer and size of a text."""
    parts = [import_text(interface, functions) for interface, functions in imports.items()] + [_MEMORY]
    arguments = ['(with "m" (instance $memory))']
    for interface, functions in imports.items():
        plain = wit.plain_name(interface)
        parts += [f'  (core func $"{plain} {name}" (canon lower (func ${plain} "{name}") {_OPTIONS}))'
                  for name in functions]
        exports = " ".join(f'(export "{name}" (func $"{plain} {name}"))' for name in functions)
        arguments.append(f'(with "{plain}" (instance {exports}))')
    parts += [f"  (core module $main (import \"m\" \"memory\" (memory 2)) {main})",
              f"  (core instance $main (instantiate $main {' '.join(arguments)}))"]
    parts += [f'  (func (export "{name}") (result (result (error string))) '
              f'(canon lift (core func $main "{name}") (memory (core memory $memory "memory"))))'
              for name in (("run", "check") if check else ("run",))]
    return "(component\n" + "\n".join(parts) + ")"


def program(imports: Mapping[str, Functions], main: str, check: bool = False) -> bytes:
    return bytes(wasmtime.wat2wasm(program_text(imports, main, check)))


def kernel_imports() -> str:
    abi = wit.Abi.parse(WIT.read_text())
    head = ";; The imports of kernel.wit as a component declares them. Made by tests/kernel/wasm/component_text.py."
    imports = [import_text(name, functions) for name, functions in abi.functions.items() if functions]
    return "\n".join([head, *imports, ""])


if __name__ == "__main__":
    print(kernel_imports(), end="")
