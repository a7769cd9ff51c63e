"""FlashInferDevice on kernels that stand in for flashinfer's: what is asked of TorchDevice, padding, sharing, swaps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.device.batch import Batch
from cadenza.kernel.device.flashinfer.device import FlashInferDevice
from cadenza.kernel.device.kinds import FlashInferConfig, from_json, gpu_ready, to_json
from cadenza.kernel.model.weights import RandomWeights
from cadenza.kvfs.errors import Internal, Unsupported

from .dense import CONFIG, PARTICULAR, SEED, dense_logits, small_device
from .driver import Driver, File, Row, Sampler
from .reference_kernels import ReferenceKernels, flash_device, reference_hardware
from .test_torch_pages import (
    TOLERANCE,
    Scene,
    assert_seen,
    logits,
    scenes,
    test_a_row_reads_what_another_row_of_the_step_writes,
    test_a_step_of_copies_only,
    test_an_empty_segment_changes_nothing,
    test_an_input_names_what_was_sampled_on_its_lane,
    test_copies_are_made_in_order,
    test_decodes_of_very_different_lengths,
    test_forks_differ_after_the_fork_and_not_before,
    test_positions_are_copied_with_the_page,
    test_ranges_in_a_contiguous_row,
    test_several_segments_equal_one,
    tokens_of,
)

__all__ = [  # the same tests, with the driver below
    "test_a_row_reads_what_another_row_of_the_step_writes", "test_a_step_of_copies_only",
    "test_an_empty_segment_changes_nothing", "test_an_input_names_what_was_sampled_on_its_lane",
    "test_copies_are_made_in_order", "test_decodes_of_very_different_lengths",
    "test_forks_differ_after_the_fork_and_not_before", "test_positions_are_copied_with_the_page",
    "test_ranges_in_a_contiguous_row", "test_several_segments_equal_one",
]  # fmt: skip


@pytest.fixture(params=[False, True], ids=["eager", "padded"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    with flash_device(padding=request.param) as device:
        yield Driver(device)


@settings(max_examples=8, deadline=None)
@given(st.lists(scenes(CONFIG), min_size=1, max_size=3) | st.lists(scenes(PARTICULAR), min_size=1, max_size=3))
def test_what_is_seen_is_what_the_rule_says(given_scenes: list[Scene]) -> None:
    with flash_device(config=given_scenes[0].config) as device:
        assert_seen(Driver(device), given_scenes)


@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("chunk", [1, 5, 50])
def test_windows_in_a_contiguous_row(chunk: int, padding: bool) -> None:
    tokens, file = tokens_of(50), File()
    bounds = [0, *range(40, 50, chunk), 50] if chunk < 50 else [0, 50]
    with flash_device(pages=40, config=PARTICULAR, padding=padding) as device:
        driver = Driver(device)
        found = [logits(driver, Row(file, tokens[first:end]))[0] for first, end in pairwise(bounds)]
    np.testing.assert_allclose(np.concatenate(found), dense_logits(tokens, config=PARTICULAR), atol=TOLERANCE)


@pytest.mark.parametrize("rows", [1, 3, 8, 11])
def test_padding_touches_no_page_of_the_kernel(rows: int) -> None:
    """Every page of the pool is full of somebody's tokens; only the rows' own slots change."""
    with flash_device(pages=16, padding=True) as device:
        driver = Driver(device)
        files = [File() for _ in range(16)]
        logits(driver, *(Row(file, tokens_of(3, seed)) for seed, file in enumerate(files)))
        before = images(device)
        found = logits(driver, *(Row(file, [5]) for file in files[:rows]))
        after = images(device)
    for seed, some in enumerate(found):
        np.testing.assert_allclose(some[0], dense_logits([*tokens_of(3, seed), 5])[-1], atol=TOLERANCE)
    written = {file.pages[0] for file in files[:rows]}
    changed = set(np.flatnonzero((before != after).any(1)).tolist())
    assert changed == written


def images(device: FlashInferDevice) -> np.ndarray:
    """Of all pages of the kernel's."""
    host = np.zeros((device.facts.pages, device.facts.page_bytes), np.uint8)
    device.attach(host)
    every = np.arange(device.facts.pages, dtype=np.int32)
    device.step(Batch(99, swap_outs=np.stack((every, every), 1)))
    return host


def test_tokens_move_all_at_once(driver: Driver) -> None:
    """Two trade places, with their positions: token 1 would be later than the new one, and hidden."""
    device, file = driver.device, File()
    logits(driver, Row(file, [1, 2], positions=[5, 1], contiguous=False))
    first = file.pages[0] * device.facts.page_tokens
    device.step(Batch(5, moves=np.array([[first, first + 1], [first + 1, first]], np.int32)))
    found = logits(driver, Row(File(list(file.pages), 1), [9], positions=[2], contiguous=False))[0]
    np.testing.assert_allclose(found[0], dense_logits([2, 9], [1, 2])[-1], atol=TOLERANCE)


