"""flashinfer's kernels against attention by definition, a reading at a time, and what it says of logarithms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.device.flashinfer.kernels import FlashInferKernels
from cadenza.kernel.device.flashinfer.planned_attention import NOTHING
from cadenza.kernel.device.flashinfer.reading import Reading, padded, starts
from cadenza.kvfs.errors import Unsupported
from tests.kernel.device.reference_kernels import ReferenceKernels

from .conftest import PLAIN

TOLERANCE = 0.03                 # of values around 1, in bfloat16
POOL_PAGES = 64


@pytest.fixture(scope="module")
def kernels() -> FlashInferKernels:
    return FlashInferKernels(PLAIN, fixed_requests=256)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    kind = draw(st.sampled_from(["causal", "window", "whole", "mask"]))
    page_tokens = draw(st.sampled_from([1, 16]))
    random = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    lengths = random.integers(1, draw(st.sampled_from([20, 700])), draw(st.integers(1, 9)))
    counts = np.array([random.integers(1, min(length, 90) + 1) for length in lengths])
    held = -(-lengths // page_tokens)
    mask = np.concatenate([some_seen(random, *shape) for shape in zip(counts, lengths, strict=True)])
    return Reading(
        queries=np.arange(counts.sum(), dtype=np.int32), query_starts=starts(counts), page_tokens=page_tokens,
        page_starts=starts(held),
        pages=random.integers(0, POOL_PAGES * 16 // page_tokens, held.sum()).astype(np.int32),
        last_page_tokens=((lengths - 1) % page_tokens + 1).astype(np.int32), causal=kind in ("causal", "window"),
        window=int(random.integers(1, 200)) if kind == "window" else 0, mask=mask if kind == "mask" else None,
    )  # fmt: skip


def some_seen(random: np.random.Generator, count: int, length: int) -> np.ndarray:
    seen = random.random((count, length)) < 0.3
    seen[:, random.integers(length)] = True
    return seen.ravel()


def pool(page_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(page_tokens)
    shape = (2, POOL_PAGES * 16 // page_tokens, page_tokens, PLAIN.kv_heads, PLAIN.head_dim)
    keys, values = torch.randn(shape, generator=generator).bfloat16()
    return keys, values


@settings(max_examples=60, deadline=None)
@given(readings(), st.sampled_from([0.0, 5.0]))
def test_a_reading_is_answered_by_definition(kernels: FlashInferKernels, reading: Reading, cap: float) -> None:
    keys, values = pool(reading.page_tokens)
    queries = torch.randn(len(reading.queries), PLAIN.heads, PLAIN.head_dim).bfloat16()
    reference = ReferenceKernels(PLAIN).reader(0)
    reference.plan(reading, cap)
    expected = reference.read(queries, keys, values)
    reader = kernels.reader(0)
    reader.plan(reading, cap)
    found = reader.read(queries.cuda(), keys.cuda(), values.cuda())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.cpu().float(), other.float(), atol=TOLERANCE, rtol=TOLERANCE)


def test_nothing_merges_to_nothing_and_something_to_itself(kernels: FlashInferKernels) -> None:
    something = torch.randn(3, 8, 64).bfloat16().cuda(), torch.randn(3, 8).cuda()
    nothing = torch.zeros_like(something[0]), torch.full_like(something[1], NOTHING)
    out, logs = kernels.merge(nothing, something)
    torch.testing.assert_close(out, something[0])
    torch.testing.assert_close(logs, something[1])
    assert not kernels.merge(nothing, nothing)[0].any()


def test_halves_merge_to_the_whole(kernels: FlashInferKernels) -> None:
    """Which holds for base 2 and for no other."""
    keys, values = (x.cuda() for x in pool(16))
    queries = torch.randn(1, 8, 64).bfloat16().cuda()
    parts = []
    for pages in (range(32), range(32, 64), range(64)):
        some = Reading(np.zeros(1, np.int32), starts([1]), 16, starts([len(pages)]), np.array(pages, np.int32),
                       np.full(1, 16, np.int32), causal=True)  # fmt: skip
        reader = kernels.reader(0)
        reader.plan(some, 0.0)
        parts.append(reader.read(queries, keys, values))
    out, logs = kernels.merge(parts[0], parts[1])
    torch.testing.assert_close(out, parts[2][0], atol=TOLERANCE, rtol=TOLERANCE)
    torch.testing.assert_close(logs, parts[2][1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("rows", "tokens"), [(1, 30_000), (3, 9000), (250, 500)])
def test_padding_does_not_change_what_rows_read(kernels: FlashInferKernels, rows: int, tokens: int) -> None:
    """Few long rows are split over all processors: with padding beside them as well. Workspaces hold that."""
    keys, values = (x.cuda() for x in pool(16))
    random, held = np.random.default_rng(rows), -(-tokens // 16)
    reading = Reading(np.arange(rows, dtype=np.int32), starts([1] * rows), 16, starts([held] * rows),
                      random.integers(0, POOL_PAGES - 1, rows * held).astype(np.int32), np.full(rows, 5, np.int32),
                      causal=True)  # fmt: skip
    queries = torch.randn(256, 8, 64).bfloat16().cuda()
    plain, fixed = kernels.reader(0), kernels.fixed_reader(256, 1 << 17)
    plain.plan(reading, 0.0)
    fixed.plan(padded(reading, 256, POOL_PAGES - 1), 0.0)
    expected, found = plain.read(queries[:rows], keys, values), fixed.read(queries, keys, values)
    torch.testing.assert_close(found[0][:rows], expected[0], atol=TOLERANCE, rtol=TOLERANCE)
    assert torch.isfinite(found[0]).all()


def test_other_heads_are_refused() -> None:
    with pytest.raises(Unsupported, match="heads of 48 values"):
        FlashInferKernels(replace(PLAIN, head_dim=48), 1)
