"""Native memory as wasmtime lays values out in it. Pointers are integers here, and never checked.

    wasmtime_component_val_t, 32 bytes:   kind (u8) at 0 · payload at 8
        numbers, bool, char               the value
        string, enum                      (size, pointer) of UTF-8
        list, tuple                       (size, pointer) of vals
        record                            (size, pointer) of entries of 48 bytes: name (size, pointer) · val
        flags                             (size, pointer) of names
        variant                           name (size, pointer) · pointer to a val, or 0
        option                            pointer to a val, or 0
        result                            is_ok (u8) · pointer to a val, or 0

A val of zero bytes is the boolean false.
"""

from __future__ import annotations

import struct
from ctypes import PYFUNCTYPE, c_uint8, c_void_p
from typing import Any, Final

import numpy as np
from wasmtime import _ffi as ffi

from cadenza.kernel.wasm import wit

VAL: Final = 32                                         # bytes of a val
ENTRY: Final = 48                                       # bytes of a record's entry
NAME: Final = 16                                        # bytes of a (size, pointer)

# The whole address space as one buffer: struct and numpy read and write native memory through it without a copy.
MEMORY: Final = memoryview((c_uint8 * (1 << 48)).from_address(0)).cast("B")

KIND: Final[dict[str, int]] = {name: getattr(ffi, f"WASMTIME_COMPONENT_{name.upper()}").value for name in (
    *wit.SCALARS, "string", "list", "record", "tuple", "variant", "enum", "option", "result", "flags")}
CODE: Final = dict(zip(wit.SCALARS, "?bBhHiIqQfdI", strict=True))
NUMPY: Final = {name: np.dtype(f"{name[0].replace('s', 'i')}{int(name[1:]) // 8}")
                for name in wit.SCALARS if name not in ("bool", "char")}

pair_at: Final = struct.Struct("<QQ").unpack_from       # (MEMORY, address) -> (size, pointer)
pointer_at: Final = struct.Struct("<Q").unpack_from     # (MEMORY, address) -> (pointer,)


def native(name: str, result: Any, *arguments: Any) -> Any:
    """A function of wasmtime's library, called with the GIL held, pointers as integers."""
    return PYFUNCTYPE(result, *arguments)((name, ffi.dll))


_delete = native("wasmtime_component_val_delete", None, c_void_p)


def text_at(size: int, pointer: int) -> str:
    return str(MEMORY[pointer:pointer + size], "utf-8")


def discard(address: int) -> None:
    """Frees what the val at `address` holds; it is the boolean false afterwards."""
    _delete(address)
    MEMORY[address:address + VAL] = bytes(VAL)


def python_name(name: str) -> str:
    """A WIT name as Python spells it."""
    return name.replace("-", "_")
