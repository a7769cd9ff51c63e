"""Slots: neighbours are given out together, counted right, and images come back from wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cadenza.kvfs.errors import Damaged, LimitExceeded
from cadenza.kvfs.records import Layout, StoredPage
from cadenza.kvfs.segments import SEGMENT_SLOTS, Segments, header
from cadenza.kvfs.slots import LONG_RUN, Slots
from tests.kvfs.storing import LAYOUT, flip, image


def test_images_come_in_any_order(tmp_path: Path) -> None:
    segments = Segments(tmp_path, LAYOUT)
    slots = [SEGMENT_SLOTS + 900, 2, 0, 3, 1, SEGMENT_SLOTS - 1, SEGMENT_SLOTS]       # two segments, five runs
    images = np.stack([image(slot) for slot in slots])
    pages = list(map(StoredPage, slots, segments.write(slots, images)))
    segments.sync(slots)
    out = np.zeros_like(images)
    assert segments.read(pages[::-1], out) == []
    assert (out == images[::-1]).all()
    assert segments.numbers() == [0, 1]
    wrong = StoredPage(4, pages[0].checksum)                     # never written
    assert segments.read([*pages, wrong, StoredPage(3 * SEGMENT_SLOTS, 0)], np.zeros((9, 64), np.uint8)) == [
        wrong, StoredPage(3 * SEGMENT_SLOTS, 0)]
    segments.close()


@pytest.mark.parametrize("page_bytes", [1, 4096, 5000, 3 << 20])
def test_images_of_any_size_come_back(tmp_path: Path, page_bytes: int) -> None:
    segments = Segments(tmp_path, Layout("c", page_bytes, 1))
    images = np.random.default_rng(page_bytes).integers(0, 256, (5, page_bytes), np.uint8)
    pages = list(map(StoredPage, range(5), segments.write(range(5), images)))
    out = np.zeros((9, page_bytes), np.uint8)
    assert segments.read(pages, out[2:7]) == []
    assert (out[2:7] == images).all()
    assert not out[[0, 1, 7, 8]].any()
    segments.close()


def test_a_segment_of_another_layout_is_not_written_to(tmp_path: Path) -> None:
    segments = Segments(tmp_path, LAYOUT)
    segments.write([0], image(1)[None])
    segments.close()
    (path,) = tmp_path.glob("*/000000")
    assert path.read_bytes() == header(LAYOUT) + image(1).tobytes()
    flip(path, 30)
    segments = Segments(tmp_path, LAYOUT)
    with pytest.raises(Damaged, match="header"):
        segments.write([1], image(1)[None])
    segments.close()


# --- slots ---


def taken(limit: int, count: int) -> Slots:
    slots = Slots(limit)
    assert slots.allocate(count) == list(range(count))
    return slots


def test_the_shortest_run_that_is_long_enough_is_taken() -> None:
    slots = taken(100, 40)
    slots.release([*range(5, 15), *range(20, 24), 30])
    assert slots.allocate(3) == [20, 21, 22]
    assert slots.allocate(1) == [23]
    assert slots.allocate(1) == [30]
    assert slots.allocate(10) == list(range(5, 15))


def test_crumbs_are_left_until_there_is_nothing_else() -> None:
    slots = taken(100, 60)
    slots.release([1, 3, 5, *range(10, 10 + LONG_RUN)])
    assert slots.allocate(LONG_RUN + 4) == [*range(10, 10 + LONG_RUN), 60, 61, 62, 63]
    assert slots.allocate(36 + 2) == [1, 3, *range(64, 100)]
    assert not slots.can_allocate(2)
    with pytest.raises(LimitExceeded, match="99 of at most 100"):
        slots.allocate(2)
    assert slots.allocate(1) == [5]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), max_size=40))
def test_slots_are_held_as_often_as_it_is_counted(acts: list[tuple[bool, int]]) -> None:
    slots = Slots(100)
    held: list[int] = []
    for takes, count in acts:
        if takes and slots.can_allocate(count):
            fresh = slots.allocate(count)
            assert len(set(fresh)) == count
            assert not set(fresh) & set(held), "a slot was given out twice"
            assert all(0 <= slot < 100 for slot in fresh)
            again = fresh[: count // 2]
            slots.hold(again + again)
            held += [*fresh, *again, *again]
        else:
            gone, held = held[:count], held[count:]
            slots.release(gone)
        slots.recount(held)
        assert slots.used == len(set(held))


def test_the_tail_is_closed_and_opened() -> None:
    slots = taken(100, 40)
    slots.release(range(10, 40))
    assert slots.close_tail(31) is None
    assert slots.close_tail(30) == 10
    slots.recount(range(10))
    assert slots.allocate(2) == [40, 41]             # what is being given back is not given out
    slots.open_tail()
    assert slots.allocate(30) == list(range(10, 40))
    slots.release([*range(10, 42)])
    assert slots.close_tail(1) == 10
    slots.open_tail()
    assert (slots.end, slots.used) == (10, 10)


def test_our_own_bugs_are_caught() -> None:
    slots = taken(10, 2)
    slots.release([0])
    with pytest.raises(AssertionError, match="free already"):
        slots.release([0])
    with pytest.raises(AssertionError, match="never held"):
        slots.release([5])
    with pytest.raises(AssertionError, match=r"\(1, 1, 0\)"):
        taken(10, 2).recount([0])
