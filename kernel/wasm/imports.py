"""Whether a component is a program of ours: what it imports must be the ABI's, type for type, and it must export `run`.

Runs in the compiling child: the types of a hostile component may be large.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from wasmtime import component as components
from wasmtime.component import _types as reflected

from cadenza.kernel.wasm import wit

Provided = Mapping[str, Collection[str]]     # interface's plain name -> functions that have a handler

NAMES_SHOWN: Final = 8
_SCALARS: Final = {
    "bool": components.Bool, "s8": components.S8, "u8": components.U8, "s16": components.S16, "u16": components.U16,
    "s32": components.S32, "u32": components.U32, "s64": components.S64, "u64": components.U64, "f32": components.F32,
    "f64": components.F64, "char": components.Char, "string": components.String,
}


def refusal(component: Any, engine: Any, abi: wit.Abi, provided: Provided) -> str | None:
    """Why `component` is not a program, in words for whoever built it; None if it is one."""
    imports = component.type.imports(engine)
    foreign = [name for name in imports if name not in abi.functions]
    if foreign:
        return (f"imports {_listed(foreign)}, which Cadenza does not provide: a program may import "
                f"{', '.join(abi.functions)}. Build without other imports (componentize-py: --stub-wasi)")
    for interface, extern in imports.items():
        wrong = list(_wrong(interface, extern.ty, engine, abi.functions[interface], provided))
        if wrong:
            return f"imports from {interface} what is not there: {_listed(wrong)}. Build against this version's WIT"
    return _exports(component.type.exports(engine))


def _listed(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _wrong(interface: str, instance: Any, engine: Any, functions: Mapping[str, wit.Function],
           provided: Provided) -> Iterator[str]:
    if not isinstance(instance, reflected.ComponentInstanceType):
        yield "an interface is expected"
        return
    for name, extern in instance.exports(engine).items():
        type_ = extern.ty
        if isinstance(type_, reflected.ValType):
            continue                                    # a named type; functions are compared by what it stands for
        if name not in functions or not isinstance(type_, reflected.FuncType):
            yield f"{name} (unknown)"
        elif name not in provided.get(wit.plain_name(interface), ()):
            yield f"{name} (not provided by this kernel)"
        elif not same_function(type_, functions[name]):
            yield f"{name} (of another type)"


def _exports(exports: Mapping[str, Any]) -> str | None:
    for name, required in (("run", True), ("check", False)):
        if name not in exports:
            if required:
                return "exports no function `run`; a program exports `run: func() -> result<_, string>`"
            continue
        type_ = exports[name].ty
        if not isinstance(type_, reflected.FuncType) or not same_function(type_, wit.ENTRY):
            return f"exports `{name}` of another type than `func() -> result<_, string>`"
    return None


def same_function(found: Any, expected: wit.Function) -> bool:
    """Parameter names may differ; everything else may not."""
    types = [type_ for _, type_ in found.params]
    return (len(types) == len(expected.parameters)
            and all(same(type_, wanted) for type_, (_, wanted) in zip(types, expected.parameters, strict=True))
            and _both(found.result, expected.result))


def _both(found: Any, expected: wit.Type | None) -> bool:
    return (found is None) == (expected is None) and (expected is None or same(found, expected))


def same(found: Any, expected: wit.Type) -> bool:
    """Walks along `expected`, so that the work is bounded whatever `found` is."""
    match expected:
        case wit.Scalar(name):
            return isinstance(found, _SCALARS[name])
        case wit.ListOf(element):
            return isinstance(found, reflected.ListType) and same(found.element, element)
        case wit.Option(payload):
            return isinstance(found, reflected.OptionType) and same(found.payload, payload)
        case wit.TupleOf(elements):
            return isinstance(found, reflected.TupleType) and _each(enumerate(found.elements), enumerate(elements))
        case wit.Record(_, fields):
            return isinstance(found, reflected.RecordType) and _each(found.fields, fields)
        case wit.Variant(_, cases):
            return isinstance(found, reflected.VariantType) and _each(found.cases, cases)
        case wit.Enum(_, names):
            return isinstance(found, reflected.EnumType) and tuple(found.names) == names
        case wit.Flags(_, names):
            return isinstance(found, reflected.FlagsType) and tuple(found.names) == names
        case wit.Result(ok, err):
            return isinstance(found, reflected.ResultType) and _both(found.ok, ok) and _both(found.err, err)


def _each(found: Any, expected: Any) -> bool:
    found, expected = list(found), list(expected)
    return len(found) == len(expected) and all(
        name == wanted and _both(type_, wanted_type)
        for (name, type_), (wanted, wanted_type) in zip(found, expected, strict=True))
