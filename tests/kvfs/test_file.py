import numpy as np
import pytest

from cadenza.kvfs.errors import Busy, Invalid, NoPages
from cadenza.kvfs.file import File
from cadenza.kvfs.page_table import LEAF_PAGES
from cadenza.kvfs.pool import PagePool


def filled(pool: PagePool, count: int) -> File:
    file = File(pool, "ada")
    file.extend(np.arange(count, dtype=np.int32) + 100, np.arange(count, dtype=np.int32))
    return file


def test_slots_are_page_times_size_plus_offset() -> None:
    pool = PagePool(8, 4)
    pool.allocate(3)
    file = File(pool, "ada")
    slots, copies = file.extend([1, 2, 3, 4, 5], range(5))
    assert slots.dtype == np.int32
    assert slots.tolist() == [12, 13, 14, 15, 16]
    assert copies == []
    assert file.extend_one(6, 5) == (17, [])
    assert file.pages == [3, 4]
    (segment,) = file.segments()
    assert (segment.pages.tolist(), segment[1:]) == ([3, 4], (0, 0, 6, 0))


def test_the_first_writer_of_a_shared_page_copies_it_and_the_second_need_not() -> None:
    pool = PagePool(8, 4)
    file = filled(pool, 6)
    fork = file.fork()
    old = file.pages[1]
    slot, copies = fork.extend_one(7, 6)
    assert copies == [(old, fork.pages[1])]
    assert slot == fork.pages[1] * 4 + 2
    assert file.extend_one(8, 6) == (old * 4 + 2, [])
    assert (file.pages[0], file.pages[1]) == (fork.pages[0], old)


def test_a_full_last_page_is_shared_without_a_copy() -> None:
    pool = PagePool(8, 4)
    file = filled(pool, 8)
    fork = file.fork()
    assert fork.pages_for(1) == 1
    _, copies = fork.extend_one(7, 8)
    assert copies == []
    assert fork.pages[:2] == file.pages
    assert (fork.shared_pages(), file.shared_pages(), pool.used) == (2, 2, 3)


def test_both_sides_of_a_fork_write_apart_after_truncation_in_the_same_page() -> None:
    pool = PagePool(8, 8)
    file = filled(pool, 7)
    fork = file.fork()
    fork.truncate(3)
    _, copies = file.extend_one(1, 7)
    assert copies == [(fork.pages[0], file.pages[0])]
    assert fork.extend_one(2, 3) == (fork.pages[0] * 8 + 3, [])
    assert file.pages != fork.pages


@pytest.mark.parametrize("count", [1, 5 * LEAF_PAGES * 16 + 3, 40 * LEAF_PAGES * 16 + 3])
def test_a_fork_touches_nothing_but_the_table(count: int) -> None:
    """Constant time by structure: the child holds the parent's table, and nothing below it is touched."""
    pool = PagePool(3000, 16)
    file = filled(pool, count)
    leaves = [leaf.holders for leaf in file.table.leaves]
    fork = file.fork()
    assert fork.table is file.table
    assert file.table.holders == 2
    assert [leaf.holders for leaf in fork.table.leaves] == leaves
    assert {pool.references(page) for page in file.pages} == {1}


def test_the_first_write_after_a_fork_copies_one_leaf() -> None:
    pool = PagePool(3000, 16)
    file = filled(pool, 5 * LEAF_PAGES * 16 + 3)
    fork = file.fork()
    fork.extend_one(1, len(fork))
    shared = [mine is yours for mine, yours in zip(fork.table.leaves, file.table.leaves, strict=True)]
    assert shared == [True] * 5 + [False]


def test_no_pages_changes_nothing_even_where_a_copy_is_needed() -> None:
    pool = PagePool(2, 4)
    file = filled(pool, 6)
    fork = file.fork()
    assert not pool.can_allocate(fork.pages_for(1))
    for attempt in (lambda: fork.extend_one(1, 6), lambda: fork.extend([1, 2], [6, 7])):
        with pytest.raises(NoPages):
            attempt()
    assert fork.table is file.table
    assert fork.tokens().tolist() == list(range(100, 106))
    file.close()
    assert fork.extend_one(1, 6)[1] == []


def test_positions_may_leave_gaps_and_truncation_forgets_them() -> None:
    pool = PagePool(8, 4)
    file = filled(pool, 3)
    file.extend([1, 2], [10, 4])
    assert not file.contiguous
    assert file.next_position == 11
    file.extend_one(3, 5)
    assert not file.contiguous
    assert file.positions().tolist() == [0, 1, 2, 10, 4, 5]
    assert file.positions(3, 2).tolist() == [10, 4]
    file.truncate(4)
    assert (file.contiguous, file.next_position) == (False, 11)
    file.truncate(3)
    assert (file.contiguous, file.next_position) == (True, 3)


def test_truncation_past_the_end_is_refused() -> None:
    pool = PagePool(8, 4)
    file = filled(pool, 3)
    with pytest.raises(Invalid, match="give 0 to 3"):
        file.truncate(4)
    file.truncate(3)
    assert len(file) == 3


def test_one_appender_at_a_time_and_no_fork_of_an_unfinished_file() -> None:
    file = filled(PagePool(8, 4), 3)
    file.begin_append()
    with pytest.raises(Busy):
        file.begin_append()
    with pytest.raises(Busy):
        file.fork()
    file.end_append()
    file.fork().close()
    file.begin_append()


def test_what_is_appended_inexactly_stays_so_when_it_is_fed_again() -> None:
    """A pass that makes room for others cuts the file to where it began, and goes on."""
    file = filled(PagePool(8, 4), 3)
    file.begin_append(exact=False)
    for _ in range(2):
        file.extend([7, 8], [3, 4])
        assert not file.exact
        file.truncate(3)
        assert file.exact
    file.end_append()
    file.begin_append()
    file.extend([7, 8], [3, 4])
    assert file.exact


def test_a_file_is_exact_under_the_adapter_that_it_was_begun_under() -> None:
    file = File(PagePool(8, 4), "ada")
    for adapter, tokens, exact in (("a", 3, True), ("a", 5, True), ("b", 6, False), ("a", 7, False)):
        file.begin_append(adapter=adapter)
        file.extend([9] * (tokens - len(file)), list(range(len(file), tokens)))
        file.end_append()
        assert (file.adapter, file.exact, file.fork().adapter) == ("a", exact, "a")
    file.truncate(5)
    assert file.exact
    assert File.concat([file, file], "ada").adapter == "a"
    file.truncate(0)
    file.begin_append()
    assert (file.adapter, file.exact) == ("", True)


def test_the_page_table_is_not_the_callers_to_write() -> None:
    file = filled(PagePool(8, 4), 3)
    with pytest.raises(ValueError, match="read-only"):
        file.segments()[0].pages[0] = 5


def test_close_gives_everything_back_once() -> None:
    pool = PagePool(8, 4)
    file = filled(pool, 7)
    fork = file.fork()
    file.close()
    file.close()
    assert pool.used == 2
    assert fork.tokens().tolist() == list(range(100, 107))
    fork.close()
    assert pool.used == 0
    with pytest.raises(AssertionError):
        fork.extend_one(1, 0)
