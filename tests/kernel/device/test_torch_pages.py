"""What TorchDevice reads and writes: copies, segments, positions, ranges, lanes, against the dense reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.device.batch import PROBE_LOGITS, Batch
from cadenza.kernel.device.torch_device import TorchDevice
from cadenza.kernel.model.config import ModelConfig
from cadenza.kernel.model.weights import RandomWeights
from cadenza.kvfs.errors import Internal, Unsupported

from .compiled import PATHS, kernels_of
from .dense import CONFIG, PARTICULAR, SEED, dense_logits, small_device
from .driver import Driver, File, Probe, Row, Sampler

TOLERANCE = 2e-5


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(path: str) -> Iterator[Driver]:
    with small_device(kernels=kernels_of(path)) as device:
        yield Driver(device)


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, CONFIG.vocabulary_size, count)]


def probed(row: Row) -> Row:
    row.probes = [(token, Probe(PROBE_LOGITS)) for token in range(len(row.tokens))]
    return row


def logits(driver: Driver, *rows: Row, copies: list[tuple[int, int]] | None = None) -> list[np.ndarray]:
    """Of every token of each row."""
    answers = driver.step([probed(row) for row in rows], copies)
    return [np.stack([values for values, _ in answer.probes]) for answer in answers]


# --- copies ---


def test_forks_differ_after_the_fork_and_not_before(driver: Driver) -> None:
    shared, ends = tokens_of(10), [tokens_of(5, 1), tokens_of(5, 2)]
    file = File()
    copies: list[tuple[int, int]] = []
    logits(driver, Row(file, shared))
    twin = driver.fork(file, copies)
    found = logits(driver, Row(file, ends[0]), Row(twin, ends[1]), copies=copies)
    for end, some in zip(ends, found, strict=True):
        np.testing.assert_allclose(some, dense_logits(shared + end)[10:], atol=TOLERANCE)
    more = logits(driver, Row(file, [3]), Row(twin, [4]))
    for end, last, some in zip(ends, (3, 4), more, strict=True):
        np.testing.assert_allclose(some[0], dense_logits([*shared, *end, last])[-1], atol=TOLERANCE)


def test_copies_are_made_in_order(driver: Driver) -> None:
    """A fork of a fork in one step: the second copy reads what the first wrote."""
    shared = tokens_of(6)
    file = File()
    copies: list[tuple[int, int]] = []
    logits(driver, Row(file, shared))
    grandchild = driver.fork(driver.fork(file, copies), copies)
    assert copies[0][1] == copies[1][0]
    found = logits(driver, Row(grandchild, [5]), copies=copies)[0]
    np.testing.assert_allclose(found[0], dense_logits([*shared, 5])[-1], atol=TOLERANCE)


def test_positions_are_copied_with_the_page(driver: Driver) -> None:
    """Token 1 is later than the new one: hidden, in the copy too."""
    file = File()
    copies: list[tuple[int, int]] = []
    logits(driver, Row(file, [1, 2], positions=[5, 40], contiguous=False))
    twin = driver.fork(file, copies)
    found = logits(driver, Row(twin, [3], positions=[20], contiguous=False), copies=copies)[0]
    seen = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]], np.bool_)
    np.testing.assert_allclose(found[0], dense_logits([1, 2, 3], [5, 40, 20], seen)[2], atol=TOLERANCE)


def test_a_step_of_copies_only(driver: Driver) -> None:
    file = File()
    copies: list[tuple[int, int]] = []
    logits(driver, Row(file, tokens_of(5)))
    twin = driver.fork(file, copies)
    assert driver.step([], copies) == []
    found = logits(driver, Row(twin, [9]))[0]
    np.testing.assert_allclose(found[0], dense_logits([*tokens_of(5), 9])[-1], atol=TOLERANCE)


# --- segments, positions, ranges ---


@pytest.mark.parametrize("contiguous", [True, False])
def test_several_segments_equal_one(driver: Driver, contiguous: bool) -> None:
    tokens, parts = tokens_of(21), []
    for first, end in ((0, 6), (6, 13), (13, 20)):
        parts.append(File())
        logits(driver, Row(parts[-1], tokens[first:end], reads=parts[:-1], contiguous=contiguous))
    found = logits(driver, Row(File(), tokens[20:], reads=parts, contiguous=contiguous))[0]
    np.testing.assert_allclose(found, dense_logits(tokens)[20:], atol=TOLERANCE)


def test_an_empty_segment_changes_nothing(driver: Driver) -> None:
    tokens, file = tokens_of(9), File()
    logits(driver, Row(file, tokens[:6], reads=[File(), File()]))
    found = logits(driver, Row(file, tokens[6:], reads=[File()]))[0]
    np.testing.assert_allclose(found, dense_logits(tokens)[6:], atol=TOLERANCE)


def test_a_row_reads_what_another_row_of_the_step_writes(driver: Driver) -> None:
    tokens, first, second = tokens_of(15), File(), File()
    rows = [Row(first, tokens[:7]), Row(second, tokens[7:], reads=[first])]
    rows[1].positions = list(range(7, 15))
    batch_rows = [probed(row) for row in rows]
    answers = driver.step(batch_rows)
    np.testing.assert_allclose(
        np.stack([values for values, _ in answers[1].probes]), dense_logits(tokens)[7:], atol=TOLERANCE
    )


@dataclass
class Scene:
    """Files that were written apart, then a row that reads them all, a chunk at a time."""

    files: list[tuple[list[int], list[int]]]                      # tokens and positions
    tokens: list[int]
    positions: list[int]
    ranges: list[tuple[int, int, int]]                            # token, first offset, count
    chunk: int
    shifts: list[int]                                             # of each file, when it is read
    config: ModelConfig

    @property
    def before(self) -> int:
        return sum(len(tokens) for tokens, _ in self.files)

    def seen(self) -> np.ndarray:
        """Of all tokens, by the rule: offset, position, file, ranges."""
        files = [number for number, (tokens, _) in enumerate(self.files) for _ in tokens]
        files += [len(self.files)] * len(self.tokens)
        positions = self.all_positions()
        count, before = len(files), self.before
        seen = np.zeros((count, count), np.bool_)
        for i in range(count):
            mine = [(first, n) for token, first, n in self.ranges if token == i - before]
            for j in range(i + 1):
                readable = files[i] == len(self.files) or files[i] == files[j]
                named = not mine or any(first <= j < first + n for first, n in mine)
                seen[i, j] = readable and named and positions[j] <= positions[i]
        return seen

    def all_positions(self) -> list[int]:
        shifted = zip(self.files, self.shifts, strict=True)
        return [position + shift for (_, some), shift in shifted for position in some] + self.positions

    def expected(self) -> np.ndarray:
        """A file that is read elsewhere holds what it would hold if it had been written there."""
        tokens = [token for some, _ in self.files for token in some] + self.tokens
        return dense_logits(tokens, self.all_positions(), self.seen(), self.config)[self.before :]


@st.composite
def scenes(draw: st.DrawFn, config: ModelConfig) -> Scene:
    token, position = st.integers(0, CONFIG.vocabulary_size - 1), st.integers(0, 50)

    def sequence(least: int, most: int) -> tuple[list[int], list[int]]:
        count = draw(st.integers(least, most))
        return (
            draw(st.lists(token, min_size=count, max_size=count)),
            draw(st.lists(position, min_size=count, max_size=count)),
        )

    files = [sequence(1, 9) for _ in range(draw(st.integers(0, 3)))]
    tokens, positions = sequence(1, 9)
    span = st.tuples(st.integers(0, len(tokens) - 1), st.integers(0, 30), st.integers(0, 12))
    shifts = [draw(st.sampled_from([0, 0, 7, -20])) for _ in files]
    return Scene(files, tokens, positions, draw(st.lists(span, max_size=8)), draw(st.integers(1, 9)), shifts, config)


@pytest.mark.parametrize("by", PATHS)
@settings(max_examples=30, deadline=None)
@given(st.lists(scenes(CONFIG), min_size=1, max_size=3) | st.lists(scenes(PARTICULAR), min_size=1, max_size=3))
def test_what_is_seen_is_what_the_rule_says(by: str, given_scenes: list[Scene]) -> None:
    """Any positions in any order, any ranges (some hide everything), several files, some relocated, chunks; rows side
    by side; with and without windows, caps and sinks."""
    with small_device(config=given_scenes[0].config, kernels=kernels_of(by)) as device:
        assert_seen(Driver(device), given_scenes)


def assert_seen(driver: Driver, given_scenes: list[Scene]) -> None:
    """Every chunk's logits are those of dense attention."""
    reads = [[File() for _ in scene.files] for scene in given_scenes]
    for scene, files in zip(given_scenes, reads, strict=True):
        for file, (tokens, positions) in zip(files, scene.files, strict=True):
            logits(driver, Row(file, tokens, positions=positions, contiguous=False))
    targets = [File() for _ in given_scenes]
    found: list[list[np.ndarray]] = [[] for _ in given_scenes]
    for turn in range(9):
        rows, owners = [], []
        for number, scene in enumerate(given_scenes):
            part = slice(turn * scene.chunk, (turn + 1) * scene.chunk)
            if scene.tokens[part]:
                ranges = [(t - part.start, f, n) for t, f, n in scene.ranges if part.start <= t < part.stop]
                rows.append(Row(targets[number], scene.tokens[part], reads[number], scene.positions[part],
                                contiguous=False, visible=ranges, shifts=scene.shifts))
                owners.append(number)
        for number, answer in zip(owners, logits(driver, *rows) if rows else [], strict=True):
            found[number].append(answer)
    for scene, some in zip(given_scenes, found, strict=True):
        np.testing.assert_allclose(np.concatenate(some), scene.expected(), atol=TOLERANCE)


