"""fsck finds each kind of damage, names the files that lose, and mends without touching what is whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cadenza.kvfs.errors import Busy, NotFound
from cadenza.kvfs.fsck import check
from cadenza.kvfs.journal import HEADER, NAMES, Journal, read_journal
from cadenza.kvfs.records import Naming, encode_names
from cadenza.kvfs.store import Store
from tests.kvfs.storing import LAYOUT, LIMIT, contents, flip, image, put, record_for


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three files of two pages each, slots 0 to 5."""
    store = Store(tmp_path, LAYOUT, LIMIT)
    for number in (1, 2, 3):
        put(store, number, f"/home/ada/{number}", [number, number + 10])
    store.close()
    return tmp_path


def segment(directory: Path) -> Path:
    (found,) = (directory / "segments").glob("*/000000")
    return found


def files(directory: Path) -> dict[tuple[str, ...], list[bytes]]:
    """What a daemon finds after a repair."""
    store = Store(directory, LAYOUT, LIMIT)
    found = {record.naming.paths: contents(store, record) for record in store.files.values()}
    store.recount([])
    store.close()
    return found


def pair(number: int) -> list[bytes]:
    return [image(number).tobytes(), image(number + 10).tobytes()]


def test_a_sound_store_is_clean_and_not_written_to(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.glob("**/*") if path.is_file()}
    report = check(directory, repair=True)
    assert (report.files, report.pages, report.problems, report.notes) == (3, 6, [], [])
    assert report.clean
    assert not report.repaired
    assert {path: path.read_bytes() for path in directory.glob("**/*") if path.is_file()} == before


def test_an_empty_directory_is_clean_and_an_absent_one_is_told(tmp_path: Path) -> None:
    assert check(tmp_path).clean
    with pytest.raises(NotFound, match="nowhere"):
        check(tmp_path / "nowhere")


def test_a_damaged_page_costs_the_files_that_have_it(directory: Path) -> None:
    store = Store(directory, LAYOUT, LIMIT)
    store.stage(record_for(4, "/shared/fork", store.files[2].pages[1:], 0))
    assert store.commit(4)
    store.close()
    flip(segment(directory), 4096 + 3 * LAYOUT.page_bytes)
    found = check(directory)
    assert found.problems == [f"slot 3 in {segment(directory)} is not what was written to it; it is a page of "
                              "/home/ada/2 /shared/fork"]
    assert [lost.split(":")[0] for lost in found.lost] == ["/home/ada/2", "/shared/fork"]
    assert (found.pages, found.repaired) == (6, False)
    assert check(directory, repair=True).repaired
    assert check(directory).clean
    assert files(directory) == {("/home/ada/1",): pair(1), ("/home/ada/3",): pair(3)}
    assert (directory / "journal.before-repair").exists()
    told = (directory / "lost").read_text().splitlines()
    assert len(told) == 2
    assert "/home/ada/2: slot 3" in told[0]


def test_every_changed_byte_of_the_pages_is_found(directory: Path) -> None:
    path = segment(directory)
    for at in range(4096, path.stat().st_size, 7):
        flip(path, at)
        assert len(check(directory).problems) == 1
        flip(path, at)
    assert check(directory).clean


def test_a_damaged_header_of_a_segment_is_written_anew(directory: Path) -> None:
    whole = segment(directory).read_bytes()
    flip(segment(directory), 20)
    assert "header" in check(directory).problems[0]
    assert files(directory) == {(f"/home/ada/{number}",): pair(number) for number in (1, 2, 3)}
    report = check(directory, repair=True)
    assert (report.repaired, report.lost) == (True, [])
    assert segment(directory).read_bytes() == whole


def test_damage_in_the_middle_of_the_journal_costs_one_entry(directory: Path) -> None:
    entries = read_journal(directory / "journal").entries
    for at in range(HEADER.size, entries[0].end, 11):
        aside = directory.parent / f"aside{at}"
        shutil.copytree(directory, aside)
        flip(aside / "journal", at)
        found = check(aside, repair=True)
        assert f"from byte {HEADER.size} to byte {entries[0].end}" in found.problems[0]
        assert len(found.lost) == 1
        assert files(aside) == {("/home/ada/2",): pair(2), ("/home/ada/3",): pair(3)}


def test_a_damaged_header_of_the_journal_costs_nothing(directory: Path) -> None:
    flip(directory / "journal", 3)
    report = check(directory, repair=True)
    assert "does not begin as a journal" in report.problems[0]
    assert (report.repaired, report.lost) == (True, [])
    assert len(files(directory)) == 3


def test_an_entry_that_makes_no_sense_is_told(directory: Path) -> None:
    journal = Journal(directory / "journal", read_journal(directory / "journal").end)
    journal.append(NAMES, encode_names({77: Naming("ada", ("/x",))}))
    journal.append(9, b"")
    journal.settle(journal.end)
    journal.close()
    report = check(directory, repair=True)
    assert ["[77]" in report.problems[0], "kind 9" in report.problems[1]] == [True, True]
    assert len(files(directory)) == 3


def test_two_files_of_one_name_are_told_apart(directory: Path) -> None:
    """As damage may leave them. The one that was changed last keeps the name."""
    journal = Journal(directory / "journal", read_journal(directory / "journal").end)
    journal.append(NAMES, encode_names({1: Naming("ada", ("/home/ada/3", "/home/ada/also")),
                                        2: Naming("ada", ("/home/ada/3/deeper",))}))
    journal.close()
    report = check(directory, repair=True)
    assert sorted(report.problems) == [f"two files want the name /home/ada/3{more}" for more in ("", "/deeper")]
    assert files(directory) == {("/home/ada/also",): pair(1), ("/home/ada/3",): pair(3)}


def test_a_torn_tail_is_no_damage_and_a_lost_segment_is(directory: Path) -> None:
    journal = directory / "journal"
    journal.write_bytes(journal.read_bytes()[:-3])
    report = check(directory)
    assert report.clean
    assert "29 bytes that were never finished" in report.notes[0]
    segment(directory).unlink()
    assert len(check(directory).lost) == 3
    assert not list((directory / "segments").glob("*/*")), "a check made a file"
    assert check(directory, repair=True).repaired
    assert files(directory) == {}


def test_segments_of_nobody_are_told(directory: Path) -> None:
    stray = directory / "segments" / ("0" * 16)
    stray.mkdir()
    (stray / "000000").write_bytes(b"x")
    report = check(directory)
    assert report.clean
    assert str(stray) in report.notes[0]
    assert len(files(directory)) == 3
    assert not stray.exists()


def test_a_store_in_use_is_refused(directory: Path) -> None:
    store = Store(directory, LAYOUT, LIMIT)
    with pytest.raises(Busy):
        check(directory)
    store.close()
