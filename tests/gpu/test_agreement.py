"""FlashInferDevice on a GPU against TorchDevice in bfloat16: the same rows on both, logits within 0.15."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cadenza.kernel import model
from cadenza.kernel.device.batch import PROBE_LOGITS, Batch, Device
from cadenza.kernel.device.flashinfer.device import FlashInferDevice, gpu
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.weights import RandomWeights
from cadenza.kvfs.errors import Internal
from tests.kernel.device.driver import Driver, File, Probe, Row, Sampler

from .conftest import PAGE_TOKENS, PAGES, PLAIN, SEED, Pair, pair

TOLERANCE = 0.15
BUNDLED = Path(model.__file__).parent / "bundled"
Script = Callable[[Driver], list[np.ndarray]]


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, PLAIN.vocabulary_size, count)]


def logits(driver: Driver, *rows: Row, copies: list[tuple[int, int]] | None = None) -> list[np.ndarray]:
    for row in rows:
        row.probes = [(token, Probe(PROBE_LOGITS)) for token in range(len(row.tokens))]
    return [np.stack([values for values, _ in answer.probes]) for answer in driver.step(list(rows), copies)]


def agree(devices: Pair, script: Script) -> None:
    ours, oracle = (script(Driver(device)) for device in (devices.ours, devices.oracle))
    for some, other in zip(ours, oracle, strict=True):
        np.testing.assert_allclose(some, other, atol=TOLERANCE)


def mixed(driver: Driver) -> list[np.ndarray]:
    """Prompts of any length in chunks, then decodes of some beside chunks of others."""
    files, found = [File() for _ in range(5)], list[np.ndarray]()
    for turn in range(3):
        found += logits(driver, *(Row(file, tokens_of(1 + 67 * n + turn, n)) for n, file in enumerate(files)))
    for turn in range(4):
        found += logits(driver, *(Row(file, tokens_of(1 if n else 40, turn)) for n, file in enumerate(files)))
    return found


def decodes(driver: Driver) -> list[np.ndarray]:
    """One row, two, … as many as graphs are made for, and more."""
    files = [File() for _ in range(300)]
    found = logits(driver, *(Row(file, tokens_of(1 + n % 37, n)) for n, file in enumerate(files)))
    for count in (1, 2, 3, 9, 33, 129, 256, 300):
        found += logits(driver, *(Row(file, tokens_of(1, n)) for n, file in enumerate(files[:count])))
    return found


def segments(driver: Driver) -> list[np.ndarray]:
    """Files read elsewhere, shifted or not, in chunks and by decodes; positions in disorder; ranges of visible ones."""
    parts = [File() for _ in range(4)]
    found = logits(driver, *(Row(file, tokens_of(21 + n, n)) for n, file in enumerate(parts)))
    for turn, count in enumerate((30, 1, 1, 7)):
        reads = Row(File(), tokens_of(count, turn), parts, contiguous=False, shifts=[0, 21, 43, 66])
        hidden = Row(File(), tokens_of(count, turn), parts[:1], contiguous=False, visible=[(0, 3, 9), (0, 15, 2)])
        tree = Row(File(), tokens_of(count, turn), positions=[n // 2 for n in range(count)], contiguous=False)
        found += logits(driver, reads, hidden, tree)
    return found


def forks(driver: Driver) -> list[np.ndarray]:
    """A prompt of many pages, copied on write by many: decodes that could be read together."""
    root, copies = File(), list[tuple[int, int]]()
    found = logits(driver, Row(root, tokens_of(1501)))
    twins = [driver.fork(root, copies) for _ in range(20)]
    found += logits(driver, *(Row(twin, tokens_of(1, n)) for n, twin in enumerate(twins)), copies=copies)
    return found + logits(driver, *(Row(twin, tokens_of(1 + n % 2, n)) for n, twin in enumerate(twins)))


@pytest.mark.parametrize("script", [mixed, decodes, segments, forks])
def test_logits_are_the_oracles(devices: Pair, script: Script) -> None:
    agree(devices, script)


def test_a_cascade_that_always_pays_changes_nothing() -> None:
    oracle = TorchDevice.random(PLAIN, pages=PAGES, page_tokens=PAGE_TOKENS, dtype="bfloat16", seed=SEED)
    hardware = gpu()._replace(cascade_bytes=1, cascade_bytes_over_graph=1)
    ours = FlashInferDevice.random(PLAIN, pages=PAGES, page_tokens=PAGE_TOKENS, seed=SEED, hardware=hardware)
    with oracle, ours:
        agree(Pair(oracle, ours), forks)


def test_with_graphs_and_without_decodes_are_equal() -> None:
    """The same kernels under the same plan but for padding: a last bit may differ."""
    with pair(PLAIN, graphs=True).ours as one, pair(PLAIN, graphs=False).ours as other:
        for some, same in zip(decodes(Driver(one)), decodes(Driver(other)), strict=True):
            np.testing.assert_allclose(some, same, atol=0.05)


def test_a_thousand_greedy_tokens_of_the_bundled_model() -> None:
    """Each after what the oracle has said so far: 99 of 100 are the same."""
    devices = (TorchDevice(BUNDLED, pages=512, dtype="bfloat16"), FlashInferDevice(BUNDLED, pages=512))
    drivers = [Driver(device) for device in devices]
    texts = [[File() for _ in range(20)] for _ in drivers]
    said, same = [[n + 5] for n in range(20)], 0
    for _ in range(50):
        answers = [[answer.tokens[0] for answer in driver.step([Row(file, [some[-1]], samples=[(0, Sampler())])
                                                                for file, some in zip(files, said, strict=True)])]
                   for driver, files in zip(drivers, texts, strict=True)]  # fmt: skip
        same += sum(one == other for one, other in zip(*answers, strict=True))
        said = [[*some, token] for some, token in zip(said, answers[0], strict=True)]
    assert same >= 990


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_padding_touches_no_page_of_the_kernel(devices: Pair, rows: int) -> None:
    driver = Driver(devices.ours)
    files = [File() for _ in range(128)]
    logits(driver, *(Row(file, tokens_of(3, n)) for n, file in enumerate(files)))
    before = images(devices.ours)
    logits(driver, *(Row(file, [5]) for file in files[:rows]))
    changed = np.flatnonzero((before != images(devices.ours)).any(1))
    assert set(changed.tolist()) == {file.pages[0] for file in files[:rows]}


def images(device: Device) -> np.ndarray:
    """Of all pages of the kernel's."""
    host = np.zeros((device.facts.pages, device.facts.page_bytes), np.uint8)
    device.attach(host)
    every = np.arange(device.facts.pages, dtype=np.int32)
    device.step(Batch(99, swap_outs=np.stack((every, every), 1)))
    return host


