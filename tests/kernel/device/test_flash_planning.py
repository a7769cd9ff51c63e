"""Plans as plain numbers: page tables, cascades, padding, workspaces. What they compute: test_flash_pages.py."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cadenza.kernel.device.batch import Batch
from cadenza.kernel.device.flashinfer.cascade import Shared, shared_beginnings
from cadenza.kernel.device.flashinfer.kernels import LEAST_WORKSPACE_BYTES, workspace_bytes
from cadenza.kernel.device.flashinfer.planning import beginnings, readings
from cadenza.kernel.device.flashinfer.reading import Reading, padded, ragged, starts

from .dense import CONFIG
from .rows import decodes

POSITIONS = np.zeros(4096, np.int32)


def plain(lengths: list[int], counts: list[int], pages: list[list[int]]) -> Batch:
    """Rows of one segment of so many tokens, the last of which are new, four to a page."""
    rows = len(lengths)
    return Batch(
        1,
        tokens=np.zeros(sum(counts), np.int32),
        row_starts=starts(counts),
        segment_starts=np.arange(rows + 1, dtype=np.int32),
        segment_tokens=np.array(lengths, np.int32),
        segment_firsts=np.zeros(rows, np.int32),
        page_starts=starts([len(some) for some in pages]),
        pages=np.array(list(itertools.chain(*pages)), np.int32),
        contiguous=np.ones(rows, np.uint8),
        visible_starts=np.zeros(rows + 1, np.int32),
    )


def test_prefill_and_decode_share_one_causal_reading_by_pages() -> None:
    """A page beyond what is read, as a file may have, is left out."""
    batch = plain([9, 4, 1], [5, 1, 1], [[7, 3, 9], [4, 8], [2]])
    (found,) = readings(batch, POSITIONS, 4)
    assert found.causal
    assert found.page_tokens == 4
    assert found.queries.tolist() == list(range(7))
    assert found.query_starts.tolist() == [0, 5, 6, 7]
    assert found.pages.tolist() == [7, 3, 9, 4, 2]
    assert found.page_starts.tolist() == [0, 3, 4, 5]
    assert found.last_page_tokens.tolist() == [1, 4, 1]
    assert found.lengths.tolist() == [9, 4, 1]


def test_pages_before_a_window_are_left_out() -> None:
    """Of 14 tokens the last sees 6, the one before it as many: 8 … 13, 7 … 12."""
    (found,) = readings(plain([14, 14], [1, 2], [[1, 2, 3, 4], [5, 6, 7, 8]]), POSITIONS, 4, window=6)
    assert found.window == 6
    assert found.pages.tolist() == [3, 4, 6, 7, 8]
    assert found.last_page_tokens.tolist() == [2, 2]


def test_what_is_shared_is_a_reading_of_all_queries_and_the_rest_one_each() -> None:
    batch = plain([9, 10, 3], [1, 2, 1], [[1, 2, 3], [1, 2, 4], [5]])
    shared = beginnings(batch, 4, least_pages=2)
    assert shared == [Shared((0, 1), 2)]
    together, apart = readings(batch, POSITIONS, 4, shared=shared)
    assert not together.causal
    assert (together.queries.tolist(), together.query_starts.tolist()) == ([0, 1, 2], [0, 3])
    assert (together.pages.tolist(), together.lengths.tolist()) == ([1, 2], [8])
    assert apart.queries.tolist() == [0, 1, 2, 3]
    assert apart.pages.tolist() == [3, 4, 5]
    assert apart.lengths.tolist() == [1, 2, 3]


def test_a_page_that_a_row_writes_is_not_shared() -> None:
    """Rows that read the same two pages, of which one writes into the second."""
    batch = plain([8, 8], [1, 2], [[1, 2], [1, 2]])
    assert beginnings(batch, 4, least_pages=1) == [Shared((0, 1), 1)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=7), st.integers(0, 6))
def test_a_cascade_is_of_equal_beginnings_and_spares_the_most(tables: list[list[int]], least: int) -> None:
    """Pages are named by their path, as those of a tree of forks are. Against all partitions into two levels."""
    pages = [np.array([hash((depth, *some[: depth + 1])) % (1 << 31) for depth in range(len(some))], np.int32)
             for some in tables]  # fmt: skip
    found = shared_beginnings(range(len(tables)), pages, least)
    rows = [row for group in found for row in group.rows]
    assert len(set(rows)) == len(rows), "no row twice"
    for group in found:
        firsts = {tuple(pages[row][: group.pages].tolist()) for row in group.rows}
        assert len(firsts) == 1
        assert len(group.rows) > 1
        assert (len(group.rows) - 1) * group.pages >= max(1, least)
    spared = sum((len(group.rows) - 1) * group.pages for group in found)
    for depth in range(1, 7):                # all that share so much, together
        alike: dict[tuple[int, ...], int] = {}
        for some in tables:
            if len(some) >= depth:
                alike[tuple(some[:depth])] = alike.get(tuple(some[:depth]), 0) + 1
        groups = [(count - 1) * depth for count in alike.values() if count > 1]
        assert spared >= sum(saved for saved in groups if saved >= max(1, least))


def test_padding_reads_one_token_of_the_spare_page() -> None:
    batch = decodes(1, [5, 6, 7], [0, 1, 2], position=0)
    (reading,) = readings(batch, POSITIONS, 4)
    found = padded(reading, 8, page=99)
    assert found.page_starts.tolist() == list(range(9))
    assert found.pages.tolist() == [*reading.pages.tolist(), 99, 99, 99, 99, 99]
    assert found.lengths.tolist() == [1] * 8
    assert found.query_starts.tolist() == list(range(9))
    assert found.queries.tolist() == list(range(8))


def test_a_token_is_merged_once_a_round() -> None:
    reading = Reading(np.array([4, 2, 4, 4, 7], np.int32), starts([5]), 1, starts([1]), np.zeros(1, np.int32),
                      np.ones(1, np.int32), causal=False)  # fmt: skip
    assert [reading.queries[places].tolist() for places in reading.rounds()] == [[4, 2, 7], [4], [4]]


def test_runs_of_numbers() -> None:
    found = ragged(np.array([5, 0, 9], np.int32), np.array([2, 0, 3], np.int32))
    assert found.tolist() == [5, 6, 9, 10, 11]
    assert ragged(np.zeros(0, np.int32), np.zeros(0, np.int32)).tolist() == []


def test_workspaces_grow_with_the_gpu_and_with_what_is_padded() -> None:
    """At least what split attention writes: a float32 row of each head for each of the rows at work."""
    small = workspace_bytes(CONFIG, 16, 1)
    assert small == LEAST_WORKSPACE_BYTES
    large = replace(CONFIG, heads=128, kv_heads=8, head_dim=256)
    found = workspace_bytes(large, 160, 256)
    rows = 2 * 160 // 8 * 128 // 16
    assert found >= 128 * rows * (256 + 1) * 4
    assert workspace_bytes(large, 1600, 256) >= 128 * 10 * rows * (256 + 1) * 4 > found
    assert workspace_bytes(large, 160, 2560) > 5 * found
