"""Builds a C program into a component: `python sdk/c/build.py agent.c -o agent.wasm`.

Needs the packages `ziglang` (compiles C) and `wasmtime` (encodes the component around it). What the program imports is
declared in kernel.wat beside this file. A component is laid out so:

    $shim    a core module with a table: its functions call through the table, so that they exist before $main does
    $main    the C program, its imports given by $shim; exports memory, cabi_realloc and run
    lowered  the kernel's functions as core functions, which need $main's memory
    $fixup   puts the lowered functions into $shim's table
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import wasmtime

HERE = Path(__file__).parent
STACK_BYTES = 256 << 10
_PREFIX = "cadenza:kernel/"
_CORE_MODULE = b"\1"                         # the id of a component's section that holds a core module
_PLACEHOLDER = "(core module $main)"

# module of the import ("cadenza:kernel/kv@0.1.0"), name ("create"), core type ("(param i32)")
Import = tuple[str, str, str]


def compile_c(sources: list[Path], optimize: str = "2") -> bytes:
    """A core module, in which functions keep their names: a trap tells them. Raises subprocess.CalledProcessError; the
    compiler has said why on stderr."""
    with tempfile.TemporaryDirectory() as room:
        core = Path(room, "core.wasm")
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", "--target=wasm32-freestanding", f"-O{optimize}", "-nostdlib",
             "-g0", "-Wl,--no-entry", f"-Wl,-z,stack-size={STACK_BYTES}", "-I", str(HERE),
             "-o", str(core), *map(str, sources)], check=True)
        return core.read_bytes()


def componentize(core: bytes) -> bytes:
    """The component around a core module that follows the canonical ABI, as cadenza.h does."""
    imports = core_imports(core)
    text = "\n".join([
        "(component", _declared(imports), _shim(imports), _PLACEHOLDER,
        "(core instance $shim (instantiate $shim))", _instantiate_main(imports), *_lowered(imports), _fixup(imports),
        '(func (export "run") (result (result (error string)))',
        '  (canon lift (core func $main "run") (memory (core memory $main "memory")))))'])
    return _replace_core_module(bytes(wasmtime.wat2wasm(text)), bytes(wasmtime.wat2wasm("(module $main)")), core)


def core_imports(core: bytes) -> list[Import]:
    """Raises SystemExit for an import that is not the kernel's."""
    imports = []
    for import_ in wasmtime.Module(wasmtime.Engine(), core).imports:
        if not import_.module.startswith(_PREFIX) or not isinstance(import_.type, wasmtime.FuncType):
            raise SystemExit(f"the program needs {import_.module}.{import_.name}, which is not a system call")
        types = [f"({keyword} {' '.join(map(str, values))})" for keyword, values in
                 (("param", import_.type.params), ("result", import_.type.results)) if values]
        imports.append((import_.module, import_.name or "", " ".join(types)))
    return imports


def _declared(imports: list[Import]) -> str:
    """kernel.wat without the functions that are not imported: a line each."""
    used = {(_plain(module), name) for module, name, _ in imports}
    lines, interface = [], ""
    for line in (HERE / "kernel.wat").read_text().splitlines():
        if match := re.match(r'\s*\(import "[^"]*" \(instance \$(\S+)', line):
            interface = match[1]
        match = re.match(r'\s*\(export "([^"]*)" \(func', line)
        if match is None or (interface, match[1]) in used:
            lines.append(line)
    return "\n".join(lines)


def _shim(imports: list[Import]) -> str:
    functions = [
        f'(func (export "{n}") {type_} {" ".join(f"local.get {i}" for i in range(_parameters(type_)))} '
        f"i32.const {n} call_indirect {type_})" for n, (_, _, type_) in enumerate(imports)]
    return f'(core module $shim (table (export "table") {len(imports)} funcref)\n' + "\n".join(functions) + ")"


def _parameters(type_: str) -> int:
    return len(type_.partition("(param ")[2].partition(")")[0].split())


def _instantiate_main(imports: list[Import]) -> str:
    modules: dict[str, list[str]] = {}
    for n, (module, name, _) in enumerate(imports):
        modules.setdefault(module, []).append(f'(export "{name}" (func $shim "{n}"))')
    given = [f'(with "{module}" (instance {" ".join(exports)}))' for module, exports in modules.items()]
    return "(core instance $main (instantiate $main\n" + "\n".join(given) + "))"


def _lowered(imports: list[Import]) -> list[str]:
    options = '(memory (core memory $main "memory")) (realloc (core func $main "cabi_realloc"))'
    return [f'(core func $lowered{n} (canon lower (func ${_plain(module)} "{name}") {options}))'
            for n, (module, name, _) in enumerate(imports)]


def _plain(module: str) -> str:
    return module.removeprefix(_PREFIX).partition("@")[0]


def _fixup(imports: list[Import]) -> str:
    declared = [f'(import "" "{n}" (func {type_}))' for n, (_, _, type_) in enumerate(imports)]
    given = [f'(export "{n}" (func $lowered{n}))' for n in range(len(imports))]
    return "\n".join([
        "(core module $fixup", *declared, f'(import "" "table" (table {len(imports)} funcref))',
        f"(elem (i32.const 0) func {' '.join(map(str, range(len(imports))))}))",
        "(core instance (instantiate $fixup (with \"\" (instance", *given,
        '(export "table" (table $shim "table"))))))'])


def _replace_core_module(component: bytes, old: bytes, new: bytes) -> bytes:
    """The component with the section that holds `old` replaced: text cannot hold a module that is binary already."""
    before, found, after = component.partition(_CORE_MODULE + _size(len(old)) + old)
    if not found:
        raise RuntimeError("the placeholder of the core module is not in the component")
    return before + _CORE_MODULE + _size(len(new)) + new + after


def _size(number: int) -> bytes:
    """LEB128."""
    low, rest = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _size(rest) if rest else bytes([low])


def build(sources: list[Path], optimize: str = "2", manifest: str = "") -> bytes:
    """`manifest`: TOML of what the program asks for: hosts, tools."""
    component = componentize(compile_c(sources, optimize))
    content = _sized(b"cadenza:manifest") + manifest.encode()
    return component + b"\0" + _sized(content) if manifest else component


def _sized(data: bytes) -> bytes:
    return _size(len(data)) + data


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds a C program into a component for Cadenza.")
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("-O", dest="optimize", default="2", choices=["0", "1", "2", "3", "s"])
    parser.add_argument("--manifest", type=Path, help="TOML of the hosts and tools that the program asks for")
    arguments = parser.parse_args()
    manifest = arguments.manifest.read_text() if arguments.manifest else ""
    component = build(arguments.sources, arguments.optimize, manifest)
    arguments.output.write_bytes(component)
    print(f"{arguments.output}: {len(component)} bytes")


if __name__ == "__main__":
    main()