def test_an_image_of_a_page_is_the_torch_devices() -> None:
    """A page that was swapped out by one may be swapped in by the other; what is there is what was."""
    tokens, file = tokens_of(11), File()
    host = np.zeros((3, 4 * 2 * 2 * 2 * 16 * 4 + 4 * 4), np.uint8)
    with flash_device() as ours, small_device() as theirs:
        assert ours.facts.page_bytes == theirs.facts.page_bytes == host.shape[1]
        for device in (ours, theirs):
            device.attach(host)
        logits(Driver(ours), Row(file, tokens))
        swaps = np.stack((np.array(file.pages), [2, 0, 1]), 1).astype(np.int32)
        ours.step(Batch(2, swap_outs=swaps))
        other = File([5, 9, 7], file.tokens)
        for device in (theirs, ours):
            device.step(Batch(3, swap_ins=np.stack(([2, 0, 1], other.pages), 1).astype(np.int32)))
            found = logits(Driver(device), Row(File(list(other.pages), other.tokens), [3]))[0]
            np.testing.assert_allclose(found[0], dense_logits([*tokens, 3])[-1], atol=TOLERANCE)


@pytest.mark.parametrize("padding", [False, True])
def test_rows_that_begin_alike_read_their_beginning_once(padding: bool) -> None:
    """A tree of forks, decodes and chunks: with a cascade that always pays, the answers are the same."""
    trunk, branches, ends = tokens_of(9), [tokens_of(6, 1), tokens_of(9, 2)], [[1], [2, 3], [4], [5]]
    with flash_device(cascade_bytes=1, padding=padding) as device:
        driver, copies = Driver(device), list[tuple[int, int]]()
        root = File()
        logits(driver, Row(root, trunk))
        forks = [driver.fork(root, copies) for _ in branches]
        logits(driver, *(Row(fork, branch) for fork, branch in zip(forks, branches, strict=True)), copies=copies)
        copies = []
        leaves = [(fork if last else driver.fork(fork, copies), trunk + branch)
                  for fork, branch in zip(forks, branches, strict=True) for last in (False, True)]  # fmt: skip
        for some in (ends, [[7]] * 4):
            rows = [Row(file, end) for (file, _), end in zip(leaves, some, strict=True)]
            found = logits(driver, *rows, copies=copies)
            for (_, before), end, answer in zip(leaves, some, found, strict=True):
                np.testing.assert_allclose(answer, dense_logits(before + end)[len(before) :], atol=TOLERANCE)
                before += end
            copies = []
        kernels = device.kernels
        assert isinstance(kernels, ReferenceKernels)
        shared = kernels.readers[0].reading
        assert shared is not None
        assert not shared.causal
        assert shared.lengths.tolist() == [12, 16], "of 15 and 18 tokens, the whole pages"
        assert kernels.merges > 0


def test_numbers_that_are_not_finite_fail_the_step_and_not_the_device() -> None:
    weights = dict(RandomWeights(CONFIG, torch.float32, SEED))
    weights["model.embed_tokens.weight"][13] = torch.inf
    with FlashInferDevice((CONFIG, weights), pages=8, page_tokens=4, hardware=reference_hardware()) as device:
        driver, poisoned = Driver(device), File()
        driver.step([Row(File(), [1], samples=[(0, Sampler(lane=3))])])
        with pytest.raises(Internal, match="not finite"):
            driver.step([Row(poisoned, [1, 13, 2], samples=[(2, Sampler(lane=3))])])
        reused = File(list(poisoned.pages))
        found = logits(driver, Row(reused, [-4]))[0]             # the lane is as before
        kept = int(dense_logits([1])[0].argmax())
        np.testing.assert_allclose(found[0], dense_logits([kept])[0], atol=TOLERANCE)


def test_facts_and_close() -> None:
    device = flash_device(pages=8)
    assert (device.facts.pages, device.facts.page_tokens, device.facts.vocabulary_size) == (8, 4, 64)
    assert device.facts.name == "flashinfer reference float32"
    device.close()
    device.close()
    with pytest.raises(AssertionError, match="after close"):
        device.step(Batch(1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_refusal_says_what_is_missing() -> None:
    config = FlashInferConfig(pages=8, directory="nowhere")
    assert from_json(to_json(config)) == config
    assert not gpu_ready()
    builds = partial(config.build, lambda what, fraction: None), partial(FlashInferDevice.random, CONFIG, pages=8)
    for build in builds:
        with pytest.raises(Unsupported, match="a CUDA GPU"):
            build()
    with pytest.raises(Unsupported, match="not in float32"):
        FlashInferConfig(pages=8, dtype="float32").build(lambda what, fraction: None)
