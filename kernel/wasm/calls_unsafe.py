"""Calls that are written down by calls.c in place of Python: compiled once, kept beside the other compiled things."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable
from ctypes import (
    PyDLL,
    Structure,
    addressof,
    c_bool,
    c_int64,
    c_uint64,
    c_void_p,
    cast,
    create_string_buffer,
)
from pathlib import Path
from typing import Any, Final, TypeAlias

from wasmtime import _ffi as ffi

from cadenza.kernel.native.build import library
from cadenza.kernel.wasm import wit
from cadenza.kernel.wasm.memory_unsafe import CODE, MEMORY
from cadenza.kvfs.errors import Unsupported

SOURCE: Final = Path(__file__).with_name("calls.c")
MOST_ARGUMENTS: Final = 4

# Polls the future of a record, by its address -> -1: it is done; 0: no call is recorded; else the import's number.
Resume: TypeAlias = Callable[[int], int]

log = logging.getLogger(__name__)

# A `call` of calls.c: ready (u8) · results · number of the import · poll · future · arguments, 8 bytes each.
RECORD_BYTES: Final = 40 + 8 * MOST_ARGUMENTS
_set_future = struct.Struct("<QQ").pack_into
_future_at = struct.Struct("<32xQ").unpack_from


class _Import(Structure):
    _fields_ = (("data", c_void_p), ("number", c_uint64))


class NativeCalls:
    """The functions of calls.c. Lives as long as what it was given to."""

    def __init__(self, path: Path) -> None:
        """Raises OSError for what is no such library."""
        self._library = PyDLL(str(path))
        self.record = _address(self._library.record)
        self._imports: list[_Import] = []

    def environment(self, number: int) -> int:
        """What `record` is called with first, for the import of that number, not 0."""
        self._imports.append(_Import(_address(ffi.dll.wasmtime_context_get_data), number))
        return addressof(self._imports[-1])

    def resume(self, prototype: Any) -> Resume:
        """`prototype`: PYFUNCTYPE, to hold the GIL, or CFUNCTYPE."""
        made: Resume = prototype(c_int64, c_void_p)(("resume", self._library))
        return made


def native_calls(cache: Path) -> NativeCalls | None:
    """None, and why in the log, where it cannot be compiled. Blocks while it is, the first time."""
    try:
        return NativeCalls(library(cache, source=SOURCE))
    except (Unsupported, OSError) as fault:
        log.warning("system calls that block are recorded in Python, which takes longer: %s", fault)
        return None


def resume_in_python(prototype: Any) -> Resume:
    """What stands in for `NativeCalls.resume`: nothing is recorded without Python."""
    poll = prototype(c_bool, c_void_p)(("wasmtime_call_future_poll", ffi.dll))
    return lambda record: -1 if poll(_future_at(MEMORY, record)[0]) else 0


def new_record() -> Any:
    return create_string_buffer(RECORD_BYTES)


def set_future(record: int, future: int) -> None:
    """What is polled from now on."""
    _set_future(MEMORY, record + 24, _POLL, future)


def recordable(function: wit.Function) -> Callable[[Any, int], tuple[Any, ...]] | None:
    """(MEMORY, record) -> (results, *arguments); None if a record does not hold them."""
    types = [type_ for _, type_ in function.parameters]
    if len(types) > MOST_ARGUMENTS or not all(isinstance(each, wit.Scalar) and each.name in CODE and each.name != "char"
                                              for each in types):
        return None
    codes = [CODE[each.name] for each in types if isinstance(each, wit.Scalar)]
    return struct.Struct("<8xQ24x" + "".join(f"{code}{8 - struct.calcsize(code)}x" for code in codes)).unpack_from


def _address(function: Any) -> int | None:
    return cast(function, c_void_p).value


_POLL: Final = _address(ffi.dll.wasmtime_call_future_poll)
