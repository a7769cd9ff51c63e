"""The compiled kernels, as functions of addresses. Whoever calls one says where memory lies, and answers for it."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from ctypes import CDLL, Structure, addressof, c_char_p, c_float, c_int, c_int64, c_void_p
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.native.build import library
from cadenza.kvfs.errors import Unsupported

Int32 = NDArray[np.int32]

BFLOAT16, FLOAT32 = range(2)             # how keys and values are held
GATES = {"silu": 0, "gelu_tanh": 1}
HUGE_PAGE_BYTES = 2 << 20
RECORDED_BYTES = 1 << 20             # of a hundred layers it takes 150 kB

_SIZES = ("rows", "items", "page_tokens", "slots", "kv_heads", "group", "head_dim", "kind", "window", "half")
_ARRAYS = ("item_rows", "item_firsts", "positions", "new_slots", "row_starts", "segment_starts", "segment_tokens",
           "segment_firsts", "segment_skips", "segment_shifts", "page_starts", "pages", "turns")  # fmt: skip


class Reading(Structure):
    """What `attention` is told of a step (`Reading` in attention.h). Keeps the arrays that it points to, and its place:
    what was recorded reads it there."""

    _fields_ = (
        *((name, c_int64) for name in _SIZES),
        *((name, c_void_p) for name in (*_ARRAYS, "slot_positions", "angles", "named_starts", "named")),
        ("item_tokens", c_int64), ("cap", c_float),
    )  # fmt: skip
    kept: tuple[NDArray[Any], ...]

    def tell(
        self, sizes: Sequence[int], arrays: Sequence[Int32], slot_positions: Int32, angles: NDArray[np.float32],
        named_starts: NDArray[np.int64], named: NDArray[np.uint8], item_tokens: int, cap: float,
    ) -> None:  # fmt: skip
        """Of the next step. `sizes` and `arrays` in the order of the fields; those arrays are copied, the others are
        pointed to."""
        flat = np.concatenate(arrays, dtype=np.int32)
        starts = accumulate((4 * len(array) for array in arrays[:-1]), initial=address(flat))
        super().__init__(*sizes, *starts, address(slot_positions), address(angles), address(named_starts),
                         address(named), item_tokens, cap)  # fmt: skip
        self.kept = (flat, slot_positions, angles, named_starts, named)

    @property
    def place(self) -> int:
        return addressof(self)


def address(array: NDArray[Any]) -> int:
    """Of its first value."""
    found: int = array.__array_interface__["data"][0]
    return found


def room(size_bytes: int) -> mmap.mmap:
    """Memory of zeros, in huge pages where the system gives them: streams of weights miss no translations then."""
    made = mmap.mmap(-1, max(-(-size_bytes // HUGE_PAGE_BYTES), 1) * HUGE_PAGE_BYTES)
    if hasattr(mmap, "MADV_HUGEPAGE") and size_bytes >= HUGE_PAGE_BYTES:
        made.madvise(mmap.MADV_HUGEPAGE)
    return made


class Kernels:
    """The functions of kernels.c, which says what each does with which arguments. 0 is the address of nothing."""

    def __init__(self, path: Path) -> None:
        """Raises Unsupported for a file that is no such library."""
        try:
            self._library = CDLL(str(path))
            self.panel_outputs = int(self._library.panel_outputs())
            self.few_rows = int(self._library.few_rows())
            self.most_queries = int(self._library.most_queries())
            self.most_head_dim = int(self._library.most_head_dim())
            self._library.instructions.restype = c_char_p
            self.instructions = self._library.instructions().decode()
        except (OSError, AttributeError) as fault:
            raise Unsupported(f"the compiled kernels cannot be loaded: {fault}") from None
        size, place, number = c_int64, c_void_p, c_float
        self._library.recorded.restype = size
        self.use_threads = self._function("use_threads", c_int)
        self.pack_bfloat16 = self._function("pack_bfloat16", size, size, place, place)
        self.pack_int8 = self._function("pack_int8", size, size, place, place)
        self.linear_bfloat16 = self._function("linear_bfloat16", size, size, size, *[place] * 5)
        self.linear_int8 = self._function("linear_int8", size, size, size, *[place] * 7)
        self.add_norm = self._function("add_norm", size, size, place, place, place, number, place)
        self.gated = self._function("gated", size, size, c_int, place, place)
        self.rotate_heads = self._function("rotate_heads", *[size] * 6, place, place, number, place, place, number)
        self.attention = self._function("attention", place, size, place, place, place, size, *[place] * 4)

        self._record, self._replay = self._function("record", place, size), self._function("replay", place, size)

    def recorded(self, act: Callable[[], None]) -> Callable[[], None] | None:
        """Does `act`, and answers what does again all that it made kernels do on this thread, with the same addresses;
        None if that is too much to be kept."""
        room = np.empty(RECORDED_BYTES, np.uint8)
        self._record(address(room), len(room))
        try:
            act()
        finally:
            size = int(self._library.recorded())
        kept = room[:size].copy()
        return partial(self._again, kept) if size <= len(room) else None

    def _again(self, kept: NDArray[np.uint8]) -> None:
        self._replay(address(kept), len(kept))

    def _function(self, name: str, *arguments: Any) -> Callable[..., None]:
        found = getattr(self._library, name)
        found.argtypes, found.restype = arguments, None
        made: Callable[..., None] = found
        return made


@cache
def kernels(directory: Path) -> Kernels:
    """Compiled, if they are not in that cache directory, and loaded. Raises Unsupported, saying why not."""
    return Kernels(library(directory))
