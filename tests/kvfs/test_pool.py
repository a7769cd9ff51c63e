import pytest

from cadenza.kvfs.errors import NoPages
from cadenza.kvfs.pool import PagePool


def test_pages_are_taken_once_and_come_back_at_the_last_reference() -> None:
    pool = PagePool(4, 16)
    pages = pool.allocate(3)
    assert len(set(pages)) == 3
    assert (pool.free, pool.used) == (1, 3)
    pool.share(pages[0])
    pool.release(pages[0])
    assert (pool.references(pages[0]), pool.used) == (1, 3)
    pool.release(pages[0])
    assert (pool.references(pages[0]), pool.used) == (0, 2)
    pool.recount([pages[1:]])


def test_a_full_pool_names_what_is_free_and_needed_and_gives_nothing() -> None:
    pool = PagePool(4, 16)
    pool.allocate(1)
    assert pool.can_allocate(3)
    assert not pool.can_allocate(4)
    with pytest.raises(NoPages, match="3 of 4 pages free, 4 are needed"):
        pool.allocate(4)
    assert (pool.free, pool.used) == (3, 1)
    assert pool.statistics()["refused"] == 1
    assert len(pool.allocate(3)) == 3


def test_no_page_is_no_page() -> None:
    pool = PagePool(0, 16)
    assert pool.allocate(0) == []
    with pytest.raises(NoPages):
        pool.allocate(1)


def test_our_own_bugs_are_caught() -> None:
    pool = PagePool(2, 16)
    (page,) = pool.allocate(1)
    pool.release(page)
    with pytest.raises(AssertionError, match="free already"):
        pool.release(page)
    with pytest.raises(AssertionError, match="cannot be shared"):
        pool.share(page)


@pytest.mark.parametrize("tables", [[], [[0, 1], [0]], [[0]], [[0, 1], [1, 1]]])
def test_the_recount_says_which_page_differs(tables: list[list[int]]) -> None:
    pool = PagePool(4, 16)
    assert pool.allocate(2) == [0, 1]
    pool.share(1)
    pool.recount([[0, 1], [1]])
    with pytest.raises(AssertionError, match=r"references \(page, counted, found\): \("):
        pool.recount(tables)
