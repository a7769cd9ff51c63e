"""Batches and results in memory that two processes share: arrays as they are behind a header, nothing pickled.

    memory   ring │ host tier                       [host_pages, page_bytes]
    ring     slot 0 │ slot 1 │ …                    step n uses slot n mod SLOTS
    slot     batch ─────────── │ result ───────────
    record   step, seconds, length of error │ (rows, columns) of each array │ error │ array │ array │ …

The arrays come in the order of `arrays()`, each at a multiple of 8 bytes; their types are those of the dataclasses. One
that is what it is by default has −1 rows, and does not come at all: so are most of them in most steps.
A slot is written by the kernel, then answered by the worker, then free; who may touch it is settled by the doorbell
(worker.py). Memory that was never written costs nothing, so slots are as large as the largest step.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cadenza.kernel.device.batch import Batch, DeviceFacts, StepResult, UInt8
from cadenza.kernel.limits import (
    LANES,
    MOST_RUN_AHEAD_STEPS,
    PASS_PROBE_VALUES,
    PASS_PROBES,
    PASS_READS,
    PASS_SAMPLES,
    PASS_TOLD_TOKENS,
    STEP_ROWS,
    STEP_TOKENS,
    VISIBLE_RANGES,
)
from cadenza.kvfs.errors import LimitExceeded

SLOTS = MOST_RUN_AHEAD_STEPS + 1
ERROR_BYTES = 4096

_HEAD = struct.Struct("<qdq")
_ALIGNMENT = 8
_SMALL_BYTES = 16 << 10  # up to here a copy more is cheaper than a view

# Where the shape of an array stands, its name, its type, how many dimensions it has, and what it is by default.
Pattern = list[tuple[int, str, np.dtype[np.generic], int, NDArray[np.generic]]]


def _pattern(arrays: dict[str, NDArray[np.generic]]) -> Pattern:
    return [(2 * n, name, array.dtype, array.ndim, array) for n, (name, array) in enumerate(arrays.items())]


_BATCH = _pattern(Batch(0).arrays())
_RESULT = _pattern(StepResult(0).arrays())


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes of a slot's two parts: for STEP_ROWS plain rows and one pass that asks for all that a pass may."""

    batch_bytes: int
    result_bytes: int

    @classmethod
    def of(cls, facts: DeviceFacts) -> Capacity:
        row_pages = -(-facts.context_tokens // facts.page_tokens) + 1
        asked = PASS_SAMPLES + PASS_PROBES + PASS_READS
        batch = (
            64 * (STEP_TOKENS + 2 * STEP_ROWS + asked)
            + 16 * PASS_SAMPLES
            + 8 * PASS_TOLD_TOKENS
            + 4 * LANES
            + 4 * (STEP_ROWS * row_pages + PASS_READS)
            + 12 * (STEP_ROWS + VISIBLE_RANGES)
            + (STEP_ROWS + PASS_SAMPLES) * -(-facts.vocabulary_size // 8)
            + 4 * PASS_PROBE_VALUES
            + 16 * (facts.pages + facts.host_pages)
        )
        result = 64 * (STEP_ROWS + asked) + 8 * PASS_PROBE_VALUES + 4 * STEP_TOKENS
        return cls(_aligned(batch, mmap.PAGESIZE), _aligned(result + ERROR_BYTES, mmap.PAGESIZE))

    @property
    def ring_bytes(self) -> int:
        return SLOTS * (self.batch_bytes + self.result_bytes)


def shared_bytes(facts: DeviceFacts) -> int:
    """Of the memory that a kernel and its worker share."""
    return Capacity.of(facts).ring_bytes + facts.host_pages * facts.page_bytes


def host_tier(file: int, facts: DeviceFacts) -> UInt8:
    """The host tier, [host_pages, page_bytes], behind the ring. Mapped as long as the array lives."""
    size, shape = facts.host_pages * facts.page_bytes, (facts.host_pages, facts.page_bytes)
    if not size:
        return np.zeros(shape, np.uint8)
    memory = mmap.mmap(file, size, offset=Capacity.of(facts).ring_bytes)
    return np.frombuffer(memory, np.uint8).reshape(shape)


class Ring:
    """Both ends map the same file; `close` gives the mapping back, not the file."""

    def __init__(self, file: int, facts: DeviceFacts) -> None:
        """`file` is a descriptor of at least `Capacity.of(facts).ring_bytes`."""
        capacity = Capacity.of(facts)
        self._memory = mmap.mmap(file, capacity.ring_bytes)
        whole = memoryview(self._memory)
        step = capacity.batch_bytes + capacity.result_bytes
        starts = range(0, capacity.ring_bytes, step)
        self._batches = [whole[start : start + capacity.batch_bytes] for start in starts]
        self._results = [whole[start + capacity.batch_bytes : start + step] for start in starts]
        whole.release()

    def write_batch(self, slot: int, batch: Batch) -> None:
        """A batch larger than the slot is refused when it is read: it fails as a step does, in its turn."""
        try:
            _pack(self._batches[slot], _BATCH, batch)
        except LimitExceeded as error:
            _pack(self._batches[slot], _BATCH, Batch(batch.step), error=error.message)

    def write_masks(self, slot: int, masks: Sequence[tuple[int, UInt8]]) -> None:
        """Into the batch that is in `slot`."""
        arrays, _, _, error = _unpack(self._batches[slot], _BATCH)
        if not error:
            for index, mask in masks:
                arrays["masks"][index] = mask

    def step(self, slot: int) -> int:
        """The step of the batch in `slot`."""
        step, _, _ = _HEAD.unpack_from(self._batches[slot], 0)
        return int(step)

    def read_batch(self, slot: int) -> Batch:
        """The arrays are views: valid until the slot is answered. Raises LimitExceeded in place of a refused batch."""
        arrays, step, _, error = _unpack(self._batches[slot], _BATCH)
        if error:
            raise LimitExceeded(error)
        return Batch(step, **arrays)  # type: ignore[arg-type]

    def write_result(self, slot: int, result: StepResult) -> None:
        """Raises LimitExceeded when it is larger than the slot."""
        _pack(self._results[slot], _RESULT, result, result.seconds, result.error)

    def read_result(self, slot: int) -> StepResult:
        """The arrays are copies: the slot may be used again."""
        arrays, step, seconds, error = _unpack(self._results[slot], _RESULT)
        copies = {name: array.copy() for name, array in arrays.items()}
        return StepResult(step, seconds=seconds, error=error, **copies)  # type: ignore[arg-type]

    def close(self) -> None:
        """Idempotent."""
        for part in (*self._batches, *self._results):
            part.release()
        self._memory.close()


def _pack(
    memory: memoryview, pattern: Pattern, record: Batch | StepResult, seconds: float = 0.0, error: str = ""
) -> None:
    """Raises LimitExceeded when the record is larger than the memory."""
    text = error.encode(errors="replace")[:ERROR_BYTES]
    shapes = [-1] * (2 * len(pattern))
    start = _HEAD.size + 8 * len(pattern)
    memory[start : start + len(text)] = text
    offset = _aligned(start + len(text))
    for place, name, kind, dimensions, default in pattern:
        array = getattr(record, name)
        if array is not default:
            assert (array.dtype, array.ndim) == (kind, dimensions), f"{name} is {array.ndim}-D of {array.dtype}"
            shapes[place : place + 2] = array.shape if dimensions == 2 else (len(array), 1)
            end = offset + array.nbytes
            if end > len(memory):
                raise LimitExceeded(f"{name} {array.shape} ends at byte {end} of a slot of {len(memory)}: ask for less")
            memory[offset:end] = array.tobytes() if array.nbytes < _SMALL_BYTES else _bytes(array)
            offset = -(-end // _ALIGNMENT) * _ALIGNMENT
    _HEAD.pack_into(memory, 0, record.step, seconds, len(text))
    struct.pack_into(f"<{len(shapes)}i", memory, _HEAD.size, *shapes)


def _unpack(memory: memoryview, pattern: Pattern) -> tuple[dict[str, NDArray[np.generic]], int, float, str]:
    """Views of the arrays that came, then the step, its seconds and its error."""
    step, seconds, length = _HEAD.unpack_from(memory, 0)
    shapes = struct.unpack_from(f"<{2 * len(pattern)}i", memory, _HEAD.size)
    start = _HEAD.size + 8 * len(pattern)
    error = str(memory[start : start + length], "utf-8", "replace") if length else ""
    offset = _aligned(start + length)
    arrays: dict[str, NDArray[np.generic]] = {}
    for place, name, kind, dimensions, _ in pattern:
        rows = shapes[place]
        if rows >= 0:
            count = rows * shapes[place + 1]
            array: NDArray[np.generic] = np.frombuffer(memory, kind, count, offset)
            arrays[name] = array.reshape(rows, shapes[place + 1]) if dimensions == 2 else array
            offset += -(-count * kind.itemsize // _ALIGNMENT) * _ALIGNMENT
    return arrays, step, seconds, error


def _bytes(array: NDArray[np.generic]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B")


def _aligned(size: int, alignment: int = _ALIGNMENT) -> int:
    return -(-size // alignment) * alignment