@pytest.mark.parametrize("chunk", [1, 5, 700])
def test_windows_in_a_contiguous_row(chunk: int, path: str) -> None:
    """A long row, of which layers with a window read the end alone: decodes, chunks, all in one piece."""
    tokens, file = tokens_of(620), File()
    bounds = [0, *range(600, 620, chunk), 620] if chunk < 100 else [0, 620]
    with small_device(pages=200, config=PARTICULAR, kernels=kernels_of(path)) as device:
        driver = Driver(device)
        found = [logits(driver, Row(file, tokens[first:end]))[0] for first, end in pairwise(bounds)]
    np.testing.assert_allclose(np.concatenate(found), dense_logits(tokens, config=PARTICULAR), atol=TOLERANCE)


def test_ranges_in_a_contiguous_row(driver: Driver) -> None:
    tokens, file = tokens_of(12), File()
    logits(driver, Row(file, tokens[:8]))
    found = logits(driver, Row(file, tokens[8:], visible=[(0, 0, 2), (0, 8, 1), (3, 4, 100)]))[0]
    seen = np.tril(np.ones((12, 12), np.bool_))
    seen[8, 2:8] = False
    seen[11, :4] = False
    np.testing.assert_allclose(found, dense_logits(tokens, seen=seen)[8:], atol=TOLERANCE)