def test_what_goes_to_the_host_comes_back(devices: Pair) -> None:
    """Out, over it, in again elsewhere, copied: in one step with a row that reads it."""
    driver, file = Driver(devices.ours), File()
    host = np.zeros((200, devices.ours.facts.page_bytes), np.uint8)
    devices.ours.attach(host)
    logits(driver, Row(file, tokens_of(1600)))
    batch = driver.batch([Row(file, [3], probes=[(0, Probe(PROBE_LOGITS))])], [])
    pages = np.array(file.pages[:100], np.int32)
    moved = np.setdiff1d(np.arange(PAGES, dtype=np.int32), file.pages)[-100:]
    hosts = np.random.default_rng(0).permutation(200)[:100].astype(np.int32)
    batch.swap_outs, batch.swap_ins = np.stack((pages, hosts), 1), np.stack((hosts, moved), 1)
    batch.pages[:100] = moved
    found = devices.ours.step(batch).probe_values
    again = logits(driver, Row(File(file.pages, 1600), [3]))[0][0]
    np.testing.assert_allclose(found, again, atol=0.05)


def test_lanes_are_kept_on_the_device(devices: Pair) -> None:
    driver, files = Driver(devices.ours), [File() for _ in range(3)]
    first = driver.step([Row(file, tokens_of(5, n), samples=[(4, Sampler(lane=n + 7))])
                         for n, file in enumerate(files)])  # fmt: skip
    twins = [File() for _ in files]
    logits(driver, *(Row(twin, tokens_of(5, n)) for n, twin in enumerate(twins)))
    named = logits(driver, *(Row(file, [-1 - (n + 7)]) for n, file in enumerate(files)))
    told = logits(driver, *(Row(twin, answer.tokens) for twin, answer in zip(twins, first, strict=True)))
    for one, other in zip(named, told, strict=True):
        np.testing.assert_allclose(one, other, atol=0.05)


def test_a_failed_step_leaves_nothing_behind() -> None:
    weights = dict(RandomWeights(PLAIN, torch.bfloat16, SEED))
    weights["model.embed_tokens.weight"][13] = float("inf")
    with FlashInferDevice((PLAIN, weights), pages=64) as device:
        driver, poisoned = Driver(device), File()
        expected = logits(driver, Row(File(), [4]))[0]
        with pytest.raises(Internal, match="not finite"):
            driver.step([Row(poisoned, [1, 13, 2])])
        with pytest.raises(Internal, match="not finite"):
            driver.step([Row(File(), [13])])                     # a decode, in a graph
        found = logits(driver, Row(File(list(poisoned.pages)), [4]))[0]
        np.testing.assert_allclose(found, expected, atol=0.05)
