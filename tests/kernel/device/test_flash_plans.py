"""Any batch that the seam allows, planned and interpreted, against dense attention over what row.py says is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.device.batch import Batch
from cadenza.kernel.device.flashinfer.planned_attention import Parts, PlannedAttention
from cadenza.kernel.device.flashinfer.planning import beginnings, readings
from cadenza.kernel.device.flashinfer.pool import Pool
from cadenza.kernel.device.row import Row
from cadenza.kernel.model.decoder import Sight
from cadenza.kernel.model.rope import frequencies, rotate, rotation

from .dense import CONFIG
from .reference_kernels import ReferenceKernels

PAGE, PAGES = 4, 60
FREQUENCIES = frequencies(CONFIG.rope, CONFIG.head_dim)
CPU = torch.device("cpu")


class Scene:
    """Files over pages, some forks of others; rows that read them, plain ones and of several segments."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.free = self.random.permutation(PAGES).tolist()
        self.pool = Pool(CONFIG, PAGES, PAGE, torch.float32, CPU)
        self.flat: dict[str, list[int]] = {name: [] for name in Batch(0).arrays()}
        for name in ("row_starts", "segment_starts", "page_starts", "visible_starts"):
            self.flat[name] = [0]
        self.files: list[list[int]] = []
        for _ in range(self.random.integers(1, 7)):
            self.add_plain() if self.random.random() < 0.6 else self.add_segmented()

    def between(self, first: int, end: int) -> int:
        return int(self.random.integers(first, end))

    def add_plain(self) -> None:
        """A file of its own, or a fork; positions are offsets."""
        shared = self.files[self.between(0, len(self.files))] if self.files and self.random.random() < 0.6 else []
        shared = shared[: self.between(0, len(shared) + 1)]
        before = len(shared) * PAGE + self.between(0, 4)
        count = self.between(1, 2 if self.random.random() < 0.5 else 6)
        pages = shared + [self.free.pop() for _ in range(-(-(before + count) // PAGE) - len(shared))]
        for offset in range(len(shared) * PAGE, before + count):
            self.pool.positions[pages[offset // PAGE] * PAGE + offset % PAGE] = offset
        self.files.append(pages[: (before + count) // PAGE])
        spare = pages + ([self.free.pop()] if self.random.random() < 0.2 else [])   # a file may hold one more page
        self.add_segment(spare, before + count, 0, 0, 0)
        self.add_row(pages, 0, before, count, range(before, before + count), contiguous=True)
        self.flat["visible_starts"].append(len(self.flat["visible_ranges"]) // 3)

    def add_segmented(self) -> None:
        """Parts of files, between them tokens that are hidden, then pages of its own that begin within one."""
        offset = self.between(0, 3)
        for _ in range(self.between(0, 3) if self.files else 0):
            file = self.files[self.between(0, len(self.files))]
            skip = self.between(0, 4)
            count = self.between(0, max(1, len(file) * PAGE - skip + 1))
            if len(file) * PAGE >= skip + count:
                self.add_segment(file, count, offset, skip, int(self.random.choice([0, 0, 5, -7])))
                offset += count + self.between(0, 4)
        skip, before, count = self.between(0, 4), self.between(0, 5), self.between(1, 6)
        pages = [self.free.pop() for _ in range(-(-(skip + before + count) // PAGE))]
        slots = (np.array(pages)[:, None] * PAGE + np.arange(PAGE)).ravel()
        self.pool.positions[slots] = self.random.integers(0, 30, len(slots))
        self.add_segment(pages, before + count, offset, skip, 0)
        ordered = self.random.random() < 0.5
        positions = self.random.integers(0, 40, count)
        self.add_row(pages, skip, before, count, np.sort(positions) if ordered else positions, contiguous=False)
        for _ in range(self.between(0, 4)):
            self.flat["visible_ranges"] += [self.between(0, count), self.between(0, 30), self.between(0, 15)]
        self.flat["visible_starts"].append(len(self.flat["visible_ranges"]) // 3)

    def add_segment(self, pages: list[int], count: int, first: int, skip: int, shift: int) -> None:
        for name, value in (("tokens", count), ("firsts", first), ("skips", skip), ("shifts", shift)):
            self.flat[f"segment_{name}"].append(value)
        self.flat["pages"] += pages
        self.flat["page_starts"].append(len(self.flat["pages"]))

    def add_row(self, pages: list[int], skip: int, before: int, count: int, positions: range | np.ndarray, *,
                contiguous: bool) -> None:  # fmt: skip
        for offset, position in zip(range(skip + before, skip + before + count), positions, strict=True):
            slot = pages[offset // PAGE] * PAGE + offset % PAGE
            self.pool.positions[slot] = position
            self.flat["slots"].append(slot)
            self.flat["positions"].append(int(position))
        self.flat["tokens"] += [0] * count
        self.flat["row_starts"].append(len(self.flat["tokens"]))
        self.flat["segment_starts"].append(len(self.flat["segment_tokens"]))
        self.flat["contiguous"].append(contiguous)

    def batch(self) -> Batch:
        return Batch(1, **{name: np.array(self.flat[name], empty.dtype).reshape(-1, *empty.shape[1:])
                           for name, empty in Batch(0).arrays().items() if name not in ("masks", "adapters")})


def dense(batch: Batch, pool: Pool, sight: Sight, queries: torch.Tensor) -> torch.Tensor:
    """Every token by itself, keys turned to where they are read."""
    out = torch.zeros(queries.shape, dtype=torch.float64)
    keys, values = (x[:, 0].double().repeat_interleave(2, 1) for x in pool.keys_values(0, 1))
    for number in range(len(batch.contiguous)):
        row = Row(batch, number, PAGE, sight.window)
        parts = list(row.segments())
        slots = torch.from_numpy(np.concatenate([x.slots for x in parts]))
        seen = torch.from_numpy(np.concatenate([row.visible(x, pool.positions) for x in parts], 1))
        shifts = torch.from_numpy(np.concatenate([np.full(len(x.slots), x.shift) for x in parts]))
        turned = rotate(keys[slots], rotation(FREQUENCIES.double(), shifts, torch.float64))
        scores = torch.einsum("ihd,jhd->hij", queries[row.tokens].double(), turned) / queries.shape[2] ** 0.5
        scores = sight.cap * torch.tanh(scores / sight.cap) if sight.cap else scores
        scores = scores.masked_fill(~seen, -torch.inf)
        if sight.sinks is not None:
            scores = torch.cat((scores, sight.sinks.double()[:, None, None].expand(-1, len(seen), 1)), 2)
        weights = scores.softmax(2).nan_to_num(0.0)[:, :, : len(slots)]
        out[row.tokens] = torch.einsum("hij,jhd->ihd", weights, values[slots])
    return out


@pytest.mark.parametrize("window", [0, 5])
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.booleans(), st.sampled_from([0.0, 2.0]), st.booleans())
def test_any_batch(window: int, seed: int, cascaded: bool, cap: float, sunk: bool) -> None:
    scene, generator = Scene(seed), torch.Generator().manual_seed(seed)
    batch = scene.batch()
    count, every = len(batch.tokens), np.arange((PAGES + 1) * PAGE)
    queries, keys, values, held, more, sinks = (
        torch.randn(shape, generator=generator) for shape in
        [(count, 4, 16), (count, 2, 16), (count, 2, 16), (len(every), 2, 16), (len(every), 2, 16), (4,)]
    )  # fmt: skip
    scene.pool.write(0, torch.from_numpy(every), held, more)
    sight = Sight(window, FREQUENCIES, cap, sinks if sunk else None)
    shared = beginnings(batch, PAGE, 1) if cascaded and not window else []
    some = readings(batch, scene.pool.positions, PAGE, window, shared)
    kernels = ReferenceKernels(CONFIG)
    parts = Parts(some, [kernels.reader(number) for number in range(len(some))], sight, count, kernels, CPU)
    slots = torch.from_numpy(batch.slots.astype(np.int64))
    found = PlannedAttention(scene.pool, slots, [sight], {window: parts})(0, queries, keys, values)
    expected = dense(batch, scene.pool, sight, queries)
    torch.testing.assert_close(found.view(queries.shape).double(), expected, atol=2e-5, rtol=1e-4)