@pytest.mark.parametrize("contiguous", [True, False])
def test_a_row_longer_than_a_block_of_queries(contiguous: bool, path: str) -> None:
    tokens, file = tokens_of(700), File()
    with small_device(pages=200, kernels=kernels_of(path)) as device:
        driver = Driver(device)
        logits(driver, Row(file, tokens[:30]))
        found = logits(driver, Row(file, tokens[30:], contiguous=contiguous))[0]
    np.testing.assert_allclose(found, dense_logits(tokens)[30:], atol=TOLERANCE)


def test_decodes_of_very_different_lengths(driver: Driver) -> None:
    """Short rows are padded with slots that others wrote: none of it is seen."""
    files = [File() for _ in range(5)]
    prompts = [tokens_of(length, length) for length in (1, 3, 8, 40, 111)]
    logits(driver, *(Row(file, prompt) for file, prompt in zip(files, prompts, strict=True)))
    found = logits(driver, *(Row(file, [7]) for file in files))
    for prompt, some in zip(prompts, found, strict=True):
        np.testing.assert_allclose(some[0], dense_logits([*prompt, 7])[-1], atol=TOLERANCE)


# --- lanes and failures ---


def test_an_input_names_what_was_sampled_on_its_lane(driver: Driver) -> None:
    prompts = [tokens_of(4, 1), tokens_of(6, 2)]
    files = [File(), File()]
    first = driver.step([
        Row(file, prompt, samples=[(len(prompt) - 1, Sampler(lane=lane))])
        for file, prompt, lane in zip(files, prompts, (7, 3), strict=True)
    ])
    rows = [Row(files[1], [-4]), Row(files[0], [-8])]
    found = logits(driver, *rows)
    for some, prompt, answer in zip(found, reversed(prompts), reversed(first), strict=True):
        np.testing.assert_allclose(some[0], dense_logits([*prompt, answer.tokens[0]])[-1], atol=TOLERANCE)


def test_numbers_that_are_not_finite_fail_the_step_and_not_the_device(path: str) -> None:
    weights = dict(RandomWeights(CONFIG, torch.float32, SEED))
    weights["model.embed_tokens.weight"][13] = torch.inf
    with TorchDevice((CONFIG, weights), pages=8, page_tokens=4, kernels=kernels_of(path)) as device:
        driver = Driver(device)
        poisoned = File()
        with pytest.raises(Internal, match="not finite"):
            driver.step([Row(poisoned, [1, 13, 2])])
        # The same page, now another's: its hidden slots must weigh nothing.
        reused = File(list(poisoned.pages))
        found = logits(driver, Row(reused, [4]))[0]
        np.testing.assert_allclose(found[0], dense_logits([4])[0], atol=TOLERANCE)


def test_facts_and_close() -> None:
    device = TorchDevice.random(CONFIG, pages=8, page_tokens=4, dtype="bfloat16", threads=1)
    facts = device.facts
    assert (facts.pages, facts.page_tokens, facts.vocabulary_size, facts.context_tokens) == (8, 4, 64, 4096)
    assert facts.page_bytes == 4 * 2 * 2 * 2 * 16 * 2 + 4 * 4
    assert "bfloat16" in facts.name
    device.close()
    device.close()
    with pytest.raises(AssertionError, match="after close"):
        device.step(Batch(1))


def test_an_unknown_dtype_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="int4"):
        TorchDevice.random(CONFIG, pages=1, dtype="int4")
