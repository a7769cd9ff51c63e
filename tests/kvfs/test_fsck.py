"""fsck finds each kind of damage, names the files that lose, and mends without touching what is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from cadenza.kvfs.errors import Busy
from cadenza.kvfs.fsck import check
from cadenza.kvfs.store import Store
from tests.kvfs.storing import LAYOUT, LIMIT, contents, image, put


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three files of two pages each, slots 0 to 5."""
    store = Store(tmp_path, LAYOUT, LIMIT)
    for number in (1, 2, 3):
        put(store, number, f"/home/ada/{number}", [number, number + 10])
    store.close()
    return tmp_path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_sound_store_is_clean(directory: Path) -> None:
    report = check(directory)
    assert (report.files, report.pages, report.problems, report.clean) == (3, 6, [], True)


def test_an_empty_directory_is_clean(tmp_path: Path) -> None:
    assert check(tmp_path).clean


def test_a_damaged_page_costs_the_files_that_have_it(directory: Path) -> None:
    (segment,) = (directory / "segments").glob("*/000000")
    flip(segment, 4096 + 3 * LAYOUT.page_bytes)
    found = check(directory)
    assert len(found.problems) == len(found.lost) == 1
    assert found.lost[0].startswith("/home/ada/2: slot 3")
    assert not found.repaired
    assert check(directory, repair=True).repaired
    assert check(directory).clean
    store = Store(directory, LAYOUT, LIMIT)
    assert sorted(store.files) == [1, 3]
    assert contents(store, store.files[3]) == [image(3).tobytes(), image(13).tobytes()]
    store.close()
    assert (directory / "journal.before-repair").exists()


def test_damage_in_the_middle_of_the_journal_costs_one_entry(directory: Path) -> None:
    flip(directory / "journal", 40)
    found = check(directory, repair=True)
    assert "damaged at byte 8" in found.problems[0]
    store = Store(directory, LAYOUT, LIMIT)
    assert sorted(store.files) == [2, 3]
    store.close()


def test_a_torn_tail_and_a_lost_segment_are_told(directory: Path) -> None:
    journal = directory / "journal"
    journal.write_bytes(journal.read_bytes()[:-3])
    assert "never finished" in check(directory).problems[0]
    (segment,) = (directory / "segments").glob("*/000000")
    segment.unlink()
    assert len(check(directory).lost) == 2


def test_a_store_in_use_is_refused(directory: Path) -> None:
    store = Store(directory, LAYOUT, LIMIT)
    with pytest.raises(Busy):
        check(directory)
    store.close()
