from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cadenza.kernel.device.batch import Batch, DeviceFacts, StepResult
from cadenza.kernel.device.shared_memory import ERROR_BYTES, SLOTS, Capacity, Ring
from cadenza.kernel.limits import LANES, PASS_PROBES, PASS_SAMPLES, PASS_TOLD_TOKENS, STEP_ROWS, STEP_TOKENS
from cadenza.kvfs.errors import LimitExceeded

FACTS = DeviceFacts("none", 64, 16, 0, 64, 256)


@pytest.fixture(scope="module")
def rings() -> Iterator[tuple[Ring, Ring]]:
    """Two mappings of one file, as the two processes have them."""
    file = os.memfd_create("test")
    os.ftruncate(file, Capacity.of(FACTS).ring_bytes)
    pair = Ring(file, FACTS), Ring(file, FACTS)
    os.close(file)
    yield pair
    for ring in pair:
        ring.close()
        ring.close()


def contents(pattern: dict[str, np.ndarray[Any, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Arrays of the same types and dimensions, of any bytes."""
    return st.fixed_dictionaries(
        {
            name: arrays.arrays(array.dtype, arrays.array_shapes(min_dims=array.ndim, max_dims=array.ndim, min_side=0))
            if name != "copies"
            else arrays.arrays(array.dtype, st.tuples(st.integers(0, 9), st.just(2)))
            for name, array in pattern.items()
        }
    )


def assert_same(mine: Batch | StepResult, yours: Batch | StepResult) -> None:
    for (name, one), other in zip(mine.arrays().items(), yours.arrays().values(), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), name
        assert one.tobytes() == other.tobytes(), name


@settings(max_examples=60, deadline=None)
@given(
    batch=st.builds(lambda step, fields: Batch(step, **fields), st.integers(0, 2**62), contents(Batch(0).arrays())),
    slot=st.integers(0, SLOTS - 1),
)
def test_a_batch_arrives_byte_for_byte(rings: tuple[Ring, Ring], batch: Batch, slot: int) -> None:
    kernel, worker = rings
    kernel.write_batch(slot, batch)
    assert_same(batch, worker.read_batch(slot))
    assert worker.read_batch(slot).step == worker.step(slot) == batch.step


@settings(max_examples=60, deadline=None)
@given(
    fields=contents(StepResult(0).arrays()),
    seconds=st.floats(0, 1e9),
    error=st.text(max_size=80),
    slot=st.integers(0, SLOTS - 1),
)
def test_a_result_arrives_byte_for_byte(
    rings: tuple[Ring, Ring], fields: dict[str, Any], seconds: float, error: str, slot: int
) -> None:
    kernel, worker = rings
    error = error.encode(errors="replace").decode()
    result = StepResult(5, seconds=seconds, error=error, **fields)
    worker.write_result(slot, result)
    got = kernel.read_result(slot)
    assert_same(result, got)
    assert (got.step, got.seconds, got.error) == (5, seconds, error)


def test_a_result_is_the_kernels_own_and_a_slot_can_be_used_again(rings: tuple[Ring, Ring]) -> None:
    kernel, worker = rings
    worker.write_result(0, StepResult(1, tokens=np.array([1, 2], np.int32)))
    first = kernel.read_result(0)
    worker.write_result(0, StepResult(2, tokens=np.array([3, 4], np.int32)))
    assert first.tokens.tolist() == [1, 2]


def test_slots_do_not_touch_each_other(rings: tuple[Ring, Ring]) -> None:
    kernel, worker = rings
    for slot in range(SLOTS):
        kernel.write_batch(slot, Batch(slot, pages=np.full(100_000, slot, np.int32)))
        worker.write_result(slot, StepResult(slot, probe_values=np.full(60_000, slot, np.float32)))
    for slot in range(SLOTS):
        assert (worker.read_batch(slot).pages == slot).all()
        assert (kernel.read_result(slot).probe_values == slot).all()


def test_a_slice_that_is_not_contiguous_is_copied_as_it_reads(rings: tuple[Ring, Ring]) -> None:
    kernel, worker = rings
    for size in (10, 20_000):
        wide = np.arange(2 * size, dtype=np.int32)
        kernel.write_batch(0, Batch(1, tokens=wide[::2]))
        assert worker.read_batch(0).tokens.tolist() == wide[::2].tolist()


def test_the_largest_plain_step_fits_and_so_does_the_widest_pass(rings: tuple[Ring, Ring]) -> None:
    kernel, worker = rings
    batch = Batch(1, tokens=np.zeros(STEP_TOKENS, np.int32), pages=np.zeros(STEP_ROWS * 17, np.int32))
    batch.masks = np.zeros((STEP_ROWS, 8), np.uint8)
    samples = STEP_ROWS + PASS_SAMPLES
    batch.penalties, batch.windows = np.ones((samples, 3), np.float32), np.ones(samples, np.int32)
    batch.sample_biases, batch.bias_starts, batch.told_starts = (np.zeros(samples + 1, np.int32) for _ in range(3))
    batch.bias_tokens, batch.bias_values = np.ones(PASS_TOLD_TOKENS, np.int32), np.ones(PASS_TOLD_TOKENS, np.float32)
    batch.score_tokens, batch.score_targets = np.ones(STEP_TOKENS, np.int32), np.ones(STEP_TOKENS, np.int32)
    batch.forgotten = np.zeros(LANES, np.int32)
    kernel.write_batch(0, batch)
    assert_same(batch, worker.read_batch(0))
    logits = StepResult(1, probe_values=np.ones(PASS_PROBES * FACTS.vocabulary_size, np.float32))
    worker.write_result(0, logits)
    assert_same(logits, kernel.read_result(0))


def test_what_is_larger_than_its_slot_is_refused(rings: tuple[Ring, Ring]) -> None:
    kernel, worker = rings
    room = Capacity.of(FACTS)
    kernel.write_batch(1, Batch(7, asked=np.zeros(room.batch_bytes // 4, np.int32)))
    assert worker.step(1) == 7
    with pytest.raises(LimitExceeded, match=r"asked .* ends at byte"):
        worker.read_batch(1)
    with pytest.raises(LimitExceeded, match=r"probe_values .* ends at byte"):
        worker.write_result(1, StepResult(7, probe_values=np.zeros(room.result_bytes // 4, np.float32)))


def test_a_long_error_is_cut(rings: tuple[Ring, Ring]) -> None:
    kernel, worker = rings
    worker.write_result(0, StepResult(1, error="x" * (2 * ERROR_BYTES)))
    assert kernel.read_result(0).error == "x" * ERROR_BYTES


def test_an_array_of_another_type_is_our_bug(rings: tuple[Ring, Ring]) -> None:
    with pytest.raises(AssertionError, match="tokens is 1-D of int64"):
        rings[0].write_batch(0, Batch(1, tokens=np.zeros(1, np.int64)))
